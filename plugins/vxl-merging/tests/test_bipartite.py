"""Bipartite merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
from vxl_merging import BipartiteMerging, merge
from vxl_merging.clips import AT_ONCE

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


def test_a_plain_mean_counts_every_token_once_a_round() -> None:
    # All point the same way, so the first target takes every source: 2, 1, 3 and 15 become 5.25, which 4 takes then.
    cells = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [15.0, 0.0]]])
    for mean, want in (("size", 5.0), ("plain", 4.625)):
        compressor = BipartiteMerging(BipartiteMerging.Config(retention=1 / 5, frames_per_group=1, mean=mean), dim=2)
        tokens = compressor(VideoGrid.of(cells.view(1, 1, 1, 5, 2)))
        torch.testing.assert_close(tokens.features, torch.tensor([[want, 0.0]]))
        assert tokens.weight.tolist() == [5.0]


def test_an_unknown_mean_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mean='median' is not one of size, plain"):
        BipartiteMerging.Config(mean="median")  # type: ignore[arg-type]


def test_many_clips_become_what_each_becomes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = VideoGrid.of(torch.randn(2, 10, 4, 4, 8, generator=torch.Generator().manual_seed(1)))
    compressor = BipartiteMerging(BipartiteMerging.Config(retention=1 / 8), dim=8)
    whole = compressor(grid)
    monkeypatch.setitem(AT_ONCE, "cpu", 1)
    pieces = compressor(grid)
    assert torch.equal(whole.source, pieces.source)
    torch.testing.assert_close(whole.features, pieces.features)


def test_autocast_changes_no_choice() -> None:
    features = torch.randn(1, 1, 1, 32, generator=torch.Generator().manual_seed(2))
    grid = VideoGrid.of(4 * features + torch.randn(1, 8, 4, 4, 32, generator=torch.Generator().manual_seed(3)) / 4)
    compressor = BipartiteMerging(BipartiteMerging.Config(retention=1 / 8), dim=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = compressor(grid)
    assert torch.equal(half.source, compressor(grid).source)
    assert half.features.dtype == torch.float32
