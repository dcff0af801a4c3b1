"""The copies a reconstruction must beat: guesses made from the visible cells themselves, uncompressed."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Copies:
    """A guess for every cell, ``[B, T, H, W, D]``; nothing compressed stands between it and the visible cells.

    Attributes:
        mean: mean of the visible cells at the same place in the same stretch of frames; where none is visible,
            ``window_mean``.
        window_mean: mean of all visible cells of the stretch; where none is, of the video.
        previous: the nearest earlier visible cell at the same place, from any distance; where there is none, ``mean``.
    """

    mean: Tensor
    window_mean: Tensor
    previous: Tensor


def copies(cells: Tensor, visible: Tensor, window: int) -> Copies:
    """The copies of ``cells [B, T, H, W, D]`` (in target space), ``visible [B, T, H, W]`` bool and not padding."""
    b, t, h, w, d = cells.shape
    n = -(-t // window)
    pad = (0, 0, 0, 0, 0, n * window - t)
    seen = F.pad(visible, pad).view(b, n, window, h, w)
    kept = F.pad(cells * visible[..., None], (0, 0, *pad)).view(b, n, window, h, w, d)

    def spread(x: Tensor) -> Tensor:
        """``[B, n, 1, ...]`` over the frames of its window."""
        return x.expand(b, n, window, h, w, x.shape[-1]).reshape(b, n * window, h, w, -1)[:, :t]

    total, count = kept.sum((2, 3, 4)), seen.sum((2, 3, 4))[..., None]
    video = total.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
    whole = torch.where(count > 0, total / count.clamp(min=1), video)
    window_mean = spread(whole[:, :, None, None, None])
    place, times = kept.sum(2, keepdim=True), seen.sum(2, keepdim=True)[..., None]
    mean = torch.where(spread(times) > 0, spread(place / times.clamp(min=1)), window_mean)

    frame = torch.arange(t, device=cells.device)[None, :, None, None]
    latest = torch.where(visible, frame, -1).cummax(1).values
    earlier = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)
    index = earlier.clamp(min=0)[..., None].expand_as(cells)
    previous = torch.where(earlier[..., None] >= 0, cells.gather(1, index), mean)
    return Copies(mean, window_mean, previous)
