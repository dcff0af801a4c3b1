"""Adaptive keyframe sampling: when a stretch is halved, and who is given the odd item."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.selectors.aks import AdaptiveKeyframeSampling
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("selector", AdaptiveKeyframeSampling)
def test_law(law: Any) -> None:
    law()


def choose(scores: list[float], budget: int, **settings: Any) -> list[int]:
    selector = AdaptiveKeyframeSampling(AdaptiveKeyframeSampling.Config(**settings), dim=2)
    index: list[int] = selector.choose(torch.tensor(scores), budget).tolist()
    return index


def test_a_peak_keeps_its_best_items_side_by_side() -> None:
    # Mean of the best two .975, of all .122: the rise .853 exceeds .8.
    assert choose([0] * 4 + [1, 0.95] + [0] * 10, 2) == [4, 5]


def test_without_a_peak_every_half_gets_its_share() -> None:
    # Mean of the best two .75, of all .094: one of each half, the earliest of equals in the second.
    assert choose([0] * 4 + [1, 0.5] + [0] * 10, 2) == [4, 8]


def test_a_narrow_peak_is_halved_after_all_where_the_spread_is_asked_for() -> None:
    scores = [0.0] * 4 + [1, 0.95] + [0] * 10
    # The standard deviation of these is .323.
    assert choose(scores, 2, t2=0.32) == [4, 5]
    assert choose(scores, 2, t2=0.33) == [4, 8]


def test_the_odd_item_goes_to_the_half_whose_next_best_is_more_relevant() -> None:
    scores = [0.9, 0.8, 0.7, 0, 1, 0, 0, 0.1]
    assert choose(scores, 3, depth=1) == [0, 1, 4]
    # Once more: the two of the first half are one of each of its halves.
    assert choose(scores, 3) == [0, 2, 4]
    assert choose(scores[4:] + scores[:4], 3, depth=1) == [0, 4, 5]


def test_the_odd_item_of_equal_halves_goes_to_the_first() -> None:
    assert choose([0.5] * 8, 3, depth=1) == [0, 1, 4]


def test_constant_scores_spread_the_budget() -> None:
    assert choose([0.3] * 64, 32) == list(range(0, 64, 2))
    # Five halvings end at 32 stretches; deeper ones would take the third of four as well.
    assert choose([0.3] * 128, 64) == sorted([*range(0, 128, 4), *range(1, 128, 4)])


def test_small_budgets_are_met_though_they_leave_less_than_one_for_every_leaf() -> None:
    scores = torch.linspace(0, 1, 100).tolist()
    assert choose(scores, 4) == [24, 49, 74, 99]


def test_depth_zero_is_a_plain_top_k() -> None:
    assert choose([0.1, 0.9, 0.8, 0.0, 0.2, 0.3], 3, depth=0) == [1, 2, 5]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 6), st.integers(0, 9))
def test_exact_sorted_and_unique(items: int, budget: int, depth: int, seed: int) -> None:
    scores = torch.rand(items, generator=torch.Generator().manual_seed(seed)).tolist()
    kept = choose(scores, min(budget, items), depth=depth)
    assert len(kept) == min(budget, items) and kept == sorted(set(kept)) and set(kept) <= set(range(items))


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth=-1 must be at least 0"):
        AdaptiveKeyframeSampling.Config(depth=-1)
