"""Inverse transform sampling: items as dense in time as they are relevant."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import relevance, unit_range
from vxl_lightning.selectors.uniform import evenly_spaced


class InverseTransformSampling(Selector):
    """Takes evenly spaced quantiles of relevance, seen as a density over time (BOLT, arXiv 2503.21483).

    Relevance is min-max normalised and raised to ``power``; of its cumulative distribution over the items, the first
    that reaches each of n quantiles, evenly spaced from 1/n to 1 - 1/n, is taken. A relevant stretch gets many items, a
    dull one few, in proportion; the least relevant item has no weight.

    Follows the release in all of this. Differs in that the count is exact: where several quantiles fall on one item,
    the release returns it several times; here the same is done again, for as many as are due, with the weights of those
    not yet taken. The last one due is their median, where the release's spacing from 1 to 0 has no middle. Where no
    weight is left, and for constant scores, which the release divides by 0, items are spaced evenly as `uniform`
    spaces them. Relevance is measured on the model's own tokens (`relevance`), not by CLIP on each frame.
    """

    origin = "BOLT, arXiv 2503.21483 (CVPR 2025), github sming256/BOLT (MIT); clean-room, from its definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        power: float = 3.0
        """Relevance is raised to this: 1 leaves it, more draws items to the peaks. 3 is the release's (2.5 for
        LongVideoBench)."""

        def __post_init__(self) -> None:
            if not 0 < self.power < math.inf:
                raise ValueError(f"power={self.power} must be above 0 and finite; 1 leaves relevance as it is")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return relevance(candidates.features, query)

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        weight = unit_range(scores) ** self.config.power
        free = torch.ones(len(weight), dtype=torch.bool)
        while (due := budget - int((~free).sum())) > 0:
            free[_draw(weight * free, free, due)] = False
        return (~free).nonzero().flatten().to(scores.device)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"power": 1.0}]


def _draw(weight: Tensor, free: Tensor, due: int) -> Tensor:
    """``[due]`` positions of ``free`` items, with repetitions unless all weights are 0."""
    cumulative = weight.cumsum(0)
    if not cumulative[-1] > 0:
        rest = free.nonzero().flatten()
        return rest[evenly_spaced(len(rest), due)]
    quantiles = torch.linspace(1 / due, 1 - 1 / due, due, dtype=torch.float64) if due > 1 else torch.tensor([0.5])
    return torch.searchsorted(cumulative / cumulative[-1], quantiles.double())
