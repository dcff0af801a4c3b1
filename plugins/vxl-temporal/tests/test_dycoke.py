"""DyCoke's temporal token merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from vxl_temporal.dycoke import TemporalTokenMerging

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", TemporalTokenMerging)
def test_law(law: Callable[[], None]) -> None:
    law()


def turned(degrees: list[list[float]]) -> VideoGrid:
    """Frames of one row: cell x of frame t points to ``degrees[t][x]``."""
    angle = torch.tensor(degrees).deg2rad()
    return VideoGrid.of(torch.stack([angle.cos(), angle.sin()], -1)[None, :, None])


def built(dim: int, retention: float) -> TemporalTokenMerging:
    return TemporalTokenMerging(TemporalTokenMerging.Config(retention=retention), dim=dim)


def kept(grid: VideoGrid, retention: float) -> list[list[int]]:
    """Columns kept of every frame."""
    source: Tensor = built(2, retention)(grid).source[0, :, 0]
    return [frame.nonzero()[:, 0].tolist() for frame in source >= 0]


def test_frames_one_and_three_are_compared_with_their_neighbour_and_two_with_the_first() -> None:
    # Turned, frame 1 against 0: 10, 50, 30; frame 2 against 0: 20, 45, 0 (against 1 it would be 10, 5, 30);
    # frame 3 against 2: 0, 5, 20 (against 0 it would be 20, 50, 20). One of three cells each is kept.
    frames: list[list[float]] = [[0, 0, 0], [10, 50, 30], [20, 45, 0], [20, 50, 20]]
    assert kept(turned(frames), 6 / 12) == [[0, 1, 2], [1], [1], [2]]
    again = [[x + 90 for x in frame] for frame in frames]
    assert kept(turned([*frames, *again]), 6 / 12) == [[0, 1, 2], [1], [1], [2]] * 2


def test_an_incomplete_group_is_the_beginning_of_a_whole_one() -> None:
    features = torch.randn(1, 11, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    compressor = built(8, 0.6)
    whole = compressor(VideoGrid.of(features)).source
    for frames in range(1, 11):
        tokens = compressor(VideoGrid.of(features[:, :frames]))
        assert torch.equal(tokens.source, whole[:, :frames])
        assert len(tokens.features) == compressor.num_tokens(frames, 4, 4)


def test_what_cannot_be_shared_equally_goes_to_the_earlier_frames() -> None:
    features = torch.randn(1, 8, 5, 5, 8, generator=torch.Generator().manual_seed(0))
    tokens = built(8, 0.48)(VideoGrid.of(features))  # 48 of 100 cells: 25, and 23 for three frames
    assert (tokens.source[0] >= 0).sum((1, 2)).tolist() == [25, 8, 8, 7] * 2


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.7, 1.0])
def test_retention_and_merging_ratio_are_two_ways_of_saying_one_thing(ratio: float) -> None:
    retention = (1 + 3 * (1 - ratio)) / 4
    assert built(8, retention).num_tokens(8, 10, 10) == 2 * (100 + 3 * round(100 * (1 - ratio)))


def test_a_still_video_keeps_the_earliest_cells() -> None:
    frame = torch.randn(1, 1, 2, 3, 1152, generator=torch.Generator().manual_seed(0))
    tokens = built(1152, 15 / 24)(VideoGrid.of(frame.expand(1, 4, 2, 3, 1152)))
    assert (tokens.source[0].flatten(1) >= 0).tolist() == [[True] * 6, *[[True] * 3 + [False] * 3] * 3]


def test_less_than_a_frame_of_four_is_refused() -> None:
    with pytest.raises(ValueError, match=r"retention=0\.2 .* 0\.25"):
        TemporalTokenMerging.Config(retention=0.2)


def test_a_stream_gives_every_frame_at_once_and_holds_two() -> None:
    compressor = built(8, 0.5)
    grid = VideoGrid.of(torch.randn(1, 7, 4, 4, 8, generator=torch.Generator().manual_seed(0)))
    state, given = None, []
    for t in range(7):
        tokens, state = compressor.step(grid.frames(t, t + 1), state)
        given.append(len(tokens.features))
        assert state.past.shape[1] == min(t + 1, 2)
    assert given == [16, 6, 5, 5, 16, 6, 5]
