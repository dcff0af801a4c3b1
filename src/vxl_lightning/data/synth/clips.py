"""Clips cut from footage: random crops, speeds, pans, zooms and colours, so that little footage looks like much.

Masked reconstruction over-fits at once on a few films and generalises on diverse clips of the same films;
photographs become clips by moving the crop window across them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SPEEDS = (1, 2, 3, 4, 6)  # frames of footage per frame of clip


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How far a clip may depart from its footage."""

    min_crop: float = 0.25
    """Smallest side of the crop window, as a fraction of the frame's short side."""
    jitter: float = 0.3
    """Brightness, contrast and saturation are scaled by up to one plus or minus this."""
    swap: float = 0.5
    """Probability that the colour channels are permuted."""


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform in ``[low, high)``."""
    return int(torch.randint(low, high, (), generator=generator))


def cut_clip(footage: Tensor, num_frames: int, size: int, variety: Variety, generator: torch.Generator) -> Tensor:
    """A clip of moving pictures from a film or a photograph.

    Args:
        footage: uint8 ``[T, 3, h, w]``; T = 1 is a photograph and always gets a moving window.
        num_frames: frames of the clip; a film too short for its speed is played forth and back.
        size: side of the clip's square frames in px.
        variety: how much to vary.
        generator: the only source of chance.

    Returns:
        uint8 ``[num_frames, 3, size, size]``.
    """
    frames = footage[_frame_index(len(footage), num_frames, generator)]
    windows = _windows(frames.shape[2], frames.shape[3], num_frames, len(footage) == 1, variety.min_crop, generator)
    clip = _crop(frames, windows, size)
    if integer(0, 2, generator):
        clip = clip.flip(-1)
    return _recolour(clip, variety, generator)


def _frame_index(available: int, wanted: int, generator: torch.Generator) -> Tensor:
    speed = SPEEDS[integer(0, len(SPEEDS), generator)]
    span = (wanted - 1) * speed
    start = integer(0, max(available - span, 1), generator)
    index = start + speed * torch.arange(wanted)
    if available == 1:
        return torch.zeros_like(index)
    folded = index % (2 * available - 2)
    return torch.minimum(folded, 2 * available - 2 - folded)


def _windows(
    height: int, width: int, count: int, moving: bool, min_crop: float, generator: torch.Generator
) -> list[tuple[int, int, int]]:
    """(top, left, side) of every frame's square window: still, or gliding from one place and scale to another."""
    short = min(height, width)

    def place() -> tuple[float, float, float]:
        side = short * uniform(min_crop, 1.0, generator)
        return uniform(0, height - side, generator), uniform(0, width - side, generator), side

    first = place()
    last = place() if moving or integer(0, 4, generator) == 0 else first
    steps = torch.linspace(0, 1, count).tolist()
    return [
        (
            int(first[0] + s * (last[0] - first[0])),
            int(first[1] + s * (last[1] - first[1])),
            int(first[2] + s * (last[2] - first[2])),
        )
        for s in steps
    ]


def _crop(frames: Tensor, windows: Sequence[tuple[int, int, int]], size: int) -> Tensor:
    if len(set(windows)) == 1:
        top, left, side = windows[0]
        return _resize(frames[:, :, top : top + side, left : left + side], size)
    parts = [_resize(f[None, :, t : t + s, x : x + s], size) for f, (t, x, s) in zip(frames, windows, strict=True)]
    return torch.cat(parts)


def _resize(frames: Tensor, size: int) -> Tensor:
    return F.interpolate(frames.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)


def _recolour(clip: Tensor, variety: Variety, generator: torch.Generator) -> Tensor:
    """One change of colour for the whole clip. ``clip`` is float 0 to 255."""
    brightness, contrast, saturation = (uniform(1 - variety.jitter, 1 + variety.jitter, generator) for _ in range(3))
    swapped = uniform(0, 1, generator) < variety.swap
    order = torch.randperm(3, generator=generator)
    if swapped:
        clip = clip[:, order]
    grey = clip.mean(1, keepdim=True)
    clip = grey + saturation * (clip - grey)
    middle = float(grey.mean())
    clip = (middle + contrast * (clip - middle)) * brightness
    return clip.round_().clamp_(0, 255).byte()
