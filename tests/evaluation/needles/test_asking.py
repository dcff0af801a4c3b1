"""Answers, and where on the road a needle was lost."""

from dataclasses import replace

import pytest
import torch
from tests.evaluation.needles import tiny_road

from vxl_lightning.data.synth.questions import Needle
from vxl_lightning.evaluation.needles import asking, road
from vxl_lightning.evaluation.needles.asking import ask, cells_under, lost, overlap, said_span
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.evaluation.needles.plant import Cell, group_span, plant
from vxl_lightning.selectors.base import Selector


class Chosen(Selector):
    """Keeps the groups it is told."""

    needs_query = False
    groups = (0,)

    def score(self, candidates, query):
        return torch.tensor([float(g in self.groups) for g in range(len(candidates.times))])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    hay = tiny_road.hay(tmp_path_factory.mktemp("hay"))
    config = NeedleEvaluationConfig(model="somewhere")
    index = next(i for i in range(99) if len(made(config, i).needles) == 3)
    base = tiny_road.model()
    (watched,) = road.watch(hay, made(config, index), tiny_road.MeanColours(), [base]).values()
    return base, watched, made(config, index)


def made(config, index):
    return plant(config, Cell(36, 0.5, index), tiny_road.FRAMES, tiny_road.FPS, 4)


def by_task(asked):
    return {r["task"]: r for r in asked.records}


def with_groups(base, groups):
    model = tiny_road.beside(base, "uniform", len(groups))
    model.selector = Chosen(Chosen.Config(), dim=base.plain.config.hidden_size)
    model.selector.groups = groups
    return model


def test_a_needle_is_recalled_when_a_token_of_its_group_reaches_the_language_model(world):
    base, watched, planted = world
    groups = [n.frame // 4 for n in planted.needles]
    here = groups[planted.asked]
    elsewhere = next(g for g in range(9) if g not in groups)
    with_it = by_task(ask(with_groups(base, (here, elsewhere)), watched, planted, 4.0, 4))
    without = by_task(ask(with_groups(base, (elsewhere,)), watched, planted, 4.0, 4))
    everything = by_task(ask(with_groups(base, tuple(groups)), watched, planted, 4.0, 4))
    for task in ("what", "colour", "when"):
        assert (with_it[task]["recalled"], without[task]["recalled"]) == (True, False)
    for task in ("order", "count"):  # these rest on more than one
        assert not with_it[task]["recalled"] and everything[task]["recalled"]
    assert all(r["carried"] for r in without.values())
    assert {r["visual_tokens"] for r in with_it.values()} == {8}
    assert all(r["recalled"] for r in by_task(ask(base, watched, planted, 4.0, 4)).values())


def test_what_the_compressor_dropped_is_not_carried(world):
    base, watched, planted = world
    tokens = watched.projected.tokens
    source = tokens.source.clone()
    source[0, planted.needles[planted.asked].frame] = -1
    dropped = replace(watched, projected=replace(watched.projected, tokens=replace(tokens, source=source)))
    record = by_task(ask(base, dropped, planted, 4.0, 4))["what"]
    assert (record["carried"], record["recalled"]) == (False, False)


@torch.no_grad()
def test_exact_is_the_likeliest_token_at_every_place_of_the_answer(world):
    base, watched, planted = world
    chat = base.layout.chat
    prefix = base.prefix(watched.projected, 0, None)
    for record in ask(base, watched, planted, 4.0, 4).records:
        answer = chat.answer(record["answer"])
        tail = base.embedding(base.ids(chat.question(record["question"]) + answer))
        out = base.language_model(inputs_embeds=torch.cat([prefix.embeds, tail])[None]).logits[0]
        said = out[-len(answer) - 1 : -1].argmax(-1).tolist()
        assert record["exact"] == (said == answer)


def test_what_a_model_says_by_itself_is_exact_and_no_other_answer_is(world):
    base, watched, planted = world
    letters = base.ids([base.layout.chat.answer(c)[0] for c in "abcdefgh"])
    only = torch.full((259,), -1e9).index_fill(0, letters, 0.0)
    hook = base.language_model.get_output_embeddings().register_forward_hook(lambda _, __, out: out + only)
    try:
        alone = replace(planted, questions=tuple(p for p in planted.questions if p.question.task == "what"))
        (first,) = ask(base, watched, alone, 4.0, 4).records
        said = first["reply"]
        other = said[:-1] + ("a" if said[-1] != "a" else "b")
        for answer, right in ((said, True), (other, False)):
            question = replace(alone.questions[0].question, answer=answer, choices=(other, said))
            asked = replace(alone, questions=(replace(alone.questions[0], question=question),))
            (record,) = ask(base, watched, asked, 4.0, 4).records
            assert (record["exact"], record["generated"], record["chosen"]) == (right, right, right)
    finally:
        hook.remove()
    assert len(said) == 4 and not first["generated"]


def test_a_language_model_that_cannot_be_taken_up_again_answers_the_same(world, monkeypatch):
    base, watched, planted = world
    rows = [base, with_groups(base, (0, 4))]
    once = [ask(model, watched, planted, 4.0, 4).records for model in rows]
    monkeypatch.setattr(asking, "_remembers", lambda model: False)
    assert [ask(model, watched, planted, 4.0, 4).records for model in rows] == once


def test_replies_are_compared_without_case_space_and_full_stop():
    assert asking.plain("  Red\n star. ") == asking.plain("red star") != asking.plain("red stars")


def test_a_prefix_that_does_not_fit_is_told_beside_what_was_ready(world):
    base, watched, planted = world
    limit = base.plain.config.max_position_embeddings
    try:
        base.plain.config.max_position_embeddings = 50
        records = ask(base, watched, planted, 4.0, 4).records
    finally:
        base.plain.config.max_position_embeddings = limit
    assert len(records) == 5
    assert all("the language model has 50" in r["failed"] and r["carried"] and "exact" not in r for r in records)


def test_the_cells_under_a_needle_are_those_whose_middles_it_covers_and_its_own():
    def under(x, y, radius, height=4, width=4):
        needle = Needle("star", "red", 0, 0.0, x, y, radius)
        return cells_under(needle, height, width).nonzero().tolist()

    assert under(0.3, 0.6, 0.05) == [[2, 1]]
    assert under(0.5, 0.5, 0.18) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert under(0.375, 0.5, 0.15) == [[1, 1], [2, 1]]
    assert under(0.99, 0.99, 0.01) == [[3, 3]]
    assert under(0.25, 0.5, 0.2, height=2, width=4) == [[1, 1]]


@pytest.mark.parametrize(
    ("reply", "span", "iou"),
    [
        ("3 s", (3.0, 4.0), 1.0),
        ("At 3.5 s.", (3.5, 4.5), 1 / 3),
        ("from 2 to 4 s", (2.0, 4.0), 0.5),
        ("8 s", (8.0, 9.0), 0.0),
        ("9 s", (9.0, 9.0), 0.0),
        ("at the end", None, 0.0),
        ("", None, 0.0),
    ],
)
def test_seconds_are_found_in_a_reply_and_compared(world, reply, span, iou):
    base, _, planted = world
    assert said_span(reply, 1.0, 9.0) == span
    (posed,) = (p for p in planted.questions if p.question.task == "when")
    found = overlap(replace(posed.question, span=(3.0, 4.0)), reply, planted, 4.0, base)
    assert found["iou"] == pytest.approx(iou)
    assert [found[f"r@{x}"] for x in (0.3, 0.5, 0.7)] == [iou >= 0.3, iou >= 0.5, iou >= 0.7]
    assert overlap(replace(posed.question, task="what"), reply, planted, 4.0, base) == {}
    assert group_span(planted.needles[planted.asked].frame, 36, 4.0, 4) == posed.question.span


@pytest.mark.parametrize(
    ("exact", "carried", "recalled", "where"),
    [
        (True, False, False, ""),
        (False, False, False, "compressor"),
        (False, True, False, "selector"),
        (False, True, True, "language model"),
    ],
)
def test_a_miss_is_blamed_on_the_first_that_lost_it(exact, carried, recalled, where):
    assert lost({"exact": exact, "carried": carried, "recalled": recalled}) == where
