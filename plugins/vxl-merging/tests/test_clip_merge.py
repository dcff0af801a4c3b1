"""Clip-level merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from vxl_merging import BipartiteMerging, ClipMerge

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", ClipMerge)
def test_law(law: Callable[[], None]) -> None:
    law()


def clip_merge(dim: int, retention: float = 1 / 16) -> ClipMerge:
    return ClipMerge(ClipMerge.Config(retention=retention), dim=dim)


def test_sixteen_tokens_a_frame_are_left_of_sixteen_by_sixteen_cells() -> None:
    assert clip_merge(8).num_tokens(4, 16, 16) == 4 * 16
    assert clip_merge(8).num_tokens(6, 16, 16) == 2 * 4 * 16


def test_a_clip_is_halved_until_the_count_is_left() -> None:
    # Places 1, 3, 5 and 7 are targets: each takes the cell before it, one degree away. In the second round the means
    # stand at .5, 11.5, 20.5 and 31.5 degrees, and the second, a target, is the nearest to the first and to the third.
    degrees = torch.tensor([[[[0.0, 1.0]], [[12.0, 11.0]], [[20.0, 21.0]], [[32.0, 31.0]]]])
    cells = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], -1)
    halved = clip_merge(2, 1 / 2)(VideoGrid.of(cells))
    assert halved.source.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(halved.features, cells.view(4, 2, 2).mean(1))
    again = clip_merge(2, 1 / 4)(VideoGrid.of(cells))
    assert again.source.flatten().tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(again.features[0], cells.view(8, 2)[:6].mean(0))
    three = clip_merge(2, 3 / 8)(VideoGrid.of(cells))
    assert three.source.flatten().tolist() == [0, 0, 1, 1, 1, 1, 2, 2], "the last round takes the strongest link"


def test_the_first_round_runs_over_space_where_bipartite_runs_over_time() -> None:
    frame = torch.randn(1, 1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    grid = VideoGrid.of(frame.expand(1, 4, 4, 4, 16))
    over_space = clip_merge(16, 1 / 2)(grid).source
    assert not (over_space[:, 0] == over_space[:, 1])[:, :, 1::2].any(), "equal targets stay apart"
    over_time = BipartiteMerging(BipartiteMerging.Config(retention=1 / 2), dim=16)(grid).source
    assert (over_time[:, 0] == over_time[:, 1]).all()


def test_heads_compare_the_mean_of_their_channels() -> None:
    # Of four channels the first two are one head. Cell 0 is most like cell 1 by all channels, like cell 3 by the mean.
    cells = torch.tensor([[3.0, 0.0, 0.0, 1.0], [3.0, 0.0, 0.0, 2.5], [0.0, -1.0, 0.5, 0.0], [0.0, 0.0, 3.0, 1.0]])
    grid = VideoGrid.of(cells.view(1, 1, 1, 4, 4))
    for heads, want in ((1, [0, 0, 1, 2]), (2, [2, 0, 1, 2])):
        config = ClipMerge.Config(retention=3 / 4, frames_per_group=1, heads=heads)
        assert ClipMerge(config, dim=4)(grid).source.flatten().tolist() == want


def test_heads_that_do_not_divide_the_channels_are_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="heads=3 does not divide the 8 channels of the grid; some that do: 1, 2, 4"):
        ClipMerge(ClipMerge.Config(heads=3), dim=8)
