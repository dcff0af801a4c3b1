"""Evenly spaced items, whatever the question: the control every selector is compared with."""

import torch
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector


class UniformSelector(Selector):
    """The middle item of each of ``budget`` equal stretches. All scores are 0."""

    needs_query = False
    origin = "Baseline; written here from scratch"

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        return torch.zeros(len(candidates.times), device=candidates.features.device)

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        return evenly_spaced(len(scores), budget, scores.device)


def evenly_spaced(items: int, count: int, device: torch.device | None = None) -> Tensor:
    """The middle positions of ``count`` equal stretches of ``items`` positions; count <= items."""
    return (2 * torch.arange(count, device=device) + 1) * items // (2 * count)
