"""Questions: one answer each, right by the needles, balanced, held-out pairs never in training."""

from collections import Counter
from functools import cache

import pytest
import torch

from vxl_lightning.data.synth.needles import PLAN
from vxl_lightning.data.synth.questions import COUNTS, Needle, Question, ask, place_needles
from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES

FRAMES, FPS, GROUP = 32, 2.0, 4


@cache
def clips(count: int, held_out: bool = False) -> list[tuple[tuple[Needle, ...], list[Question]]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        number, about_all = PLAN[i % len(PLAN)]
        needles = place_needles(number, FRAMES, FPS, GROUP, held_out, generator)
        made.append((needles, ask(needles, FRAMES, FPS, GROUP, about_all, generator)))
    return made


def answer(q: Question, needles: tuple[Needle, ...]) -> str:
    """The answer worked out from the question's words alone."""
    words = q.text.rstrip("?").split()
    if q.task == "count":
        return str(len(needles))
    if q.task == "exists":
        return "yes" if any((n.colour, n.shape) == tuple(words[-2:]) for n in needles) else "no"
    named = [n for n in needles if n.shape in words or n.colour in words]
    if q.task == "order":
        return min(named, key=lambda n: n.frame).shape
    (needle,) = [n for n in named if q.task != "when" or (n.shape in words and n.colour in words)]
    return {"what": needle.shape, "colour": needle.colour, "when": f"{needle.frame // GROUP * GROUP / FPS:g} s"}[q.task]


def test_every_answer_follows_from_the_question() -> None:
    for needles, questions in clips(300, held_out=True):
        assert len({n.shape for n in needles}) == len({n.colour for n in needles}) == len(needles)
        assert len({n.frame // GROUP for n in needles}) == len(needles)
        for q in questions:
            assert q.answer in q.choices and len(set(q.choices)) == len(q.choices)
            assert q.answer == answer(q, needles), q
            if q.span is not None:
                assert any((n.time, n.time + 1 / FPS) == q.span for n in needles)


def test_needles_are_inside_the_frame_and_off_the_group_grid() -> None:
    needles = [n for found, _ in clips(300) for n in found]
    assert {n.frame % GROUP for n in needles} == set(range(GROUP))
    for n in needles:
        assert n.radius - 1e-3 <= n.x <= 1 - n.radius + 1e-3 and n.radius - 1e-3 <= n.y <= 1 - n.radius + 1e-3
        assert n.time == n.frame / FPS and 0.15 <= n.radius <= 0.20


def test_held_out_pairs_are_in_test_alone() -> None:
    seen = {(n.colour, n.shape) for found, _ in clips(1800) for n in found}
    assert seen == {(c, s) for c in COLOURS for s in SHAPES} - HELD_OUT
    assert {(n.colour, n.shape) for found, _ in clips(1800, held_out=True) for n in found} > HELD_OUT
    asked = [q.text for _, questions in clips(1800) for q in questions if q.task == "exists"]
    assert not [t for t in asked for c, s in HELD_OUT if f"{c} {s}?" in t]


@pytest.mark.parametrize("task", ["what", "colour", "order", "when", "count", "exists"])
def test_no_answer_is_a_good_guess(task: str) -> None:
    made = clips(1800)
    questions = [q for _, found in made for q in found if q.task == task]
    if task == "order":
        share = Counter(q.choices.index(q.answer) for q in questions)
    else:
        share = Counter(q.answer for q in questions)
    chance = 1 / len(questions[0].choices)
    assert max(share.values()) / len(questions) < 1.25 * chance
    if task == "count":
        assert set(share.values()) == {len(questions) // len(COUNTS)}


def test_without_needles_only_negatives() -> None:
    needles, questions = clips(1)[0]
    assert needles == ()
    assert {(q.task, q.answer) for q in questions} == {("count", "0"), ("exists", "no")}
