"""Frames of a video as vision towers take them: resized, cropped, normalised, cut into patches."""

import math
import warnings

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from vxl_lightning.errors import UserError
from vxl_lightning.hub.settings import Settings

STEEPEST = 200
"""Sides may not differ more than this many times: whole cells of such a frame would be no likeness of it."""


def resized(frames: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Frames of another size, antialiased; bytes are mixed as bytes, as Pillow and torchvision do on the CPU.

    Args:
        frames: uint8 ``[T, 3, h, w]`` on the CPU.
        height: wanted.
        width: wanted.
        mode: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest-exact``.

    Returns:
        uint8 ``[T, 3, height, width]``.
    """
    size = (height, width)
    if frames.shape[-2:] == size:
        return frames
    if mode == "nearest-exact":
        return interpolate(frames, size, mode=mode)
    if mode == "lanczos":
        try:
            return interpolate(frames, size, mode=mode, antialias=True)
        except (NotImplementedError, ValueError):
            # The processors too take the nearest that there is.
            warnings.warn("PyTorch before 2.13 has no Lanczos filter: frames are resized by bicubic", stacklevel=2)
            mode = "bicubic"
    return interpolate(frames, size, mode=mode, antialias=True)


def cropped(frames: Tensor, height: int, width: int) -> Tensor:
    """The middle ``[T, 3, height, width]`` of frames, with black around those that are smaller."""
    tall, wide = (max(0, want - have) for want, have in zip((height, width), frames.shape[-2:], strict=True))
    frames = pad(frames, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
    top, left = (frames.shape[-2] - height) // 2, (frames.shape[-1] - width) // 2
    return frames[..., top : top + height, left : left + width]


def normalised(frames: Tensor, settings: Settings) -> Tensor:
    """float32 like ``frames``: bytes as parts of one, less a mean, by a deviation, where ``settings`` ask for them."""
    factor = float(settings.video["rescale_factor"])
    if not settings.video["do_normalize"]:
        return frames * factor if settings.video["do_rescale"] else frames.float()
    # Mean and deviation are those of bytes, so that a long video is gone through once less.
    unit = 1.0 / factor if settings.video["do_rescale"] else 1.0
    mean, std = (
        torch.tensor(settings.video[name], dtype=torch.float32).view(-1, 1, 1) * unit
        for name in ("image_mean", "image_std")
    )
    return frames.float().sub_(mean).div_(std)


def whole_cells(
    height: int, width: int, side: int, fewest: int, most: int, frames: int = 1, counted: int = 1
) -> tuple[int, int]:
    """The size nearest to a frame's that is whole cells and has neither too few nor too many pixels.

    Args:
        height: of the frame.
        width: of the frame.
        side: of a cell, in pixels.
        fewest: pixels allowed.
        most: pixels allowed.
        frames: over which pixels are counted.
        counted: the same in whole frames of cells, which decides whether there are too few or too many.

    Raises:
        UserError: a frame that is all but a line.
    """
    if max(height, width) / min(height, width) > STEEPEST:
        raise UserError(
            f"frames of {height} x {width} pixels cannot be shown: one side may be at most {STEEPEST} times the other; "
            "crop the video first"
        )
    high, wide = (round(edge / side) * side for edge in (height, width))
    if counted * high * wide > most:
        scale = math.sqrt(frames * height * width / most)
        high, wide = (max(side, math.floor(edge / scale / side) * side) for edge in (height, width))
    elif counted * high * wide < fewest:
        scale = math.sqrt(fewest / (frames * height * width))
        high, wide = (math.ceil(edge * scale / side) * side for edge in (height, width))
    return high, wide


def patches(frames: Tensor, patch: int, merge: int, together: int) -> tuple[Tensor, Tensor]:
    """Frames cut into patches, those of a cell behind one another; the last frame is repeated to fill its group.

    Args:
        frames: ``[T, 3, h, w]``.
        patch: side of a patch.
        merge: patches of a cell along a side.
        together: frames that one patch spans.

    Returns:
        ``[P, 3 * together * patch * patch]`` in the order of time, cell row, cell column, row and column in the cell,
        and ``[1, 3]`` int64, how many there are in time, height and width.

    Raises:
        UserError: frames that are not whole cells.
    """
    if missing := -len(frames) % together:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    t, channels, height, width = frames.shape
    side = patch * merge
    if height % side or width % side:
        raise UserError(
            f"frames of {height} x {width} pixels are no whole cells of {side} x {side}, and do_resize=False in the "
            "folder's video settings; allowed: multiples of that. Set do_resize=True"
        )
    cut = frames.reshape(t // together, together, channels, height // side, merge, patch, width // side, merge, patch)
    cut = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * together * patch * patch)
    return cut, torch.tensor([[t // together, height // patch, width // patch]])
