"""FastVID: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vxl_pruning.fastvid import FastVID, segment_ends

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid, VideoTokens


@parametrize_laws("compressor", FastVID)
def test_law(law: Callable[[], None]) -> None:
    law()


def compress(features: Tensor, importance: Tensor, **config: Any) -> VideoTokens:
    compressor = FastVID(FastVID.Config(**config), dim=features.shape[-1])
    return compressor(VideoGrid.of(features[None], importance=importance[None]))


def turned(degrees: list[float]) -> Tensor:
    """Unit vectors of the plane."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)


def test_a_video_is_cut_where_it_changes() -> None:
    """Steps of 5, 40, 10 and 60 degrees: 40 and 60 are below 0.9, then 10 is the least alike that is left."""
    frames = turned([0, 5, 45, 55, 115])
    assert segment_ends(frames, least=1, below=0.9, longest=9) == [2, 4, 5]
    assert segment_ends(frames, least=2, below=0.9, longest=9) == [2, 4, 5], "the least alike is below 0.9 as it is"
    assert segment_ends(frames, least=4, below=0.9, longest=9) == [2, 3, 4, 5]
    assert segment_ends(frames, least=99, below=-1.0, longest=9) == [1, 2, 3, 4, 5]
    assert segment_ends(frames, least=2, below=-1.0, longest=9) == [4, 5]
    assert segment_ends(frames[:1], least=8, below=0.9, longest=9) == [1]


def test_a_long_scene_is_cut_evenly() -> None:
    """A scene of seven frames and one of two: parts of at most three frames."""
    frames = turned([0, 1, 2, 3, 4, 5, 6, 90, 91])
    assert segment_ends(frames, least=1, below=0.9, longest=3) == [2, 4, 7, 9]
    assert segment_ends(frames, least=1, below=0.9, longest=7) == [7, 9]


def test_salient_cells_are_those_of_highest_importance_and_unchanged() -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(4, 5, 4, 8, generator=generator), torch.rand(4, 5, 4, generator=generator)
    tokens = compress(features, importance, retention=1 / 4, density_share=0.0)
    best = importance.flatten(1).topk(5).indices
    want = torch.zeros(4, 20, dtype=torch.bool).scatter_(1, best, True).view(4, 5, 4)
    assert torch.equal(tokens.source[0] >= 0, want)
    torch.testing.assert_close(tokens.features, features[want], rtol=0, atol=0)


def test_anchors_stand_in_every_fourth_frame_from_the_last() -> None:
    """Six frames of 20 cells at a half: 60 tokens, 24 of them anchors, in frames 5 and 1; 36 are salient."""
    compressor = FastVID(FastVID.Config(retention=0.5, min_segments=1, cut_below=-1.0), dim=8)
    generator = torch.Generator().manual_seed(0)
    cells, importance = torch.randn(6, 20, 8, generator=generator), torch.rand(6, 20, generator=generator)
    ends, salient, anchor = compressor.choose(cells, importance)
    assert ends == [6]
    assert salient.sum(1).tolist() == [6] * 6
    assert anchor.sum(1).tolist() == [0, 12, 0, 0, 0, 12]
    assert not (salient & anchor).any()


def test_remainders_go_to_the_first_frames_and_the_last_anchors() -> None:
    """Five frames of 20 cells at 0.43: 43 tokens; 17 anchors over frames 0 and 4, 26 salient cells over all."""
    compressor = FastVID(FastVID.Config(retention=0.43, min_segments=1, cut_below=-1.0), dim=8)
    _, salient, anchor = compressor.choose(torch.randn(5, 20, 8), torch.rand(5, 20))
    assert salient.sum(1).tolist() == [6, 5, 5, 5, 5]
    assert anchor.sum(1).tolist() == [8, 0, 0, 0, 9]


def test_a_frame_too_small_for_its_anchors_has_fewer() -> None:
    """Four frames of 4 cells at 14 of 16: one frame would hold 5 anchors; with 0 its 4 cells hold a fourth of 14."""
    compressor = FastVID(FastVID.Config(retention=14 / 16, min_segments=1, cut_below=-1.0), dim=8)
    _, salient, anchor = compressor.choose(torch.randn(4, 4, 8), torch.rand(4, 4))
    assert salient.sum(1).tolist() == [4, 4, 3, 3] and not anchor.any()


def test_an_anchor_takes_in_the_cells_most_like_it() -> None:
    """Two frames of two cells, two directions; the anchors are the last frame's, and each averages two cells."""
    compressor = FastVID(FastVID.Config(), dim=2)
    cells = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[0.0, 8.0], [6.0, 0.0]]])
    anchor = torch.tensor([[False, False], [True, True]])
    tokens, carrier = compressor.merge(cells, [2], torch.zeros_like(anchor), anchor)
    assert carrier.tolist() == [[1, 0], [0, 1]]
    # Two are averaged, itself among them: 1 / 3 is less than 0.6, so 0.6 * 8 + 0.4 * 6 and 0.6 * 6 + 0.4 * 4.
    torch.testing.assert_close(tokens, torch.tensor([[0.0, 7.2], [5.2, 0.0]]))


def test_an_anchor_that_nothing_else_is_like_stays_itself() -> None:
    compressor = FastVID(FastVID.Config(anchor_weight=0.0), dim=2)
    cells = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    anchor = torch.ones(1, 2, dtype=torch.bool)
    tokens, _ = compressor.merge(cells, [1], torch.zeros_like(anchor), anchor)
    torch.testing.assert_close(tokens, cells[0])


def test_nothing_is_merged_across_a_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 4, 4, 8, generator=generator)
    features[:3] += 9 * torch.eye(8)[0]
    features[3:] += 9 * torch.eye(8)[1]
    importance = torch.rand(6, 4, 4, generator=generator)
    source = compress(features, importance, retention=1 / 4, min_segments=2).source[0]
    assert not set(source[:3].unique().tolist()) & set(source[3:].unique().tolist())
    assert (source >= 0).all(), "every cell is salient or in a token"


def test_tokens_stand_in_the_order_of_the_first_frame_they_carry() -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(7, 3, 5, 8, generator=generator), torch.rand(7, 3, 5, generator=generator)
    tokens = compress(features, importance, retention=0.3, min_segments=2)
    assert (tokens.span[:, 0].diff() >= 0).all()
    alone = [int(k) for k in (tokens.weight == 1).nonzero()[:, 0]]
    assert len(alone) >= 7
    unchanged = [k for k in alone if torch.equal(tokens.features[k], features[tokens.source[0] == k][0])]
    assert len(unchanged) >= 7 and tokens.position[unchanged, 0].diff().ge(0).all()


@pytest.mark.parametrize("retention", [0.011, 0.1, 0.33, 0.5, 0.77, 1.0])
def test_the_budget_of_a_video_is_exact(retention: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features, importance = torch.randn(7, 3, 5, 8, generator=generator), torch.rand(7, 3, 5, generator=generator)
    tokens = compress(features, importance, retention=retention, min_segments=3, cut_below=-1.0)
    assert len(tokens.features) == int(7 * 15 * retention + 0.5)


@pytest.mark.parametrize(
    "bad", [{"min_segments": 0}, {"anchor_every": 0}, {"density_share": 1.1}, {"anchor_weight": -0.1}, {"cut_below": 2}]
)
def test_impossible_parameters_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        FastVID.Config(**bad)


def test_of_equal_anchors_the_first_takes_all() -> None:
    cells = torch.randn(1, 40, 33, generator=torch.Generator().manual_seed(0))
    cells[0, 30:] = cells[0, 7]
    anchor = torch.zeros(1, 40, dtype=torch.bool)
    anchor[0, 30:] = True
    tokens, carrier = FastVID(FastVID.Config(), dim=33).merge(cells, [1], torch.zeros_like(anchor), anchor)
    assert carrier[0].tolist() == [0] * 30 + list(range(10)), "and each of the others carries itself"
    assert (tokens[1:] == cells[0, 7]).all()


def test_in_still_frames_the_earliest_anchors_carry() -> None:
    frame = torch.randn(1, 6, 6, 32, generator=torch.Generator().manual_seed(0))
    importance = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(1)).expand(8, 6, 6)
    tokens = compress(frame.expand(8, 6, 6, 32), importance, retention=80 / 288, min_segments=1)
    carried = tokens.weight[tokens.span[:, 1] > tokens.span[:, 0]]
    assert len(carried) == 16, "of 32 anchors in two frames"
