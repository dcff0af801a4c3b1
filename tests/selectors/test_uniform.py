"""Evenly spaced items."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.uniform import UniformSelector


def choose(items: int, budget: int) -> list[int]:
    selector = UniformSelector(UniformSelector.Config(), dim=2)
    index: list[int] = selector(
        Candidates(torch.zeros(items, 1, 2), torch.arange(float(items))), None, budget
    ).index.tolist()
    return index


@pytest.mark.parametrize(
    ("items", "budget", "kept"), [(8, 2, [2, 6]), (8, 1, [4]), (5, 3, [0, 2, 4]), (3, 9, [0, 1, 2])]
)
def test_middles_of_equal_stretches(items: int, budget: int, kept: list[int]) -> None:
    assert choose(items, budget) == kept


@given(st.integers(1, 300), st.integers(1, 300))
def test_exact_sorted_unique_and_even(items: int, budget: int) -> None:
    kept = choose(items, budget)
    assert len(kept) == min(items, budget) and kept == sorted(set(kept))
    gaps = {b - a for a, b in pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1
