"""PruneVid's merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vxl_segments.prunevid import PruneVid, still_places

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", PruneVid)
def test_law(law: Callable[[], None]) -> None:
    law()


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scenes(*frames: int, cells: int = 6, dim: int = 16) -> Tensor:
    """``[T, 1, cells, dim]``, one still scene of so many frames after the other, with a little noise."""
    still = [seeded(1, 1, cells, dim, seed=i).expand(n, 1, cells, dim) for i, n in enumerate(frames)]
    video = torch.cat(still)
    return video + 0.01 * seeded(*video.shape, seed=99)


def test_segments_are_the_scenes() -> None:
    frames = scenes(5, 3, 4).mean((1, 2))
    compressor = PruneVid(PruneVid.Config(segment_ratio=0.25, neighbours=3), dim=16)
    assert compressor.lengths(frames).tolist() == [5, 3, 4]


def test_a_scene_that_returns_is_another_segment() -> None:
    first, second = scenes(4, 4).split(4)
    frames = torch.cat([first, second, first]).mean((1, 2))
    compressor = PruneVid(PruneVid.Config(segment_ratio=2 / 12, neighbours=3), dim=16)
    assert compressor.lengths(frames).tolist() == [4, 4, 4]


def test_segments_end_at_the_horizon() -> None:
    frames = scenes(10).mean((1, 2))
    compressor = PruneVid(PruneVid.Config(segment_ratio=0.2, horizon=4), dim=16)
    ends = compressor.lengths(frames).cumsum(0).tolist()
    assert {4, 8, 10} <= set(ends)


def test_a_place_stands_still_by_the_mean_of_all_its_pairs() -> None:
    cells = F.normalize(seeded(7, 5, 3) + 1, dim=-1)
    length = torch.tensor([4, 1, 2])
    means = []
    for part in cells.split(length.tolist()):
        n = len(part)
        pairs = [(part[i] * part[j]).sum(-1) for i in range(n) for j in range(i)]
        means.append(torch.stack(pairs).mean(0) if pairs else torch.full((5,), -2.0))
    for tau in (0.0, 0.3, 0.6):
        assert still_places(cells, length, tau).equal(torch.stack(means) >= tau)


def test_what_stands_still_in_a_scene_is_one_token() -> None:
    video = scenes(4, 4)
    tokens = PruneVid(PruneVid.Config(retention=12 / 48, neighbours=3), dim=16)(VideoGrid.of(video[None]))
    assert tokens.source[0, :, 0].tolist() == [[0, 1, 2, 3, 4, 5]] * 4 + [[6, 7, 8, 9, 10, 11]] * 4
    torch.testing.assert_close(tokens.features[:6], video[:4, 0].mean(0))


@pytest.mark.parametrize("retention", [0.05, 0.2, 0.6])
def test_every_token_is_the_mean_of_its_cells(retention: float) -> None:
    video = seeded(9, 3, 5, 8) + 2 * seeded(1, 3, 5, 8, seed=1)
    tokens = PruneVid(PruneVid.Config(retention=retention), dim=8)(VideoGrid.of(video[None]))
    for k, token in enumerate(tokens.features):
        torch.testing.assert_close(token, video[tokens.source[0] == k].mean(0), rtol=1e-4, atol=1e-5)
