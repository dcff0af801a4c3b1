"""Density peaks: which points are centres, and whom they carry."""

from functools import partial

import pytest
import torch
from torch import Tensor

from vxl_lightning.compressors import pieces
from vxl_lightning.compressors.density import density_peaks

turned = partial(density_peaks, unit=True, counts_itself=False)
"""Of unit vectors, with neighbours that are others."""


def one_set(points: list[float], count: int, neighbours: int) -> list[int]:
    x = torch.tensor(points)[None, :, None]
    return density_peaks(x, torch.ones(1, len(points), dtype=torch.bool), torch.tensor([count]), neighbours)[0].tolist()


def test_centres_are_dense_and_far_from_denser_ones() -> None:
    # Two groups; the middle of each is its densest point, and the score of a fringe point is small.
    assert one_set([0.0, 0.1, 0.2, 5.0, 5.1, 5.2], 2, 3) == [1, 1, 1, 4, 4, 4]


def test_the_densest_point_is_the_first_centre() -> None:
    # With two neighbours, itself and the nearest: densities exp(-.5), exp(-.5), exp(-4.5), distances to the nearest
    # denser one infinite, 1 and 3. Scores: infinite, 1 * .607, 3 * .011.
    assert one_set([0.0, 1.0, 4.0], 1, 2) == [0, 0, 0]
    assert one_set([0.0, 1.0, 4.0], 2, 2) == [0, 1, 1]


def test_centres_go_by_density_times_distance_to_a_denser_point() -> None:
    # To the nearest four of each, squared distances are 21, 11, 9, 29 and 138 in all: densities exp(-5.25), exp(-2.75),
    # exp(-2.25), exp(-7.25), exp(-34.5). The point at 2 is densest, from the others a denser one is 1, 1, 2 and 5 away.
    points = [0.0, 1.0, 2.0, 4.0, 9.0]
    centres = [sorted(set(one_set(points, count, 4))) for count in (1, 2, 3, 4)]
    assert centres == [[2], [1, 2], [0, 1, 2], [0, 1, 2, 3]]


def test_of_equal_points_one_alone_is_a_centre() -> None:
    points = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    home = density_peaks(points[None], torch.ones(1, 12, dtype=torch.bool), torch.tensor([3]), 4)
    assert home[0].tolist() == [0, 1, 2] * 4


def test_copies_of_a_point_do_not_become_centres_while_others_wait() -> None:
    assert one_set([1.0, 1.0, 1.0, 3.0], 2, 2) == [0, 0, 0, 3]


def test_no_density_underflows_to_a_tie() -> None:
    assert one_set([0.0, 100.0, 210.0, 10000.0, 10150.0, 10290.0], 2, 3) == [1, 1, 1, 4, 4, 4]


def test_points_that_are_no_members_change_nothing() -> None:
    x = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(0))
    member = torch.arange(12)[None] < 9
    x[:, 9:] = 0.01
    alone = density_peaks(x[:, :9], member[:, :9], torch.tensor([3]), 4)
    among = density_peaks(x, member, torch.tensor([3]), 4)
    assert among[:, :9].equal(alone)
    assert (among[:, 9:] == -1).all()


def test_sets_of_different_sizes_get_their_own_counts() -> None:
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    member = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])
    found = density_peaks(x, member, torch.tensor([4, 2, 0]), 7)
    assert [len(row[row >= 0].unique()) for row in found] == [4, 2, 0]


@pytest.mark.parametrize("at_once", [1, 1500])
def test_sets_are_clustered_alone_however_many_go_together(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    x, member = torch.randn(9, 30, 8, generator=draw), torch.rand(9, 30, generator=draw) < 0.6
    count = torch.tensor([1, 5, 0, 9, 9, 2, 12, 1, 3]).minimum(member.sum(1))
    together = density_peaks(x, member, count, 7)
    monkeypatch.setattr(pieces, "ON_CPU", at_once)
    assert density_peaks(x, member, count, 7).equal(together)
    alone = [density_peaks(*(part[i : i + 1] for part in (x, member, count)), 7) for i in range(9)]
    assert torch.cat(alone).equal(together)


def on_circle(degrees: list[float]) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)


def homes(degrees: list[float], count: int, neighbours: int = 7, of: list[int] | None = None) -> list[int]:
    member = torch.zeros(1, len(degrees), dtype=torch.bool)
    member[0, list(range(len(degrees))) if of is None else of] = True
    return turned(on_circle(degrees)[None], member, torch.tensor([count]), neighbours)[0].tolist()


def test_peaks_are_dense_and_far_from_anything_denser() -> None:
    # Two heaps, about 1 and about 91 degrees, and a stray at 200. With two neighbours the middle of each heap is its
    # densest; the stray is far from all, but about it is nothing: density exp(-2.2) against 1.
    degrees = [0, 1, 2, 90, 91.5, 93, 200]
    assert homes(degrees, 1, neighbours=2) == [1, 1, 1, 1, 1, 1, 1]
    assert homes(degrees, 2, neighbours=2) == [1, 1, 1, 4, 4, 4, 4]
    assert homes(degrees, 3, neighbours=2) == [1, 1, 1, 4, 4, 4, 6]


def test_separation_is_from_what_is_denser_and_not_from_what_is_less_dense() -> None:
    # All are equally dense, so the earlier counts as denser: 0 is the densest, and from 40 the nearest denser cell is
    # 38 degrees away, from all others one. By the distance to what is less dense the centres would be 2 and 41.
    assert homes([0, 1, 2, 40, 41], 2, neighbours=1) == [0, 0, 0, 3, 3]


def test_equal_cells_go_by_order_and_every_centre_carries_itself() -> None:
    assert homes([10] * 5, 3) == [0, 1, 2, 0, 0]
    assert homes([10] * 5, 2, of=[1, 3, 4]) == [-1, 1, -1, 3, 1]


@pytest.mark.parametrize(("count", "of", "want"), [(1, [2], [-1, -1, 2]), (0, [0, 1], [-1, -1, -1])])
def test_a_single_member_and_no_cluster_at_all(count: int, of: list[int], want: list[int]) -> None:
    assert homes([0, 50, 100], count, of=of) == want
