"""Efficient Video Sampling: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from vxl_temporal.evs import EfficientVideoSampling

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", EfficientVideoSampling)
def test_law(law: Callable[[], None]) -> None:
    law()


def turned(degrees: list[list[float]]) -> VideoGrid:
    """Frames of one row: cell x of frame t points to ``degrees[t][x]``, at a length of its own."""
    angle = torch.tensor(degrees).deg2rad()
    length = 1 + torch.arange(angle.numel()).view(angle.shape) % 3
    return VideoGrid.of((torch.stack([angle.cos(), angle.sin()], -1) * length[..., None])[None, :, None])


def kept(grid: VideoGrid, retention: float) -> list[tuple[int, int]]:
    """(frame, column) of the cells kept."""
    compressor = EfficientVideoSampling(EfficientVideoSampling.Config(retention=retention), dim=2)
    return [(t, x) for t, _, x in compressor(grid).position.int().tolist()]


def test_the_cells_that_turned_most_are_kept_over_the_whole_video() -> None:
    # Turns against the frame before: frame 1: 0, 90, 10; frame 2: 45, 0, 20; frame 3: 5, 60, 0 degrees.
    grid = turned([[0, 0, 0], [0, 90, 10], [45, 90, 30], [50, 150, 30]])
    first = [(0, 0), (0, 1), (0, 2)]
    assert kept(grid, 4 / 12) == [*first, (1, 1)]
    assert kept(grid, 5 / 12) == [*first, (1, 1), (3, 1)]
    assert kept(grid, 6 / 12) == [*first, (1, 1), (2, 0), (3, 1)]
    assert kept(grid, 7 / 12) == [*first, (1, 1), (2, 0), (2, 2), (3, 1)]


def test_the_previous_frame_is_looked_at_whether_it_was_kept_or_not() -> None:
    # Cell 0 turns by 20 degrees twice: against the last *kept* one it would have turned by 40 and beaten cell 1.
    grid = turned([[0, 0], [20, 0], [40, 30]])
    assert kept(grid, 3 / 6) == [(0, 0), (0, 1), (2, 1)]


def test_what_does_not_change_goes_by_order_and_lengths_count_for_nothing() -> None:
    frame = torch.randn(1, 1, 3, 5, 1152, generator=torch.Generator().manual_seed(0))
    video = frame * torch.tensor([1.0, 2.5, 0.3])[None, :, None, None, None]
    compressor = EfficientVideoSampling(EfficientVideoSampling.Config(retention=20 / 45), dim=1152)
    tokens = compressor(VideoGrid.of(video))
    assert (tokens.source.flatten() >= 0).tolist() == [True] * 20 + [False] * 25


@pytest.mark.parametrize(
    ("frames", "retention", "count"), [(1, 0.3, 196), (3, 0.3, 196), (4, 0.3, 235), (32, 0.3, 1881), (10, 1.0, 1960)]
)
def test_the_count_is_the_share_rounded_down_and_a_frame_at_least(frames: int, retention: float, count: int) -> None:
    compressor = EfficientVideoSampling(EfficientVideoSampling.Config(retention=retention), dim=2)
    assert compressor.num_tokens(frames, 14, 14) == count


def test_kept_cells_are_unchanged() -> None:
    features = torch.randn(1, 5, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    compressor = EfficientVideoSampling(EfficientVideoSampling.Config(retention=0.5), dim=8)
    tokens = compressor(VideoGrid.of(features))
    torch.testing.assert_close(tokens.features, features[tokens.source >= 0], rtol=0, atol=0)
