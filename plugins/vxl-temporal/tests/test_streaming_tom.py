"""Causal temporal reduction: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vxl_temporal.streaming_tom import CausalTemporalReduction

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", CausalTemporalReduction)
def test_law(law: Callable[[], None]) -> None:
    law()


def on_circle(degrees: list[float]) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)


def turned(degrees: list[list[float]], importance: list[list[float]] | None = None) -> VideoGrid:
    """Frames of one row: cell x of frame t points to ``degrees[t][x]``."""
    side = None if importance is None else torch.tensor(importance)[None, :, None]
    return VideoGrid.of(torch.stack([on_circle(row) for row in degrees])[None, :, None], importance=side)


def built(dim: int, **params: Any) -> CausalTemporalReduction:
    return CausalTemporalReduction(CausalTemporalReduction.Config(**params), dim=dim)


def test_static_cells_are_merged_about_their_centre_and_dynamic_ones_ranked_by_importance() -> None:
    grid = turned([[0, 10, 40, 90], [0, 10, 40, 0]], [[4, 3, 2, 1], [0, 9, 9, 1]])
    # Frame 0 is all dynamic: the two most important. Frame 1: three of four cells are static, which get
    # floor(2 * 3 / 4) = 1 token, and the one that moved gets the other however little it is attended to.
    tokens = built(2, retention=1 / 2)(grid)
    assert tokens.lengths.tolist() == [4]
    assert tokens.source[0, :, 0].tolist() == [[0, 1, -1, -1], [2, 2, 2, 3]]
    a, b, c = on_circle([0, 10, 40])
    torch.testing.assert_close(tokens.features[2], 0.6 * b + 0.4 * (a + b + c) / 3)
    assert torch.equal(tokens.features[[0, 1, 3]], grid.features[0, :, 0].flatten(0, 1)[[0, 1, 7]])


def test_static_cells_too_few_for_a_token_are_dropped() -> None:
    tokens = built(2, retention=1 / 2)(turned([[0, 0, 0, 0], [0, 90, 120, 80]], [[1, 2, 3, 4], [9, 1, 2, 3]]))
    assert tokens.source[0, :, 0].tolist() == [[-1, -1, 0, 1], [-1, -1, 2, 3]]


def test_without_importance_novelty_ranks_and_in_a_first_frame_unlikeness_to_the_rest() -> None:
    grid = turned([[0, 0, 100, 10], [90, 60, 190, 150]])
    tokens = built(2, retention=1 / 4, salience="novelty")(grid)
    assert tokens.source[0, :, 0].tolist() == [[-1, -1, 0, -1], [-1, -1, -1, 1]]
    with pytest.raises(ValueError, match="importance"):
        built(2, retention=1 / 4)(grid)
    with pytest.raises(ValueError, match="importance"):
        built(2, retention=1 / 4).step(grid)


@pytest.mark.parametrize("threshold", [-1.0, -0.2, 0.0, 0.2, 1.0])
def test_every_frame_gives_the_same_number_whatever_moves(threshold: float) -> None:
    features = torch.randn(2, 9, 5, 7, 8, generator=torch.Generator().manual_seed(0))
    tokens = built(8, retention=0.4, threshold=threshold, salience="novelty")(VideoGrid.of(features))
    frames = tokens.position[:, 0].view(2, 9, 14)
    assert (frames == torch.arange(9)[:, None]).all()


def test_a_still_video_is_all_means_and_carries_every_cell() -> None:
    frame = torch.randn(1, 1, 6, 6, 32, generator=torch.Generator().manual_seed(0))
    tokens = built(32, retention=1 / 4, salience="novelty")(VideoGrid.of(frame.expand(1, 3, 6, 6, 32)))
    assert (tokens.source[0, 0] >= 0).sum() == 9, "a first frame is all dynamic"
    assert (tokens.source[0, 1:] >= 0).all()


def test_the_published_budget_is_fifty_of_a_frame_of_fourteen_squared() -> None:
    assert built(2).num_tokens(10, 14, 14) == 500
    with pytest.raises(ValueError, match="retention"):
        built(2, retention=0.01).num_tokens(10, 4, 4)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"salience": "motion"}, "importance, novelty"),
        ({"threshold": 2.0}, "cosine"),
        ({"centre_weight": 60.0}, "share"),
        ({"neighbours": 0}, "at least 1"),
    ],
)
def test_wrong_values_are_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CausalTemporalReduction.Config(**params)
