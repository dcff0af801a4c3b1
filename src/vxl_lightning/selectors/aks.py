"""Adaptive keyframe sampling: the best items where a stretch has a peak, else the same again in each of its halves."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import relevance, unit_range


class AdaptiveKeyframeSampling(Selector):
    """Weighs relevance against coverage ("Adaptive Keyframe Sampling", arXiv 2502.21271).

    Relevance is min-max normalised over the video. A stretch of the video with n items to give, the whole video with
    the budget at first, keeps its n best where

        mean(its n best) - mean(all of it) > t1    and    standard deviation > t2

    and is otherwise halved, each half with half of n, ``depth`` times at most.

    Follows the published recursion and constants; ``t2`` = -100 never decides. Differs in that the count is exact. The
    release gives every leaf the integer part of budget / 2^level, so that it may return fewer, and none below a budget
    of 2^depth; here a stretch with one item to give is not halved, and the odd one of an uneven n goes to the half
    whose next best item is more relevant, the first one where they are equal. The release also looks for a peak among
    as many items as the whole budget at every level, so that short stretches never have one; here n is what the stretch
    has to give. Relevance is measured on the model's own tokens (`relevance`), where the paper asks BLIP or CLIP about
    each frame.
    """

    origin = "AKS, arXiv 2502.21271, github ncTimTang/AKS (no licence); clean-room, from the published definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        t1: float = 0.8
        """A stretch is not halved where its best items exceed its mean by more than this; scores span 0 to 1."""
        t2: float = -100.0
        """Such a stretch is halved after all unless its standard deviation exceeds this; below 0 it always does."""
        depth: int = 5
        """Most times the video is halved; 0 is a plain top-k."""

        def __post_init__(self) -> None:
            if self.depth < 0:
                raise ValueError(f"depth={self.depth} must be at least 0, where 0 is a plain top-k")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return relevance(candidates.features, query)

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        return self._from_stretch(unit_range(scores), budget, 0).to(scores.device)

    def _from_stretch(self, scores: Tensor, count: int, level: int) -> Tensor:
        """Sorted positions of ``count`` of ``scores``, 1 <= count <= len(scores)."""
        best = super().choose(scores, count)
        if count == 1 or level == self.config.depth or self._has_peak(scores, best):
            return best
        half = len(scores) // 2
        first, second = scores[:half], scores[half:]
        taken = count // 2
        if count % 2 and _next_best(first, taken) >= _next_best(second, taken):
            taken += 1
        return torch.cat(
            [
                self._from_stretch(first, taken, level + 1),
                self._from_stretch(second, count - taken, level + 1) + half,
            ]
        )

    def _has_peak(self, scores: Tensor, best: Tensor) -> bool:
        rise = float(scores[best].mean() - scores.mean())
        return bool(rise > self.config.t1 and float(scores.std(correction=0)) > self.config.t2)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"depth": 1, "t1": 0.3}, {"depth": 0}]


def _next_best(scores: Tensor, taken: int) -> float:
    """The score that follows the ``taken`` best; minus infinity where there is none."""
    return float(scores.sort(descending=True).values[taken]) if taken < len(scores) else float("-inf")
