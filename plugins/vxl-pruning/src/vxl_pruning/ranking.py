"""Exact shares of a budget, and places in an order; ties go to the earliest."""

import torch
from torch import Tensor

from vxl_lightning.compressors.per_video import best_cells

# What is unfilled of a share is rounded to this part of a token, so that remainders equal but for float32 tie.
SHARE_STEP = 1e-4


def ranks(score: Tensor) -> Tensor:
    """Place of every entry among those of its last axis: 0 for the highest, the earliest first among equals."""
    return score.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def apportion(quota: Tensor, count: int, most: int) -> Tensor:
    """Round shares to whole tokens that sum to ``count``: by the largest remainder, with at most ``most`` each.

    Tokens are dealt one by one to the share that is furthest from filled, so what a full share cannot take goes to
    the others evenly. No share is left without a token where there are enough for all.

    Args:
        quota: ``[n]`` float, summing to ``count``.
        count: tokens, at most ``n * most``.
        most: tokens of one share, at most.

    Returns:
        ``[n]`` int64.
    """
    unfilled = quota[:, None] - torch.arange(most, device=quota.device)
    if count >= len(quota):
        unfilled[:, 0] = torch.inf
    return best_cells((unfilled / SHARE_STEP).round(), count).sum(1)
