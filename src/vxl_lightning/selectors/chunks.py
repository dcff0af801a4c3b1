"""Whole chunks of a video, by their mean relevance."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import relevance, rounded


class ChunkSelector(Selector):
    """Keeps whole chunks of ``size`` items, so that what surrounds a relevant item stays with it.

    Chunk selection as in Video-XL-2's bi-level decoding (arXiv 2506.19225). A chunk's relevance is the mean of its
    items' or of their ``best`` best. The first, the second and the last chunk are always in (``ends``), then the most
    relevant ones, the earliest first among equals; of the chunk that the budget cuts, the most relevant items are kept.
    With ``ends``, a budget of three chunks or less leaves the question only the choice within a chunk.

    Follows the release in the chunks and in those that are always in. Differs in that the release reads each question's
    relevant chunks from files computed beforehand by LanguageBind, where relevance is computed here (`relevance`); that
    it sets size and number of chunks by the category of the question, where here the budget decides; and that it keeps
    the other chunks too, as averaged keys and values, where here they are left out.
    """

    origin = (
        "Video-XL-2, arXiv 2506.19225, github VectorSpaceLab/Video-XL (Apache-2.0); clean-room, from its definition"
    )

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        size: int = 4
        """Items of a chunk; the last one may have fewer."""
        best: int = 0
        """A chunk's relevance is the mean of its this many best items; 0 takes all of them."""
        ends: bool = True
        """The first, second and last chunk are in, whatever the question."""

        def __post_init__(self) -> None:
            if self.size < 1:
                raise ValueError(f"size={self.size} must be at least 1 item a chunk")
            if not 0 <= self.best <= self.size:
                raise ValueError(f"best={self.best} must be 0 (all) to size={self.size}")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return relevance(candidates.features, query)

    def choose(self, scores: Tensor, budget: int) -> Tensor:
        size: int = self.config.size
        values = rounded(scores)
        worth = _mean_of_best(values, size, self.config.best or size)
        if self.config.ends:
            worth[:2] = worth[-1] = float("inf")
        rank = worth.argsort(descending=True, stable=True).argsort()
        # Items by score, then by the rank of their chunk, which leaves those of a chunk in the order of score.
        order = values.argsort(descending=True, stable=True)
        order = order[rank[order // size].argsort(stable=True)]
        return order[:budget].sort().values.to(scores.device)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"size": 2, "ends": False}, {"size": 5, "best": 1}]


def _mean_of_best(values: Tensor, size: int, best: int) -> Tensor:
    """``[chunks]``: the mean of the ``best`` highest values of every ``size``, or of as many as there are."""
    chunks = F.pad(values, (0, -len(values) % size), value=float("-inf")).unflatten(0, (-1, size))
    highest: Tensor = chunks.sort(1, descending=True).values[:, :best]
    there = highest.isfinite()
    return torch.where(there, highest, 0.0).sum(1) / there.sum(1)
