"""Haystacks: what becomes of a clip that is made a part of a long video, and what the selector is told."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import tiny_lm
from tests.models.test_video_lm import FirstGroups, make

from vxl_lightning import registry
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.errors import UserError
from vxl_lightning.models.haystacks import HaystackConfig, haystacks
from vxl_lightning.models.prefix import Projected
from vxl_lightning.selectors.query_aware import QueryAwareSelector
from vxl_lightning.selectors.uniform import UniformSelector
from vxl_lightning.tokens import VideoGrid, VideoTokens

CLIPS, GROUPS, TOKENS = 3, 5, 2
MODEL = make(tiny_lm.language_model())


def clip(index, *needles):
    """``needles`` are (group, colour, shape); each is asked for its shape, and for its time."""
    told = [
        {"shape": s, "colour": c, "frame": 4 * g + 1, "time": 4.0 * g + 1, "x": 0.5, "y": 0.5, "radius": 0.1}
        for g, c, s in needles
    ]
    asked = [q for g, c, s in needles for q in ((f"shape of {c}?", s, g), (f"when is {c} {s}?", f"{4 * g} s", g))]
    asked.append(("how many?", str(len(needles)), None))
    turns = tuple(t for q, a, _ in asked for t in (Turn("human", q), Turn("gpt", a)))
    spans = [None if g is None else [4.0 * g + 1, 4.0 * g + 2] for _, _, g in asked]
    return Sample(f"clip-{index}", f"clip-{index}.mp4", turns, {"needles": told, "answer_span": spans})


SAMPLES = [clip(0, (1, "red", "disk"), (3, "blue", "star")), clip(1, (0, "red", "ring")), clip(2)]


def projected(clips=CLIPS, hidden=32):
    """Every token says where it comes from: (clip, group, token)."""
    where = torch.cartesian_prod(*(torch.arange(n).float() for n in (clips, GROUPS, TOKENS)))
    features = torch.zeros(len(where), hidden)
    features[:, :3] = where
    position = torch.zeros(len(where), 3)
    position[:, 0] = where[:, 1] * 4
    times = torch.arange(4.0 * GROUPS).expand(clips, -1).contiguous()
    span = torch.stack([where[:, 1] * 4, where[:, 1] * 4 + 3], 1)
    source = torch.full((clips, 4 * GROUPS, 1, 1), -1)
    tokens = VideoTokens(features, torch.full((clips,), GROUPS * TOKENS), position, span, source)
    return Projected(tokens, features, times)


def made(config, seed=0, samples=SAMPLES, model=MODEL, of=None):
    of = projected(len(samples)) if of is None else of
    return haystacks(model, of, samples, config, torch.Generator().manual_seed(seed))


def content(found, video):
    """(clip, group) of every group that is laid out, and the seconds at which it begins."""
    tokens = found.projected.tokens
    begin, end = tokens.offsets[video : video + 2].tolist()
    groups = [tuple(int(v) for v in row[:2]) for row in tokens.features[begin:end:TOKENS]]
    return groups, found.projected.times[video, ::4][: len(groups)].tolist()


@given(st.integers(0, 200), st.integers(1, 8), st.integers(1, 300), st.floats(0, 1))
def test_laws_of_a_haystack(seed, groups, frames, hard):
    found = made(HaystackConfig(frames=frames, groups=groups, hard=hard), seed)
    busy = {0: [(0, 1), (0, 3)], 1: [(1, 0)], 2: []}
    every = {g for of in busy.values() for g in of}
    for video, own in busy.items():
        laid, seconds = content(found, video)
        assert [g for g in laid if g in every] == own, "its own, in their order, and no other clip's"
        assert len(set(laid)) == len(laid) and len(own) <= len(laid) <= max(groups, len(own), 1)
        assert seconds == sorted(set(seconds)) and all(s % 4 == 0 for s in seconds)
        assert max(seconds) < 4 * max(frames // 4, len(laid), 1)


def test_answers_that_say_a_time_say_the_new_one_and_others_stay():
    found = made(HaystackConfig(frames=8192, groups=8), 3)
    laid, seconds = content(found, 0)
    new = {g: f"{s:g} s" for g, s in zip(laid, seconds, strict=True)}
    assert new[(0, 3)] != "12 s", "a seed under which the time is another"
    assert dict(found.pairs[0]) == {
        "shape of red?": "disk", "when is red disk?": new[(0, 1)], "shape of blue?": "star",
        "when is blue star?": new[(0, 3)], "how many?": "2",
    }  # fmt: skip
    assert found.pairs[2] == [("how many?", "0")]


def test_tokens_move_with_their_group():
    found = made(HaystackConfig(frames=4096, groups=6), 1)
    tokens, (_, seconds) = found.projected.tokens, content(found, 0)
    count = int(tokens.lengths[0])
    assert tokens.position[:count, 0].tolist() == [4.0 * (i // TOKENS) for i in range(count)]
    assert tokens.span[:count, 0].tolist() == [seconds[i // TOKENS] for i in range(count)]


def test_the_same_chance_gives_the_same_haystacks():
    one, two, other = (made(HaystackConfig(groups=6), seed) for seed in (5, 5, 6))
    assert torch.equal(one.projected.features, two.projected.features) and one.pairs == two.pairs
    assert one.pairs != other.pairs


def test_clips_that_are_not_asked_about_are_hay_alone():
    found = made(HaystackConfig(groups=8, asked=1))
    assert len(found.pairs) == 1 and found.projected.tokens.lengths.shape == (1,)
    assert {c for c, _ in content(found, 0)[0]} > {0}


def test_shorter_clips_of_a_batch_have_no_groups_in_their_padding():
    of = projected()
    times = of.times.clone()
    times[1, 8:] = 0  # the second clip has two groups; what follows is padding
    short = clip(1, (1, "red", "ring"))
    tokens = of.tokens
    keep = (tokens.video != 1) | (tokens.position[:, 0] < 8)
    cut = VideoTokens(
        tokens.features[keep], torch.tensor([10, 4, 10]), tokens.position[keep], tokens.span[keep], tokens.source
    )
    found = made(
        HaystackConfig(groups=8), samples=[SAMPLES[0], short, SAMPLES[2]], of=Projected(cut, cut.features, times)
    )
    assert (1, 1) in content(found, 1)[0] and (1, 1) not in content(found, 0)[0]


class Likes(UniformSelector):
    """Likes the groups of one clip best, the later the better, whatever is asked."""

    needs_query = True

    def score(self, candidates, query):
        return candidates.features[:, 0, 0].eq(2) * 100.0 + candidates.features[:, 0, 1]


def with_selector(selector):
    model = make(tiny_lm.language_model(), selector=selector, select=4)
    return model


def test_hard_hay_is_what_the_selector_likes_best():
    model = with_selector(Likes(Likes.Config(), dim=32))
    laid, _ = content(made(HaystackConfig(groups=20, hard=1.0), model=model), 0)
    few = [content(made(HaystackConfig(groups=5, hard=1.0), seed, model=model), 0)[0] for seed in range(20)]
    best = [(2, 4), (2, 3), (2, 2)]
    assert set(laid) > set(best)
    assert all(set(f) - {(0, 1), (0, 3)} == set(best[: len(f) - 2]) for f in few)


def test_a_selector_is_told_how_its_groups_stand_among_all_hay():
    spec = {"name": "late_interaction", "rank": 2}
    model = with_selector(registry.build("selector", spec, dim=32))
    of = projected()
    loss = made(HaystackConfig(groups=4), model=model, of=of).selection
    assert loss is not None and loss.requires_grad
    loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for n, p in model.selector.named_parameters() if n != "turn_out.weight")
    assert made(HaystackConfig(groups=4)).selection is None, "there is none to be told"


def test_a_selector_that_finds_everything_has_nothing_to_learn():
    class Knows(Likes):
        def score(self, candidates, query):
            clip, group = candidates.features[:, 0, 0], candidates.features[:, 0, 1]
            return 10.0 * ((clip == 0) & ((group == 1) | (group == 3)) | (clip == 1) & (group == 0))

    loss = made(HaystackConfig(groups=4), model=with_selector(Knows(Knows.Config(), dim=32))).selection
    assert loss is not None and float(loss) < 1e-6


def test_selectors_that_do_not_choose_groups_by_the_question_alone_are_refused():
    model = with_selector(QueryAwareSelector(QueryAwareSelector.Config(), dim=32))
    with pytest.raises(UserError, match=r"selector=QueryAwareSelector in a haystack: it must choose groups"):
        made(HaystackConfig(groups=4), model=model)


def test_groups_of_different_sizes_cannot_be_compared():
    of = projected()
    keep = torch.arange(len(of.features)) != 3
    tokens = of.tokens
    cut = replace(
        tokens, features=tokens.features[keep], position=tokens.position[keep], span=tokens.span[keep],
        lengths=torch.tensor([9, 10, 10]),
    )  # fmt: skip
    model = with_selector(FirstGroups(FirstGroups.Config(), dim=32))
    with pytest.raises(UserError, match=r"gives 1 to 2; choose one that works in groups"):
        made(HaystackConfig(groups=4), model=model, of=Projected(cut, cut.features, of.times))
    assert made(HaystackConfig(groups=4), of=Projected(cut, cut.features, of.times)).pairs, "without one they need not"


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"groups": -1}, {"asked": -1}, {"hard": 1.5}])
def test_values_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=rf"haystack\.{next(iter(wrong))}"):
        HaystackConfig(**wrong)


def test_haystacks_are_answered_like_any_other_video():
    with torch.no_grad():
        of = MODEL.project(VideoGrid.of(torch.randn(3, 20, 4, 4, tiny_lm.DIM)))
        found = haystacks(MODEL, of, SAMPLES, HaystackConfig(groups=6), torch.Generator().manual_seed(0))
        assert torch.isfinite(MODEL.loss(found.projected, found.pairs, select=False))
