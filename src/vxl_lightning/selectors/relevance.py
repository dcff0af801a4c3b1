"""How well an item fits a question: the measure that the selectors here share, so that they differ in their choice."""

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS_AT_ONCE = 128

SCORE_STEP = 1e-5
"""Cosines closer than this are one value to a choice: the same vectors may differ so much by matrix kernel."""


def relevance(features: Tensor, query: Tensor) -> Tensor:
    """``[G]`` float32: mean over query tokens of an item's best cosine with it. A zero vector is similar to nothing.

    With one vector an item and one for the question, as CLIP gives, this is their cosine.

    Args:
        features: ``[G, K, D]``, items of K vectors.
        query: ``[Q, D]`` in the same space (e.g. projected tokens and the language model's word embeddings).
    """
    with torch.autocast(features.device.type, enabled=False):
        words = F.normalize(query.float(), dim=-1)
        parts = []
        # In chunks, so that the cosines and the float32 copy of the features stay small however long the video.
        for some in features.split(GROUPS_AT_ONCE):
            cosine = F.normalize(some.float(), dim=-1) @ words.T  # [g, K, Q]
            parts.append(cosine.amax(1).mean(1))
        return torch.cat(parts)


def unit_range(scores: Tensor) -> Tensor:
    """Scores min-max normalised to [0, 1] for a choice: float64, on the CPU, without gradient.

    They are rounded to `SCORE_STEP` before, and all 0 where they are equal to within it: the rounding errors of a video
    in which nothing stands out would otherwise be stretched to peaks.
    """
    steps = (scores.detach().cpu().double() / SCORE_STEP).round()
    low, high = steps.aminmax()
    if high - low <= 1:
        return torch.zeros_like(steps)
    return (steps - low) / (high - low)
