"""The laws of selectors."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vxl_lightning.selectors.base import Candidates, Selection
from vxl_lightning.testing.case import BF16_TOLERANCE, DIM, Case, Law, NotApplicable, Outputs, expect, expect_equal
from vxl_lightning.testing.laws_common import COMMON

ITEMS, PER_ITEM, TIME_TOKENS = 12, 3, 4


@dataclass(frozen=True)
class SelectorInput:
    candidates: Candidates
    query: Tensor | None
    budget: int


class SelectorCase(Case):
    kind: ClassVar[str] = "selector"

    def of_items(self, items: int, budget: int, seed: int = 0) -> SelectorInput:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(items, PER_ITEM, DIM, generator=generator)
        time_text = torch.randn(items, TIME_TOKENS, DIM, generator=generator) if self.example.needs_time else None
        query = torch.randn(5, DIM, generator=generator) if self.example.needs_query else None
        return SelectorInput(Candidates(features, 2.0 * torch.arange(items), time_text), query, budget)

    def sample(self, seed: int = 0) -> SelectorInput:
        return self.of_items(ITEMS, 5, seed)

    def features_of(self, sample: SelectorInput) -> Tensor:
        return sample.candidates.features

    def with_features(self, sample: SelectorInput, features: Tensor) -> SelectorInput:
        return replace(sample, candidates=replace(sample.candidates, features=features))

    def without(self, sample: SelectorInput, need: str) -> SelectorInput:
        if need == "query":
            return replace(sample, query=None)
        return replace(sample, candidates=replace(sample.candidates, time_features=None))

    def total(self, items: int) -> int:
        """How many there are to choose from."""
        return items * PER_ITEM if self.example.level == "token" else items

    def select(self, module: nn.Module, sample: SelectorInput) -> Selection:
        selection = module(sample.candidates, sample.query, sample.budget)
        expect(isinstance(selection, Selection), f"forward returned {type(selection).__name__}, not Selection")
        return selection  # type: ignore[no-any-return]

    def call(self, module: nn.Module, sample: SelectorInput) -> Outputs:
        selection = self.select(module, sample)
        return {"index": selection.index, "scores": selection.scores, "short": torch.tensor(selection.short)}


def shapes_and_dtypes(case: SelectorCase) -> None:
    """``index`` int64 and one-dimensional, within the candidates; ``scores`` float32, one for each of them."""
    selection = case.select(case.build(), case.sample())
    total = case.total(ITEMS)
    expect(selection.index.dtype == torch.int64, f"index must be int64, got {selection.index.dtype}")
    expect(selection.index.ndim == 1, f"index must have one axis, got shape {tuple(selection.index.shape)}")
    inside = bool(((selection.index >= 0) & (selection.index < total)).all())
    expect(inside, f"index must lie in 0..{total - 1}, got {selection.index.tolist()}")
    expect(selection.scores.dtype == torch.float32, f"scores must be float32, got {selection.scores.dtype}")
    got = tuple(selection.scores.shape)
    expect(got == (total,), f"scores must be {(total,)} at level {case.example.level}, got {got}")


def sorted_and_unique(case: SelectorCase) -> None:
    """``index`` is strictly increasing: in time order, nothing twice."""
    index = case.select(case.build(), case.sample()).index
    expect(bool((index.diff() > 0).all()), f"index is not sorted and unique: {index.tolist()}")


def exact_budget(case: SelectorCase) -> None:
    """Exactly ``budget`` are chosen, or all when there are fewer."""
    module, total = case.build(), case.total(ITEMS)
    for budget in (1, 2, 5, total - 1, total, total + 3):
        got = len(case.select(module, replace(case.sample(), budget=budget)).index)
        expect(got == min(budget, total), f"budget={budget} of {total} candidates chose {got}")


def short_flag(case: SelectorCase) -> None:
    """``short`` is True exactly where there are fewer candidates than the budget."""
    module, total = case.build(), case.total(ITEMS)
    for budget in (1, total, total + 1):
        short = case.select(module, replace(case.sample(), budget=budget)).short
        expect(short is (budget > total), f"budget={budget} of {total} candidates gave short={short}")


def budget_below_one_refused(case: SelectorCase) -> None:
    """A budget of 0 is a ValueError."""
    try:
        case.select(case.build(), replace(case.sample(), budget=0))
    except ValueError:
        return
    expect(False, "budget=0 was accepted")


def few_and_odd_candidates(case: SelectorCase) -> None:
    """One candidate, and odd numbers of them, work."""
    module = case.build()
    for items in (1, 3, 7):
        selection = case.select(module, case.of_items(items, 2))
        want = min(2, case.total(items))
        expect(len(selection.index) == want, f"{items} items at budget 2 chose {len(selection.index)}, due {want}")
        expect(bool(torch.isfinite(selection.scores).all()), f"scores of {items} items are not finite")


def nan_query_refused(case: SelectorCase) -> None:
    """NaN in the query is a ValueError that says so."""
    if not case.example.needs_query:
        raise NotApplicable("takes no query")
    module, sample = case.build(), case.sample()
    assert sample.query is not None
    try:
        case.select(module, replace(sample, query=torch.full_like(sample.query, float("nan"))))
    except ValueError as e:
        expect("nan" in str(e).lower(), f"NaN in the query raised a ValueError that does not name it: {e}")
        return
    expect(False, "NaN in the query was accepted")


def bf16_agrees(case: SelectorCase) -> None:
    """Scores of bfloat16 inputs agree with those of the same values in float32 to `BF16_TOLERANCE`."""

    def to(dtype: torch.dtype, sample: SelectorInput) -> SelectorInput:
        c = sample.candidates
        text = None if c.time_features is None else c.time_features.to(dtype)
        query = None if sample.query is None else sample.query.to(dtype)
        return SelectorInput(Candidates(c.features.to(dtype), c.times, text), query, sample.budget)

    half = to(torch.bfloat16, case.sample())
    module = case.build().to(torch.bfloat16)
    reference: Any = case.build()
    reference.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in module.state_dict().items()})
    got, want = case.select(module, half), case.select(reference, to(torch.float32, half))
    expect_equal({"scores": got.scores}, {"scores": want.scores}, "between bfloat16 and float32", BF16_TOLERANCE)


SELECTOR_LAWS: tuple[Law, ...] = (
    shapes_and_dtypes,
    sorted_and_unique,
    exact_budget,
    short_flag,
    budget_below_one_refused,
    few_and_odd_candidates,
    nan_query_refused,
    bf16_agrees,
    *COMMON,
)
