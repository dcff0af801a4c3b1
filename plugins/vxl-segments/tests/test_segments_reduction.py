"""Shares of a budget: whole, exact and spread."""

import pytest
import torch
from vxl_segments.reduction import apportion


@pytest.mark.parametrize("total", [0, 1, 7, 40, 63])
def test_shares_are_whole_exact_and_within_one_of_their_part(total: int) -> None:
    size = torch.tensor([4, 0, 16, 16, 1, 16, 10])
    share = apportion(size, total)
    assert int(share.sum()) == total
    assert ((share >= 0) & (share <= size)).all()
    assert ((share - size * total / 63).abs() <= 1).all()


def test_what_is_left_over_is_spread() -> None:
    assert apportion(torch.full((8,), 16), 4).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
