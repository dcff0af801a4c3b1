"""First what repeats its surroundings goes, then the question picks among the rest."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.selectors.base import Candidates, Selector
from vxl_lightning.selectors.relevance import GROUPS_AT_ONCE, relevance, rounded


class RedundancyThenQuery(Selector):
    """Drops items that are much like their window, then takes the most relevant of the others.

    The temporal reduction of LongVU (arXiv 2410.17434): the video is cut into windows of ``window`` items. The
    redundancy of an item is the mean of its cosines with all items of its window, itself included, each item being one
    long vector of its K tokens; items at or above ``threshold`` are dropped, but for the middle one of each window,
    which stands for it. Of what is kept, the ``budget`` most relevant to the question are chosen. Where fewer are kept,
    all of them are, and those dropped come back, the least redundant first.

    Follows the release in the first step. Differs from there on: LongVU measures redundancy on DINOv2 features, here it
    is on the model's own tokens; it drops nothing from a video that fits the context as it is, and thins out what is
    left evenly to 400 frames; and its question decides which frames keep all of their tokens while the others are
    pooled, where here it decides which items are kept. A zero vector is similar to nothing.
    """

    origin = "LongVU, arXiv 2410.17434, github Vision-CAIR/LongVU (Apache-2.0); clean-room, from its definition"

    @dataclass(frozen=True, kw_only=True)
    class Config(Selector.Config):
        window: int = 16
        """Items that are compared with one another; the release's."""
        threshold: float = 0.83
        """Items with at least this mean cosine to their window are dropped; the release's."""

        def __post_init__(self) -> None:
            if self.window < 1:
                raise ValueError(f"window={self.window} must be at least 1; LongVU's is 16")

    def score(self, candidates: Candidates, query: Tensor | None) -> Tensor:
        assert query is not None
        return relevance(candidates.features, query)

    def choose_from(self, candidates: Candidates, scores: Tensor, budget: int) -> Tensor:
        repeats = redundancy(candidates.features, self.config.window)
        kept = repeats.lt(self.config.threshold)
        due = budget - int(kept.count_nonzero())
        if due > 0:
            back = repeats.masked_fill(kept, float("inf")).argsort(stable=True)[:due]
            return kept.index_fill(0, back, True).nonzero().flatten().to(scores.device)
        return self.choose(rounded(scores).masked_fill(~kept, float("-inf")), budget).to(scores.device)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"window": 5, "threshold": 0.2}, {"threshold": -1.0}]


def redundancy(features: Tensor, window: int) -> Tensor:
    """``[G]`` float64 on the CPU: the mean cosine of each item with its window; minus infinity for the window's middle.

    Args:
        features: ``[G, K, D]``.
        window: items of a window; the last one may have fewer.
    """
    items = len(features)
    parts = []
    # Some windows at a time, so that the float32 copy of the features stays small however long the video.
    for some in features.split(max(1, GROUPS_AT_ONCE // window) * window):
        unit = F.normalize(some.detach().flatten(1).float(), dim=-1)
        windows = F.pad(unit, (0, 0, 0, -len(unit) % window)).unflatten(0, (-1, window))
        # The sum of an item's cosines with the window is its product with the window's sum.
        parts.append((windows @ windows.sum(1)[:, :, None]).flatten()[: len(unit)])
    place = torch.arange(items)
    begin = place // window * window
    size = (items - begin).clamp(max=window)
    mean = rounded(torch.cat(parts)) / size
    return mean.masked_fill(place - begin == size // 2, float("-inf"))
