"""Exact shares of a budget, places in an order and nearest anchors; ties go to the earliest."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.per_video import best_cells

# What is unfilled of a share is rounded to this part of a token, so that remainders equal but for float32 tie.
SHARE_STEP = 1e-4

SMALLEST_NORM = 1e-12

# An odd number whose powers, modulo 2^64, look like chance (Knuth's multiplier of a random number generator).
NAME_BASE = 6364136223846793005


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


@torch.no_grad()
def nearest(cells: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar of some anchors to each cell, by the cosine; of equal anchors the first.

    A matrix kernel may give equal anchors cosines that differ in their last bits, so which are equal is looked up
    instead of being read off the cosines.

    Args:
        cells: ``[..., N, D]`` float32.
        anchors: ``[..., A, D]`` float32, at least one.

    Returns:
        ``[..., N]`` cosines and ``[..., N]`` indices of anchors.
    """
    along, index = (cells @ F.normalize(anchors, dim=-1).mT).max(-1)
    cosine = along / torch.linalg.vector_norm(cells, dim=-1).clamp(min=SMALLEST_NORM)
    name = _names(anchors)
    first = (name[..., :, None] == name[..., None, :]).byte().argmax(-1)
    return cosine, first.gather(-1, index)


def _names(rows: Tensor) -> Tensor:
    """``[..., A]`` int64, the same for equal rows of ``[..., A, D]`` float32 and, but for chance, for no others.

    The bits of a row are the coefficients of a polynomial; sums of whole numbers come out the same in any order.
    """
    bits = (rows + 0.0).view(torch.int32).long()  # adding 0 makes -0 the same as 0
    power = torch.full((rows.shape[-1],), NAME_BASE, device=rows.device).cumprod(0)
    return (bits * power).sum(-1)
