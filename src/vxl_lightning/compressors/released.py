"""What Video-XL-Pro's release does with the frames of a group, and with frames that fill none."""

import torch
from torch import Tensor

GROUP_FRAMES = 4
"""Frames of a group."""
REACH = 64
"""Farthest distance that the relative tables have a row for."""
GROUPS_AT_ONCE = 24
"""Groups that go through the module together: what it holds of a long video is then bounded."""


def released_slots(cells: Tensor) -> Tensor:
    """The slots that Video-XL-Pro's release makes of a group's frames: ``[G, F, H, W, D]`` to the same shape.

    The release takes the memory of ``[F, D, H, W]`` for ``[D, F, H, W]``. So slot s of channel d is, cell by cell,
    channel (F d + s) mod D of frame (F d + s) div D: neighbouring channels of one frame stand where frames should.
    """
    _, f, _, _, d = cells.shape
    slots: Tensor = cells.movedim(1, 3).flatten(3).unflatten(3, (d, f)).movedim(4, 1)
    return slots


def spread_frames(num_frames: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Frames in order, some doubled evenly over the video, so that they come to whole groups.

    Args:
        num_frames: ``[B]``.
        size: frames of a group. A video with fewer repeats its last one.

    Returns:
        ``frame [B, S]``, which frame stands in each slot, never descending; ``[B, S]``, the slots a video fills.
    """
    slots = (num_frames + size - 1) // size * size
    slot = torch.arange(int(slots.max()), device=num_frames.device)
    evenly = slot * num_frames[:, None] // slots[:, None]
    frame = torch.where(num_frames[:, None] < size, slot.expand_as(evenly), evenly)
    return torch.minimum(frame, num_frames[:, None] - 1), slot < slots[:, None]
