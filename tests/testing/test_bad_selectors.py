"""One wrong selector a law: the kit finds each of them guilty of that law and of no other."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vxl_lightning.selectors.base import Candidates, Selection, Selector
from vxl_lightning.testing import check_plugin, laws


class Good(Selector):
    """Cosine to the mean of the question."""

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        scores = F.normalize(candidates.features.float().mean(1), dim=-1) @ F.normalize(query.float().mean(0), dim=-1)
        return self.finish(scores, candidates)

    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores


class Contract(Good):
    score = Selector.score  # abstract again


class ShapesAndDtypes(Good):
    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        selection = super().forward(candidates, query, budget)
        return replace(selection, scores=selection.scores.double())


class SortedAndUnique(Good):
    def choose(self, scores: Tensor, budget: int) -> Tensor:
        return super().choose(scores, budget).flip(0)


class ExactBudget(Good):
    def choose(self, scores: Tensor, budget: int) -> Tensor:
        return super().choose(scores, budget - (budget >= 5))


class ShortFlag(Good):
    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        return replace(super().forward(candidates, query, budget), short=False)


class BudgetBelowOneRefused(Good):
    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        return super().forward(candidates, query, max(budget, 1))


class FewAndOddCandidates(Good):
    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        if len(scores) == 1:
            raise IndexError("no neighbour")
        return scores


class NanQueryRefused(Good):
    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores.nan_to_num(0.0)


class Bf16Agrees(Good):
    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores + (candidates.features + 1000).mean((1, 2)).float() - 1000


class Deterministic(Good):
    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores + 1e-6 * torch.rand_like(scores)


class InputsNotMutated(Good):
    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        candidates.times.zero_()
        return scores


class ConstantFeatures(Good):
    """Guards against scores that are all zero, and not against scores that are all the same."""

    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        if not scores.any() or len(scores) == 1:
            return scores
        return (scores - scores.amin()) / (scores.amax() - scores.amin())


class NanRefused(Good):
    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        clean = replace(candidates, features=candidates.features.nan_to_num(0.0, 0.0, 0.0))
        return super().forward(clean, query, budget)


class StateDictRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.scale = 1 + 0.01 * random.random()

    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores * self.scale


class PickleRoundTrip(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.rule = lambda scores: scores


class MetaDevice(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores * self.scale


class GradientsFinite(Good):
    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.gate = nn.Parameter(torch.ones(()))  # in a class that says it has nothing to train

    def finish(self, scores: Tensor, candidates: Candidates) -> Tensor:
        return scores * self.gate.float()


class SideInputsRequired(Good):
    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        words = candidates.features.new_ones(1, self.dim) if query is None else query
        return super().forward(candidates, words, budget)


BAD = {
    "contract": Contract,
    "shapes_and_dtypes": ShapesAndDtypes,
    "sorted_and_unique": SortedAndUnique,
    "exact_budget": ExactBudget,
    "short_flag": ShortFlag,
    "budget_below_one_refused": BudgetBelowOneRefused,
    "few_and_odd_candidates": FewAndOddCandidates,
    "nan_query_refused": NanQueryRefused,
    "bf16_agrees": Bf16Agrees,
    "deterministic": Deterministic,
    "inputs_not_mutated": InputsNotMutated,
    "constant_features": ConstantFeatures,
    "nan_refused": NanRefused,
    "state_dict_round_trip": StateDictRoundTrip,
    "pickle_round_trip": PickleRoundTrip,
    "meta_device": MetaDevice,
    "gradients_finite": GradientsFinite,
    "side_inputs_required": SideInputsRequired,
}


def test_every_law_has_its_wrong_plugin() -> None:
    assert list(BAD) == list(laws("selector"))


def test_the_plain_one_keeps_all() -> None:
    assert [r for r in check_plugin("selector", Good) if not r.ok] == []


@pytest.mark.parametrize("law", BAD)
def test_guilty_of_one_law(law: str) -> None:
    results = check_plugin("selector", BAD[law])
    assert {r.law for r in results if not r.ok} == {law}, [r for r in results if not r.ok]
