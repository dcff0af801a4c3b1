"""HoliTom's merging: the kit's laws, and what the method itself promises."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor
from vxl_segments.holitom import HoliTom, static_segments

from vxl_lightning.testing import parametrize_laws
from vxl_lightning.tokens import VideoGrid


@parametrize_laws("compressor", HoliTom)
def test_law(law: Callable[[], None]) -> None:
    law()


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saved(still: Tensor, start: int, stop: int) -> int:
    """Tokens that a segment of the frames start..stop-1 saves, by its definition."""
    return int(still[start : stop - 1].all(0).sum()) * (stop - start - 1) if stop - start > 1 else 0


@pytest.mark.parametrize("longest", [1, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_saves_more(longest: int, seed: int) -> None:
    still = seeded(7, 6, seed=seed) > -0.8
    segments = static_segments(still, longest)
    ends = segments.length.cumsum(0).tolist()
    assert ends[-1] == 8 and int(segments.length.max()) <= longest
    best = 0
    for cuts in range(8):
        for chosen in combinations(range(1, 8), cuts):
            bounds = list(zip([0, *chosen], [*chosen, 8], strict=True))
            if all(b - a <= longest for a, b in bounds):
                best = max(best, sum(saved(still, a, b) for a, b in bounds))
    assert 8 * 6 - segments.tokens == best


def test_a_cut_falls_where_everything_moves() -> None:
    still = torch.ones(5, 4, dtype=torch.bool)
    still[2] = False
    segments = static_segments(still, 1024)
    assert segments.length.tolist() == [3, 3]
    assert segments.static.all()


def test_what_stands_still_is_one_token_and_what_moves_is_clustered() -> None:
    scene = seeded(1, 2, 2, 16).expand(4, 2, 2, 16).clone()
    scene[:, 1, 1] = seeded(4, 16, seed=1)
    # 3 static places and 4 cells that move: as many as the budget, so nothing is clustered.
    tokens = HoliTom(HoliTom.Config(retention=7 / 16), dim=16)(VideoGrid.of(scene[None]))
    assert tokens.source[0].flatten(1).tolist() == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5], [0, 1, 2, 6]]
    torch.testing.assert_close(tokens.features[:4], scene[0].flatten(0, 1))


def test_a_clustered_token_leans_to_its_centre() -> None:
    # One frame of four cells: a dense group around 1, one apart.
    cells = torch.tensor([0.9, 1.0, 1.1, 2.0])[None, None, :, None].expand(1, 1, 4, 4)
    config = HoliTom.Config(retention=2 / 4, neighbours=2, centre_share=0.6)
    tokens = HoliTom(config, dim=4)(VideoGrid.of(cells[None]))
    assert tokens.source.flatten().tolist() == [0, 0, 0, 1]
    # Of three equally dense neighbours the earliest is the centre.
    torch.testing.assert_close(tokens.features[:, 0], torch.tensor([0.6 * 0.9 + 0.4 * 1.05, 2.0]))


def test_a_budget_looser_than_the_merging_is_spent_on_shorter_stretches() -> None:
    scene = seeded(1, 1, 2, 8).expand(6, 1, 2, 8)
    compressor = HoliTom(HoliTom.Config(retention=4 / 12), dim=8)
    tokens = compressor(VideoGrid.of(scene[None]))
    assert tokens.source[0, :, 0].tolist() == [[0, 1]] * 3 + [[2, 3]] * 3
    torch.testing.assert_close(tokens.weight, torch.full((4,), 3.0))
