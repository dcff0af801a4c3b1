"""Density peaks, shares of a budget, and stretches of static places."""

import pytest
import torch
from vxl_segments.density import clusters
from vxl_segments.reduction import apportion


def one_set(points: list[float], count: int, neighbours: int) -> list[int]:
    x = torch.tensor(points)[None, :, None]
    return clusters(x, torch.ones(1, len(points), dtype=torch.bool), torch.tensor([count]), neighbours)[0].tolist()


def test_centres_are_dense_and_far_from_denser_ones() -> None:
    # Two groups; the middle of each is its densest point, and the score of a fringe point is small.
    assert one_set([0.0, 0.1, 0.2, 5.0, 5.1, 5.2], 2, 3) == [1, 1, 1, 4, 4, 4]


def test_the_densest_point_gets_the_greatest_distance() -> None:
    # With two neighbours, itself and the nearest: densities exp(-.5), exp(-.5), exp(-4.5), squared distances to the
    # nearest denser one 16 (the greatest), 1 and 9. Scores: 4 * .607, 1 * .607, 3 * .011.
    assert one_set([0.0, 1.0, 4.0], 1, 2) == [0, 0, 0]
    assert one_set([0.0, 1.0, 4.0], 2, 2) == [0, 1, 1]


def test_copies_of_a_point_do_not_become_centres_while_others_wait() -> None:
    assert one_set([1.0, 1.0, 1.0, 3.0], 2, 2) == [0, 0, 0, 3]


def test_no_density_underflows_to_a_tie() -> None:
    assert one_set([0.0, 100.0, 210.0, 10000.0, 10150.0, 10290.0], 2, 3) == [1, 1, 1, 4, 4, 4]


def test_points_that_are_no_members_change_nothing() -> None:
    x = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(0))
    member = torch.arange(12)[None] < 9
    x[:, 9:] = 0.01
    alone = clusters(x[:, :9], member[:, :9], torch.tensor([3]), 4)
    among = clusters(x, member, torch.tensor([3]), 4)
    assert among[:, :9].equal(alone)
    assert (among[:, 9:] == -1).all()


def test_sets_of_different_sizes_get_their_own_counts() -> None:
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    member = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])
    found = clusters(x, member, torch.tensor([4, 2, 0]), 7)
    assert [len(row[row >= 0].unique()) for row in found] == [4, 2, 0]


@pytest.mark.parametrize("total", [0, 1, 7, 40, 63])
def test_shares_are_whole_exact_and_within_one_of_their_part(total: int) -> None:
    size = torch.tensor([4, 0, 16, 16, 1, 16, 10])
    share = apportion(size, total)
    assert int(share.sum()) == total
    assert ((share >= 0) & (share <= size)).all()
    assert ((share - size * total / 63).abs() <= 1).all()


def test_what_is_left_over_is_spread() -> None:
    assert apportion(torch.full((8,), 16), 4).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
