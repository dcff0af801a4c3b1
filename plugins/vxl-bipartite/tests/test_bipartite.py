"""Bipartite merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from vxl_bipartite import BipartiteMerging, merge

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", BipartiteMerging)
def test_law(law: Callable[[], None]) -> None:
    law()


def test_merges_the_most_similar_first() -> None:
    east, north, west = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])
    cells = torch.stack([east, north, west, east * 3])[None]
    tokens, carrier = merge(cells, 3)
    assert carrier[0, 0] == carrier[0, 3], "the two that point east become one"
    assert len(set(carrier[0].tolist())) == 3
    torch.testing.assert_close(tokens[0, carrier[0, 0]], east * 2)


@pytest.mark.parametrize("count", [1, 2, 5, 31, 32])
def test_every_token_is_the_mean_of_its_cells(count: int) -> None:
    cells = torch.randn(3, 32, 8, generator=torch.Generator().manual_seed(0))
    tokens, carrier = merge(cells, count)
    assert tokens.shape == (3, count, 8)
    for g in range(3):
        for k in range(count):
            torch.testing.assert_close(tokens[g, k], cells[g, carrier[g] == k].mean(0), rtol=1e-4, atol=1e-5)


def test_static_frames_merge_over_time_before_space() -> None:
    frame = torch.randn(1, 1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    compressor = BipartiteMerging(BipartiteMerging.Config(retention=1 / 4), dim=16)
    tokens = compressor(VideoGrid.of(frame.expand(1, 4, 4, 4, 16)))
    torch.testing.assert_close(tokens.weight, torch.full((16,), 4.0))
    assert (tokens.source == tokens.source[:, :1]).all(), "a cell keeps its token through the four frames"


def test_gradient_reaches_every_cell_by_its_share() -> None:
    features = torch.randn(1, 4, 2, 2, 8).requires_grad_()
    compressor = BipartiteMerging(BipartiteMerging.Config(retention=1 / 4), dim=8)
    tokens = compressor(VideoGrid.of(features))
    tokens.features.sum().backward()
    share = 1 / tokens.weight[tokens.source[0]]
    assert features.grad is not None
    torch.testing.assert_close(features.grad[0], share[..., None].expand(4, 2, 2, 8))
