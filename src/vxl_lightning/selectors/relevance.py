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


def rounded(scores: Tensor) -> Tensor:
    """Scores for a choice: to the nearest `SCORE_STEP`, float64, on the CPU, without gradient."""
    return (scores.detach().cpu().double() / SCORE_STEP).round() * SCORE_STEP


def unit_range(scores: Tensor) -> Tensor:
    """`rounded` scores min-max normalised to [0, 1].

    All 0 where they are equal to within a step: the rounding errors of a video in which nothing stands out would
    otherwise be stretched to peaks.
    """
    scores = rounded(scores)
    low, high = scores.aminmax()
    if high - low < 1.5 * SCORE_STEP:
        return torch.zeros_like(scores)
    return (scores - low) / (high - low)
