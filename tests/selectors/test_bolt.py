"""Inverse transform sampling: quantiles of the relevance, and what stands for those that fall together."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.selectors.bolt import InverseTransformSampling
from vxl_lightning.selectors.uniform import evenly_spaced
from vxl_lightning.testing import parametrize_laws


@parametrize_laws("selector", InverseTransformSampling)
def test_law(law: Any) -> None:
    law()


def choose(scores: list[float], budget: int, power: float = 1.0) -> list[int]:
    selector = InverseTransformSampling(InverseTransformSampling.Config(power=power), dim=2)
    index: list[int] = selector.choose(torch.tensor(scores), budget).tolist()
    return index


def test_quantiles_of_the_cumulative_relevance() -> None:
    # Weights 0 1/2 1 0 1/2 1 1 0 sum to 4, the distribution is 0 .125 .375 .375 .5 .75 1 1, the quantiles are
    # 1/4, 5/12, 7/12 and 3/4.
    assert choose([0.1, 0.4, 0.7, 0.1, 0.4, 0.7, 0.7, 0.1], 4) == [2, 4, 5, 6]


def test_what_falls_together_is_drawn_again_among_the_others() -> None:
    # Weights 0 0 .1 1 .1 0 0.2 0 of sum 1.4, quantiles 1/3, 1/2, 2/3: item 3 three times. Of the rest, .1 .1 .2 at
    # items 2, 4, 6, two are due: twice the median, item 4; then of .1 .2 one: the median, item 6.
    assert choose([0, 0, 0.1, 1, 0.1, 0, 0.2, 0], 3) == [3, 4, 6]


def test_a_power_draws_items_to_the_peak() -> None:
    scores = [(1 + i % 50) / 50 if 50 <= i < 100 else 0.4 for i in range(150)]
    flat, sharp = choose(scores, 24, 1.0), choose(scores, 24, 8.0)
    assert sum(80 <= i < 100 for i in flat) < 10 < 18 < sum(80 <= i < 100 for i in sharp)


def test_a_budget_of_one_is_the_median_of_relevance() -> None:
    assert choose([0, 0.2, 0, 0, 0.3, 1, 0.2], 1) == [5]
    assert choose([0, 1, 1, 0, 0, 0, 1], 1) == [2]


def test_constant_scores_are_spaced_as_uniform_spaces_them() -> None:
    for items, budget in ((8, 3), (100, 7), (5, 5), (1, 1)):
        assert choose([0.7] * items, budget, 3.0) == evenly_spaced(items, budget).tolist()


def test_once_no_weight_is_left_the_rest_is_spaced_evenly() -> None:
    # Item 2 holds all of the weight; two more of the seven others: the middles of their halves.
    assert choose([0, 0, 1, 0, 0, 0, 0, 0], 3) == [1, 2, 6]


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.2, 30), st.integers(0, 9))
def test_exact_sorted_and_unique(items: int, budget: int, power: float, seed: int) -> None:
    scores = torch.rand(items, generator=torch.Generator().manual_seed(seed)).tolist()
    kept = choose(scores, min(budget, items), power)
    assert len(kept) == min(budget, items) and kept == sorted(set(kept)) and set(kept) <= set(range(items))


def test_a_power_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="power=-1 must be above 0"):
        InverseTransformSampling.Config(power=-1)
