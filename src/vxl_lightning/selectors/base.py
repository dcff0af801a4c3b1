"""The selector contract: of many candidates, the ones a question needs, at most as many as the budget."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a selector chooses from, one video at a time.

    Attributes:
        features: ``[G, K, D]``: G items in time order of K vectors each (K tokens of a group, or K=1 for frames).
        times: ``[G]`` seconds.
        time_features: ``[G, M, D]`` embedded time text of each item, for selectors that read it, or None.
    """

    features: Tensor
    times: Tensor
    time_features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3:
            raise ValueError(f"Candidates.features must be [G,K,D], got {tuple(self.features.shape)}")
        if self.times.shape != self.features.shape[:1]:
            raise ValueError(
                f"Candidates.times must be [G] = {tuple(self.features.shape[:1])}, got {tuple(self.times.shape)}"
            )


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen items.

    Attributes:
        index: ``[S]`` int64, sorted and unique: items at level ``frame``, positions in the flattened
            ``[G * K]`` token sequence at level ``token``.
        scores: ``[G]`` or ``[G * K]`` float32, the relevance of every candidate.
        short: fewer than the budget were to be had.
    """

    index: Tensor
    scores: Tensor
    short: bool = False


class Selector(nn.Module, ABC):
    """Chooses exactly ``budget`` candidates (all of them, with ``short``, when there are fewer).

    Built as ``Class(Config(...), dim=D)``; a subclass writes ``score`` and, where the choice is more than a top-k of
    scores, ``choose`` or, where it also depends on the candidates, ``choose_from``. Never random at inference.
    """

    level: ClassVar[Literal["frame", "token"]] = "frame"
    trainable: ClassVar[bool] = False
    needs_query: ClassVar[bool] = True
    needs_time: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    api_version: ClassVar[str] = "1"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = dim

    @abstractmethod
    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        """Relevance, float32, ``[G]`` at level ``frame`` or ``[G * K]`` at level ``token``."""

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        """Sorted positions of the ``budget`` best; the earliest wins among equals."""
        return scores.argsort(descending=True, stable=True)[:budget].sort().values

    def choose_from(self, candidates: Candidates, scores: Tensor, budget: int) -> Tensor:
        """As ``choose``, for methods that compare the candidates with one another too."""
        return self.choose(scores, budget)

    def forward(self, candidates: Candidates, query: Tensor | None, budget: int) -> Selection:
        """Select from one video.

        Args:
            candidates: G items in time order.
            query: ``[Q, D]`` embedded question tokens, or None for selectors that need none.
            budget: items (or tokens) to keep, at least 1.

        Raises:
            ValueError: a budget below 1, a missing query or time text, NaN.
        """
        name = type(self).__name__
        if budget < 1:
            raise ValueError(f"selector budget={budget} must be at least 1")
        if self.needs_query and query is None:
            raise ValueError(f"{name} is query-aware: pass query=[Q,D], or choose selector=uniform")
        if self.needs_time and candidates.time_features is None:
            raise ValueError(f"{name} reads the time text: pass Candidates.time_features=[G,M,D]")
        # Both ends are NaN when any value is: one pass without a copy, where isfinite takes twenty times as long.
        if not bool(torch.isfinite(torch.stack(candidates.features.detach().aminmax())).all()):
            raise ValueError(f"{name}: Candidates.features has NaN or infinite values")
        scores = self.score(candidates, query).float()
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f"{name}: the scores have NaN or infinite values; check the query's embedding")
        index = self.choose_from(candidates, scores, min(budget, len(scores)))
        return Selection(index, scores, short=budget > len(scores))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}]
