"""How like a cell is to what stood at its place before: what every method here goes by."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities are rounded to this step, so that cells that did not change tie although float32 says 0.9999999 of one
# and 1.0000001 of another.
SIMILARITY_STEP = 1e-6


@torch.no_grad()
def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of ``a [..., D]`` and ``b [..., D]`` in float32, ``[...]``; that of a zero vector is zero."""
    return (F.cosine_similarity(a.float(), b.float(), dim=-1) / SIMILARITY_STEP).round() * SIMILARITY_STEP


def similarity_to_previous(features: Tensor, past: Tensor) -> Tensor:
    """Of every cell to the one at its place a frame before.

    Args:
        features: ``[..., T, H, W, D]``.
        past: ``[..., P, H, W, D]``, the frames before, of which the last is looked at; P = 0 where the video begins.

    Returns:
        ``[..., T, H, W]`` float32; minus infinity in a video's first frame, which is like nothing before it.
    """
    before = torch.cat([past[..., -1:, :, :, :], features], dim=-4)
    after_another = similarity(before[..., 1:, :, :, :], before[..., :-1, :, :, :])
    if past.shape[-4]:
        return after_another
    return F.pad(after_another, (0, 0, 0, 0, 1, 0), value=-torch.inf)


def least(score: Tensor, count: Tensor) -> Tensor:
    """Bool ``[..., H, W]``: in every frame of ``score`` its ``count [...]`` lowest cells, the earliest among equals."""
    rank = score.flatten(-2).argsort(dim=-1, stable=True).argsort(dim=-1)
    return (rank < count[..., None]).view(score.shape)
