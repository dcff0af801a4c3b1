"""Pooling against torch's own, and the partition where the sizes do not divide."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.compressors.pool import Pool, block_of_cell
from vxl_lightning.tokens import VideoGrid


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_equals_torch_where_sizes_divide(mode: str) -> None:
    features = torch.randn(2, 8, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    pool = Pool(Pool.Config(retention=1 / 16, mode=mode), dim=3)  # type: ignore[arg-type]
    tokens = pool(VideoGrid.of(features))
    adaptive = F.adaptive_avg_pool3d if mode == "mean" else F.adaptive_max_pool3d
    rows, cols = pool.block_grid(4, 6)
    assert (rows, cols) == (2, 3)
    want = adaptive(features.permute(0, 4, 1, 2, 3), (2, rows, cols)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(tokens.features, want.reshape(-1, 3))


def test_a_token_is_the_mean_of_the_cells_that_source_gives_it() -> None:
    features = torch.randn(1, 7, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    tokens = Pool(Pool.Config(retention=6 / 60), dim=2)(VideoGrid.of(features))
    for k in range(len(tokens.features)):
        torch.testing.assert_close(tokens.features[k], features[tokens.source == k].mean(0))


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_blocks_are_a_partition_as_even_as_can_be(height: int, width: int, data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    block = block_of_cell(rows, cols, height, width)
    assert block.unique().tolist() == list(range(rows * cols))
    sides = torch.bincount(block[:, 0] // cols)
    assert sides.max() - sides.min() <= 1


def test_max_of_an_unfinished_group_and_of_negative_features() -> None:
    features = torch.full((1, 1, 4, 4, 2), -2.0)
    tokens = Pool(Pool.Config(mode="max"), dim=2)(VideoGrid.of(features))
    assert tokens.features.eq(-2).all()


def test_impossible_retention_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"retention=0.171875 asks for 11 tokens .* 0.140625 \(3x3\).* 0.1875 \(4x3\)"):
        Pool(Pool.Config(retention=11 / 64), dim=2).num_tokens(4, 4, 4)
    with pytest.raises(ValueError, match="mode='sum' is not one of mean, max"):
        Pool.Config(mode="sum")  # type: ignore[arg-type]


@pytest.mark.parametrize(("aspect", "grid"), [(1.0, (16, 18)), (2.0, (24, 12)), (0.5, (12, 24))])
def test_blocks_are_as_wide_as_asked(aspect: float, grid: tuple[int, int]) -> None:
    module = Pool(Pool.Config(retention=1 / 2, frames_per_group=1, block_aspect=aspect), dim=3)
    assert module.block_grid(24, 24) == grid
