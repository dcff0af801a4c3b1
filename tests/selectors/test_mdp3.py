"""MDP3 held against determinants of whole matrices, and against every way of dividing the budget."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.selectors.base import Candidates
from vxl_lightning.selectors.mdp3 import MarkovDeterminantal
from vxl_lightning.testing import parametrize_laws

DIM = 12


@parametrize_laws("selector", MarkovDeterminantal)
def test_law(law: Any) -> None:
    law()


def build(**settings: Any) -> MarkovDeterminantal:
    return MarkovDeterminantal(MarkovDeterminantal.Config(**settings), dim=DIM)


def draw(items: int, seed: int) -> tuple[Tensor, Tensor]:
    """Items that change slowly, and a question, as unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(items, DIM, generator=generator)
    return F.normalize(steps.cumsum(0), dim=-1), F.normalize(torch.randn(1, DIM, generator=generator), dim=-1)


def select(selector: MarkovDeterminantal, items: Tensor, query: Tensor, budget: int) -> list[int]:
    times = torch.arange(float(len(items)))
    index: list[int] = selector(Candidates(items[:, None], times), query, budget).index.tolist()
    return index


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """As published: squared distances, five bandwidths."""
    distance = (x.double()[:, None] - y.double()).square().sum(-1)
    return sum(torch.exp(-distance / (2 * 2.0**k)) for k in (-3, -2, -1, 0, 1)) / 5  # type: ignore[return-value]


class Definition:
    """The objective written out with determinants of whole matrices."""

    def __init__(self, items: Tensor, query: Tensor, trade_off: float) -> None:
        self.similarity = kernel(items, items)
        self.relevance = 2 / trade_off * kernel(items, query)[:, 0].log()

    def value(self, chosen: list[int], given: list[int]) -> float:
        def volume(which: list[int]) -> Tensor:
            return torch.logdet(self.similarity[which][:, which]) if which else torch.tensor(0.0)

        return float(self.relevance[chosen].sum() + volume(given + chosen) - volume(given))

    def greedy(self, segment: list[int], count: int, given: list[int]) -> list[int]:
        chosen: list[int] = []
        for _ in range(count):
            chosen.append(max((i for i in segment if i not in chosen), key=lambda i: self.value([*chosen, i], given)))
        return chosen

    def along(self, segments: list[list[int]], counts: tuple[int, ...]) -> tuple[float, list[int]]:
        """Value and items when the segments get these counts."""
        total, kept, given = 0.0, [], []
        for segment, count in zip(segments, counts, strict=True):
            chosen = self.greedy(segment, count, given)
            total += self.value(chosen, given)
            kept += chosen
            given = [max(chosen)] if chosen else given
        return total, sorted(kept)


@pytest.mark.parametrize("trade_off", [0.2, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_one_segment_is_greedy_by_the_determinant(seed: int, trade_off: float) -> None:
    items, query = draw(10, seed)
    definition = Definition(items, query, trade_off)
    for budget in (1, 3, 6):
        want = sorted(definition.greedy(list(range(10)), budget, []))
        assert select(build(trade_off=trade_off), items, query, budget) == want


@pytest.mark.parametrize("trade_off", [0.2, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_two_segments_divide_the_budget_as_the_best_of_all_divisions(seed: int, trade_off: float) -> None:
    items, query = draw(11, seed)
    definition = Definition(items, query, trade_off)
    segments = [list(range(6)), list(range(6, 11))]
    for budget in (2, 5):
        divisions = [(a, budget - a) for a in range(budget + 1) if a <= 6 and budget - a <= 5]
        _, want = max(definition.along(segments, counts) for counts in divisions)
        assert select(build(trade_off=trade_off, segment=6), items, query, budget) == want


@pytest.mark.parametrize("seed", range(6))
def test_many_segments_keep_the_best_selection_of_every_number_of_items(seed: int) -> None:
    items, query = draw(13, seed)
    definition = Definition(items, query, 2.0)
    segments = [list(range(i, min(i + 4, 13))) for i in range(0, 13, 4)]
    best: dict[int, tuple[float, list[int], list[int]]] = {0: (0.0, [], [])}
    for segment in segments:
        after: dict[int, tuple[float, list[int], list[int]]] = {}
        for (so_far, (value, kept, given)), count in product(best.items(), range(len(segment) + 1)):
            chosen = definition.greedy(segment, count, given)
            total = value + definition.value(chosen, given)
            if so_far + count not in after or total > after[so_far + count][0]:
                after[so_far + count] = (total, kept + chosen, [max(chosen)] if chosen else given)
        best = after
    for budget in (1, 4, 7, 12):
        assert select(build(trade_off=2.0, segment=4), items, query, budget) == sorted(best[budget][1])


def test_diversity_leaves_a_near_copy_out_where_top_k_would_take_it() -> None:
    # Items 0 and 1 are the question but for a hair; item 2 is less like it, and unlike them.
    items = torch.eye(4, DIM)[[0, 0, 1]] + torch.tensor([[0.0], [0.01], [0.0]]) * torch.eye(4, DIM)[2]
    items[2, 0] = 0.9
    query = torch.eye(1, DIM)
    assert select(build(trade_off=1.0), items, query, 2) in ([0, 2], [1, 2])
    assert select(build(trade_off=0.01), items, query, 2) == [0, 1]


@pytest.mark.parametrize("copy", [3, 7])
def test_a_copy_in_a_later_segment_is_left_out(copy: int) -> None:
    generator = torch.Generator().manual_seed(0)
    items = F.normalize(torch.randn(9, DIM, generator=generator), dim=-1)
    items[copy] = items[2]
    query = F.normalize(items[2:3] + 0.3 * torch.randn(1, DIM, generator=generator), dim=-1)
    # Alone, the two are the most relevant ones.
    assert select(build(trade_off=1e-3, segment=3), items, query, 2) == [2, copy]
    chosen = select(build(trade_off=2.0, segment=3), items, query, 2)
    assert (2 in chosen) != (copy in chosen)


def test_copies_tie_to_the_earliest() -> None:
    for segment in (32, 4, 1):
        assert select(build(segment=segment), torch.ones(9, DIM), torch.ones(1, DIM), 3) == [0, 1, 2]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trade_off=0 must be above 0"):
        MarkovDeterminantal.Config(trade_off=0)
    with pytest.raises(ValueError, match=r"segment=0 must be at least 1"):
        MarkovDeterminantal.Config(segment=0)
