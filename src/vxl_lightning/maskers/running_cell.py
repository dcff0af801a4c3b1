"""Hide slots of small cells of places, moving on by one slot each frame."""

import torch
from torch import Tensor

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import hidden_counts, uniform_noise
from vxl_lightning.tokens import VideoGrid

SIDE = 2
SLOTS = SIDE * SIDE


class RunningCellMasker(Masker):
    """Every 2 x 2 places of a frame hide the same slots; from frame to frame the slots rotate by one.

    The running cell masking of VideoMAE V2 (arXiv 2303.16727). Slots count along rows; in frame t the slots ``s`` with
    ``(s + t + start) % 4 < hidden slots`` are hidden, ``start`` being drawn once a video. In any four frames every
    place is hidden equally often, so what is hidden in one frame is seen at its place a few frames on.

    Two things differ. The paper chooses with it what the decoder rebuilds (0.5, the default here too) of what a tube
    mask hid from the encoder; here it says what the compressor does not see. And the paper's ratios are quarters:
    between two of them the cells of one more slot are hidden in part, those that the generator draws, so that the
    count is exact. Grids of odd height or width cut the last row or column of 2 x 2 places.
    """

    origin = "VideoMAE V2 (arXiv 2303.16727; OpenGVLab/VideoMAEv2, MIT)"

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        b, t, h, w, _ = grid.shape
        start = torch.randint(SLOTS, (b,), generator=generator, device=generator.device).to(grid.features.device)
        # Noise below 1 orders the cells of one turn and never exchanges turns.
        score = uniform_noise(grid, generator) / 2 - turns(t, h, w, start)
        return Mask(hide_top(score, grid, hidden_counts(self, grid)))


def turns(frames: int, height: int, width: int, start: Tensor) -> Tensor:
    """``[B, T, H, W]`` the turn of each cell's slot, 0 hidden first, 3 last; ``start [B]`` is slot 0's in frame 0."""
    t, y, x = (torch.arange(n, device=start.device) for n in (frames, height, width))
    slot = SIDE * (y % SIDE)[:, None] + x % SIDE
    return (slot + (t[:, None, None] + start[:, None, None, None])) % SLOTS
