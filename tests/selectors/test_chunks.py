"""Whole chunks by relevance: which are always in, and what is kept of the one that the budget cuts."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.selectors.chunks import ChunkSelector
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("selector", ChunkSelector)
def test_law(law: Any) -> None:
    law()


def choose(scores: list[float], budget: int, **settings: Any) -> list[int]:
    index: list[int] = (
        ChunkSelector(ChunkSelector.Config(**settings), dim=2).choose(torch.tensor(scores), budget).tolist()
    )
    return index


SCORES = [0.0, 0.1, 0.2, 0.3, 0.9, 0.0, 0.5, 0.6, 0.4, 0.3, 0.1, 0.2]
"""Chunks of two with means .05 .25 .45 .55 .35 .15."""


def test_whole_chunks_by_their_mean() -> None:
    assert choose(SCORES, 4, size=2, ends=False) == [4, 5, 6, 7]


def test_the_best_items_alone_can_stand_for_a_chunk() -> None:
    assert choose(SCORES, 2, size=2, ends=False) == [6, 7]
    assert choose(SCORES, 2, size=2, ends=False, best=1) == [4, 5]


def test_first_second_and_last_are_always_in() -> None:
    assert choose(SCORES, 8, size=2) == [0, 1, 2, 3, 6, 7, 10, 11]
    # In this order: the budget of two chunks is the first and the second.
    assert choose(SCORES, 4, size=2) == [0, 1, 2, 3]


def test_of_the_chunk_that_the_budget_cuts_the_most_relevant_items_are_kept() -> None:
    assert choose(SCORES, 3, size=2, ends=False) == [4, 6, 7]
    assert choose(SCORES, 1, size=2, ends=False) == [7]
    assert choose(SCORES, 7, size=2) == [0, 1, 2, 3, 7, 10, 11]


def test_a_last_chunk_with_fewer_items_is_measured_by_those() -> None:
    assert choose([0.5, 0.5, 0.5, 0.6], 1, size=3, ends=False) == [3]
    assert choose([0.5, 0.5, 0.5, 0.4], 3, size=3, ends=False) == [0, 1, 2]


def test_equal_chunks_and_items_go_to_the_earliest() -> None:
    assert choose([0.3] * 12, 6, size=4, ends=False) == [0, 1, 2, 3, 4, 5]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 9), st.booleans(), st.integers(0, 9))
def test_exact_sorted_and_unique(items: int, budget: int, size: int, ends: bool, seed: int) -> None:
    scores = torch.rand(items, generator=torch.Generator().manual_seed(seed)).tolist()
    kept = choose(scores, min(budget, items), size=size, ends=ends)
    assert len(kept) == min(budget, items) and kept == sorted(set(kept)) and set(kept) <= set(range(items))
    whole = [
        c for c in {i // size for i in kept} if all(i in kept for i in range(c * size, min(c * size + size, items)))
    ]
    assert len({i // size for i in kept}) - len(whole) <= 1


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        ChunkSelector.Config(size=0)
    with pytest.raises(ValueError, match=r"best=5 must be 0 \(all\) to size=4"):
        ChunkSelector.Config(best=5)
