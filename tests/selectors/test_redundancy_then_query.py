"""Redundancy, then the question: what is dropped, what stands for a window, and what comes back."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.redundancy_then_query import RedundancyThenQuery, redundancy
from vxl_lightning.testing import parametrize_laws

DIM = 16


@parametrize_laws("selector", RedundancyThenQuery)
def test_law(law: Any) -> None:
    law()


def select(items: Tensor, query: Tensor, budget: int, **settings: Any) -> list[int]:
    selector = RedundancyThenQuery(RedundancyThenQuery.Config(**settings), dim=DIM)
    index: list[int] = selector(Candidates(items, torch.arange(float(len(items)))), query, budget).index.tolist()
    return index


def test_redundancy_is_the_mean_cosine_with_the_window() -> None:
    items = torch.randn(21, 3, DIM, generator=torch.Generator().manual_seed(0))
    got = redundancy(items, 8)
    for begin, end in ((0, 8), (8, 16), (16, 21)):
        window = items[begin:end].flatten(1)
        want = F.cosine_similarity(window[:, None], window, dim=-1).double().mean(1)
        middle = (end - begin) // 2
        assert got[begin + middle] == float("-inf")
        others = [i for i in range(end - begin) if i != middle]
        torch.testing.assert_close(got[begin:end][others], want[others], atol=2e-5, rtol=0)


def still_then_moving() -> Tensor:
    """Eight times the same, which is the question itself, then eight that have nothing in common."""
    return torch.cat([torch.eye(1, DIM).expand(8, DIM), torch.eye(DIM)[8:]])[:, None]


def test_copies_go_but_one_and_the_question_picks_among_the_rest() -> None:
    query = torch.eye(DIM)[0] + 0.5 * torch.eye(DIM)[11] + 0.3 * torch.eye(DIM)[14]
    # Of the still window the middle, item 4, is kept; without this step all three would be copies of it.
    assert select(still_then_moving(), query[None], 3, window=8) == [4, 11, 14]


def test_where_fewer_are_left_the_least_redundant_come_back() -> None:
    items = torch.eye(1, DIM).repeat(8, 1)
    items[1, 3], items[6, 4] = 0.3, 0.5
    # All but the middle are above the threshold: item 6 repeats the others least, then item 1, then the earliest.
    query = torch.eye(1, DIM)
    for budget, want in ((1, [4]), (2, [4, 6]), (3, [1, 4, 6]), (4, [0, 1, 4, 6])):
        assert select(items[:, None], query, budget, window=8) == want


def test_an_item_is_compared_token_by_token_in_its_place() -> None:
    a, b = torch.eye(DIM)[:2]
    # Each holds the same two tokens, every other one in the other order.
    items = torch.stack([torch.stack([a, b]), torch.stack([b, a])] * 4)
    assert redundancy(items, 8)[0] == pytest.approx(0.5)


def test_a_threshold_that_drops_nothing_leaves_a_top_k() -> None:
    query = torch.eye(1, DIM)
    assert select(still_then_moving(), query, 3, window=8, threshold=1.1) == [0, 1, 2]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.floats(-1, 1))
def test_exact_sorted_and_unique(items: int, budget: int, window: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(items)
    features = torch.randn(items, 2, DIM, generator=generator).cumsum(0)
    query = torch.randn(3, DIM, generator=generator)
    kept = select(features, query, budget, window=window, threshold=threshold)
    assert len(kept) == min(budget, items) and kept == sorted(set(kept)) and set(kept) <= set(range(items))


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        RedundancyThenQuery.Config(window=0)
