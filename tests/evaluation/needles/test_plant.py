"""What is planted: where, of which pairs, and what is asked of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.data.synth.shapes import HELD_OUT
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.evaluation.needles.plant import TIMES, Cell, cells, depth_frame, group_span, plant

FRAMES, FPS, GROUP = 5000, 4.0, 4


def config(**values):
    return NeedleEvaluationConfig(model="somewhere", **values)


def planted(length=512, depth=0.5, index=0, **values):
    return plant(config(**values), Cell(length, depth, index), FRAMES, FPS, GROUP)


@given(length=st.integers(1, 40_000), depth=st.floats(0, 1), group=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_needle_is_near_its_depth_and_off_the_grid_of_groups(length, depth, group, seed):
    frame = depth_frame(length, depth, group, torch.Generator().manual_seed(seed))
    at = int(depth * (length - 1))
    assert 0 <= frame < length and abs(frame - at) < group
    assert frame % group or length == 1 or group == 1
    if group == 1:
        assert frame == at


@pytest.mark.parametrize("length", [1, 2, 5, 9, 32, 33, 2048])
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_every_needle_is_in_a_group_of_its_own_and_no_colour_or_shape_comes_twice(length, depth):
    for index in range(8):
        found = planted(length, depth, index)
        assert 0 <= found.begin <= FRAMES - length
        frames = [n.frame for n in found.needles]
        assert frames == sorted(frames) and len({f // GROUP for f in frames}) == len(frames) <= 4
        assert len({n.shape for n in found.needles}) == len({n.colour for n in found.needles}) == len(frames)
        asked = found.needles[found.asked]
        assert abs(asked.frame - int(depth * (length - 1))) < GROUP
        assert (asked.colour, asked.shape) in HELD_OUT


def test_pairs_of_training_are_asked_of_and_seen_alone_where_that_is_wanted():
    for index in range(20):
        found = planted(index=index, pairs="seen")
        assert not HELD_OUT.intersection((n.colour, n.shape) for n in found.needles)


def test_it_is_drawn_from_seed_cell_and_number_alone():
    assert planted() == planted(lengths=[512, 7], depths=[0.5], per_cell=9, name="other")
    others = [planted(index=1), planted(seed=1), planted(depth=0.25), planted(length=511)]
    assert all(o.needles != planted().needles for o in others)


def test_every_question_has_its_answer_among_its_choices():
    tasks, counts = set(), set()
    for index in range(30):
        found = planted(index=index)
        asked = found.needles[found.asked]
        for posed in found.questions:
            q = posed.question
            tasks.add(q.task)
            assert q.answer in q.choices and len(set(q.choices)) == len(q.choices)
            about = [found.needles[i] for i in posed.about]
            if q.task in ("what", "colour", "when"):
                assert about == [asked]
            if q.task == "what":
                assert asked.colour in q.text and q.answer == asked.shape
            if q.task == "when":
                begin, end = q.span
                assert begin <= asked.time < end == begin + 1 and q.answer == f"{begin:g} s"
                assert len(q.choices) == TIMES
                assert {f"{n.frame // GROUP:g} s" for n in found.needles} <= set(q.choices)
                seconds = [float(c.removesuffix(" s")) for c in q.choices]
                assert seconds == sorted(seconds)
            if q.task == "order":
                assert len(about) == 2 and asked in about and q.answer == min(about, key=lambda n: n.frame).shape
            if q.task == "count":
                counts.add(q.answer)
                assert q.answer == str(len(found.needles)) and about == list(found.needles)
    assert tasks == {"what", "colour", "when", "order", "count"} and counts == {"1", "2", "3", "4"}


def test_one_group_has_no_when_and_one_needle_no_order():
    assert {p.question.task for p in planted(length=4).questions} == {"what", "colour", "count"}
    assert [p.question.task for p in planted(needles=1, tasks=["order", "count"]).questions] == ["count"]


def test_the_seconds_of_a_group_end_with_the_video():
    assert group_span(5, 100, 4.0, 4) == (1.0, 2.0)
    assert group_span(8, 10, 4.0, 4) == (2.0, 2.5)


def test_cells_come_shorter_ones_first():
    found = cells(config(lengths=[32, 1], depths=[1, 0], per_cell=2))
    assert [c.name for c in found[:5]] == ["1/0/0", "1/0/1", "1/1/0", "1/1/1", "32/0/0"]
    assert len(found) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lengths": [0]}, "lengths"),
        ({"lengths": [8, 8]}, "lengths"),
        ({"depths": [1.5]}, "depths"),
        ({"depths": []}, "depths"),
        ({"tasks": ["where"]}, "tasks"),
        ({"needles": 5}, "needles=5"),
        ({"per_cell": 0}, "per_cell=0"),
        ({"pairs": "none"}, "pairs"),
        ({"footage": "val"}, "held-out pairs are for the test"),
        ({"footage": "train", "pairs": "seen"}, "footage"),
        ({"fps": -1.0}, "fps"),
        ({"kind": "benchmarks"}, "kind"),
        ({"variants": {"x": {"colour": 1}}}, "unknown key 'colour'"),
    ],
)
def test_mistakes_in_the_configuration_are_told(values, message):
    with pytest.raises(UserError, match=message):
        _ = config(**values).rows
