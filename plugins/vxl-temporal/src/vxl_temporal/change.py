"""How like a cell is to what stood at its place before: what every method here goes by."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.compressors.pieces import cosines

# Similarities are rounded to this step, so that cells that did not change tie although float32 says 0.9999999 of one
# and 1.0000001 of another.
SIMILARITY_STEP = 1e-6


@torch.no_grad()
def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine in float32 of cells; that of a zero vector is zero.

    Args:
        a: ``[..., T, H, W, D]``.
        b: the same, or one cell a frame: ``[..., T, 1, 1, D]``.

    Returns:
        ``[..., T, H, W]`` float32.
    """
    return cosines(a, b).div_(SIMILARITY_STEP).round_().mul_(SIMILARITY_STEP)


def similarity_to_previous(features: Tensor, past: Tensor) -> Tensor:
    """Of every cell to the one at its place a frame before.

    Args:
        features: ``[..., T, H, W, D]``.
        past: ``[..., P, H, W, D]``, the frames before, of which the last is looked at; P = 0 where the video begins.

    Returns:
        ``[..., T, H, W]`` float32; minus infinity in a video's first frame, which is like nothing before it.
    """
    after_another = similarity(features[..., 1:, :, :, :], features[..., :-1, :, :, :])
    if past.shape[-4]:
        first = similarity(features[..., :1, :, :, :], past[..., -1:, :, :, :])
        return torch.cat([first, after_another], -3)
    return F.pad(after_another, (0, 0, 0, 0, 1, 0), value=-torch.inf)


def least(score: Tensor, count: Tensor) -> Tensor:
    """Bool ``[..., H, W]``: in every frame of ``score`` its ``count [...]`` lowest cells, the earliest among equals."""
    order = score.flatten(-2).argsort(dim=-1, stable=True)
    first = torch.arange(order.shape[-1], device=order.device) < count[..., None]
    return torch.zeros_like(first).scatter(-1, order, first).view(score.shape)
