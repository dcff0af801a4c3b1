"""LongVU's spatial compression: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from vxl_segments.longvu import LongVU, spread

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def turned(*degrees: float) -> VideoGrid:
    """Frames of 1 x 2 cells; the left one points at the given angles, the right one always north."""
    angle = torch.tensor(degrees).deg2rad()
    left = torch.stack([angle.cos(), angle.sin()], 1)
    return VideoGrid.of(torch.stack([left, NORTH.expand_as(left)], 1)[None, :, None])


@parametrize_laws("compressor", LongVU)
def test_law(law: Callable[[], None]) -> None:
    law()


def test_the_budget_goes_to_the_first_frame_and_then_to_what_differs_most_from_it() -> None:
    config = LongVU.Config(frames_per_group=4, retention=4 / 8)
    tokens = LongVU(config, dim=2)(turned(0, 10, 60, 30))
    assert tokens.source[0, :, 0].tolist() == [[0, 1], [-1, -1], [2, -1], [3, -1]]


def test_every_window_is_compared_with_its_own_first_frame() -> None:
    config = LongVU.Config(frames_per_group=2, retention=3 / 4)
    tokens = LongVU(config, dim=2)(turned(0, 80, 80, 80))
    # In the second window nothing differs: its third token is the earliest of two equally similar cells.
    assert tokens.source[0, :, 0].tolist() == [[0, 1], [2, -1], [3, 4], [5, -1]]


def test_the_threshold_drops_repetitions_that_the_budget_would_hold() -> None:
    config = LongVU.Config(frames_per_group=4, retention=1.0, drop_threshold=0.8)
    compressor = LongVU(config, dim=2)
    tokens = compressor(turned(0, 10, 60, 30))
    assert compressor.budget == "bound"
    assert tokens.source[0, :, 0].tolist() == [[0, 1], [-1, -1], [2, -1], [-1, -1]], "30 degrees are a cosine of .87"


def test_a_still_video_costs_one_frame_a_window_under_the_threshold() -> None:
    frame = torch.randn(1, 1, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    config = LongVU.Config(retention=0.5, drop_threshold=0.8)
    tokens = LongVU(config, dim=8)(VideoGrid.of(frame.expand(1, 17, 3, 5, 8)))
    assert tokens.lengths.tolist() == [3 * 15]


@pytest.mark.parametrize(("height", "width", "count"), [(4, 4, 4), (4, 8, 8), (16, 16, 16), (3, 5, 7), (1, 1, 1)])
def test_a_budget_below_a_frame_is_spread_over_rows_and_columns(height: int, width: int, count: int) -> None:
    chosen = spread(height, width, count, torch.device("cpu"))
    assert int(chosen.sum()) == count
    if height % 4 == 0:
        share = height * width // count
        side = int(share**0.5)
        per_block = chosen.view(height // side, side, width // side, side).sum((1, 3))
        assert (per_block == 1).all()


def test_a_threshold_that_is_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drop_threshold=80"):
        LongVU.Config(drop_threshold=80)
