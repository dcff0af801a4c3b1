"""Differential token drop: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vxl_temporal.dtd import DifferentialTokenDrop

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid, concat_time


@parametrize_laws("compressor", DifferentialTokenDrop)
def test_law(law: Callable[[], None]) -> None:
    law()


def turned(degrees: list[list[float]]) -> VideoGrid:
    """Frames of one row: cell x of frame t points to ``degrees[t][x]``."""
    angle = torch.tensor(degrees).deg2rad()
    return VideoGrid.of(torch.stack([angle.cos(), angle.sin()], -1)[None, :, None])


def built(dim: int, **params: Any) -> DifferentialTokenDrop:
    return DifferentialTokenDrop(DifferentialTokenDrop.Config(**params), dim=dim)


def kept(grid: VideoGrid, **params: Any) -> list[list[int]]:
    """Columns kept of every frame."""
    source: Tensor = built(2, **params)(grid).source[0, :, 0]
    return [frame.nonzero()[:, 0].tolist() for frame in source >= 0]


def test_cells_above_the_threshold_are_dropped_and_the_first_frame_is_whole() -> None:
    # cos 60 = 0.5 is the threshold: turned by 59 degrees is dropped, by 61 kept.
    grid = turned([[0, 0, 0], [59, 61, 180], [59, 61, 0]])
    assert kept(grid) == [[0, 1, 2], [1, 2], [2]]
    assert kept(grid, threshold=-0.9) == [[0, 1, 2], [2], [2]]
    assert kept(turned([[0, 0], [90, 80]]), threshold=0.0) == [[0, 1], [0]], "at the threshold is not above it"


def test_the_previous_frame_is_looked_at_whether_it_was_kept_or_not() -> None:
    # 40 degrees a frame, for ever: against the last *kept* cell, frame 2 would have turned by 80 and been kept.
    assert kept(turned([[0], [40], [80], [120]])) == [[0], [], [], []]


def test_the_most_changed_are_kept_where_the_bound_leaves_no_room_for_all() -> None:
    # Of 4 cells at retention 3/4: 4 after frame 1, then 4 * max(1.5, 1.375) = 6, and 4 * max(2.25, 1.75) = 9.
    grid = turned([[0, 0, 0, 0], [90, 120, 70, 100], [190, 30, 170, 280]])
    assert kept(grid, retention=0.75) == [[0, 1, 2, 3], [1, 3], [0, 2, 3]]


def test_what_a_still_frame_leaves_over_is_saved_for_the_next_change() -> None:
    # Of 4 cells at retention 1/2: 4 after frame 1, then 5, 6, 8, 10.
    still = [[0.0] * 4] * 3
    assert kept(turned([*still, [90] * 4, [180] * 4]), retention=0.5) == [[0, 1, 2, 3], [], [], [0, 1, 2, 3], [0, 1]]


def test_the_first_frame_is_paid_back_by_half_of_what_later_frames_are_due() -> None:
    compressor = built(2, retention=1 / 16)
    # 256 cells at 1/16 are 16 a frame, 8 until 31 frames have come.
    assert [compressor.num_tokens(t, 16, 16) for t in (1, 2, 3, 30, 31, 32, 33)] == [256, 264, 272, 488, 496, 512, 528]
    assert compressor.num_tokens(1024, 16, 16) == 1024 * 16


def test_relative_mode_keeps_the_announced_number_after_every_frame() -> None:
    features = torch.randn(2, 40, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    compressor = built(8, retention=0.3, mode="relative")
    source = compressor(VideoGrid.of(features)).source
    so_far = (source >= 0).sum((2, 3)).cumsum(1)
    want = [compressor.num_tokens(t, 3, 5) for t in range(1, 41)]
    assert so_far.tolist() == [want, want]


def test_relative_mode_is_filled_in_order_where_nothing_changes() -> None:
    grid = turned([[10, 20, 30, 40]] * 4)
    assert kept(grid, retention=0.5, mode="relative") == [[0, 1, 2, 3], [0], [0], [0, 1]]


@pytest.mark.parametrize("retention", [0.2, 0.5])
def test_a_stream_knows_what_it_has_spent_and_holds_one_frame(retention: float) -> None:
    generator = torch.Generator().manual_seed(0)
    moves = torch.rand(1, 23, 1, 1, 1, generator=generator).round()  # some frames move, some stand still
    features = (torch.randn(2, 23, 4, 4, 8, generator=generator) * moves).cumsum(1)
    grid = VideoGrid.of(features)
    compressor = built(8, retention=retention, threshold=0.7)
    whole = compressor(grid)
    chunks, state = [], None
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 10), (10, 23)):
        tokens, state = compressor.step(grid.frames(start, stop), state)
        chunks.append(tokens)
        assert state.past.shape == (2, 1, 4, 4, 8)
        assert state.given.tolist() == [sum(int(c.lengths[b]) for c in chunks) for b in range(2)]
        assert int(state.given.max()) <= compressor.num_tokens(stop, 4, 4)
    joined = concat_time(chunks)
    assert torch.equal(joined.source, whole.source)
    assert torch.equal(joined.features, whole.features)


@pytest.mark.parametrize(("params", "says"), [({"mode": "pixel"}, "absolute, relative"), ({"threshold": 50}, "cosine")])
def test_wrong_values_are_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DifferentialTokenDrop.Config(**params)
