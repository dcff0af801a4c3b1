"""Differential token drop: a cell is dropped where it is like what stood at its place a frame before."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.tokens import VideoGrid
from vxl_temporal.change import least, similarity_to_previous
from vxl_temporal.frames import FrameCompressor, FrameState, at_home

MODES = ("absolute", "relative")


class DifferentialTokenDrop(FrameCompressor):
    """Drops a cell whose cosine to the cell at its place in the previous frame passes a threshold.

    The previous frame is looked at complete, with what was dropped of it, and the first frame is kept whole. Kept cells
    are unchanged and stay in order. How many are kept depends on the content, so ``num_tokens`` is a bound, and
    ``retention`` says which: through every frame ``t = 1, 2, ...`` of a video, no more than

        ``H * W * max(retention * t, 1 + retention * (t - 1) / 2)``

    cells were kept so far, rounded half up. The second term lends the first frame its cells, and half of what later
    frames are due pays them back: from frame ``2 / retention - 1`` on the bound is ``retention`` of all cells seen, and
    before it every frame still has something. What a still stretch leaves over is saved for the next change. Where a
    frame has more changed cells than the bound leaves it, the most changed are kept, the earliest among equals.

    - ``mode=absolute``: cells above ``threshold`` are dropped, and those that the bound does not leave room for. With
      ``retention=1``, the default, no cell is dropped by the bound: the published method.
    - ``mode=relative``: there is no threshold; every frame keeps its most changed cells, and exactly the announced
      number of tokens is kept at all times. Once the first frame is paid back each frame keeps ``retention`` of its
      cells, which is the published method with a drop ratio of ``1 - retention``.

    After Yao et al., "TimeChat-Online" (arXiv 2504.17343), section 3, the comparison of features; the comparison of
    pixels is left out because a compressor is given none. Differs: the bound, which the original lacks (its relative
    mode keeps the first frame on top of the ratio); similarities are rounded to 1e-6, so that cells that did not change
    tie and the earliest is kept.
    """

    origin: ClassVar[str] = "TimeChat-Online (arXiv 2504.17343; yaolinli/TimeChat-Online, BSD-3-Clause)"
    api_version: ClassVar[str] = "1"
    budget: ClassVar[str] = "bound"

    @dataclass(frozen=True, kw_only=True)
    class Config(FrameCompressor.Config):
        retention: float = 1.0
        """The most that is kept: this fraction of the grid cells seen so far, once the first frame is paid back."""
        mode: str = "absolute"
        """``absolute``: a threshold decides, within the bound; ``relative``: the most changed use it up."""
        threshold: float = 0.5
        """A cell whose cosine to its predecessor is above this is dropped; for ``absolute``."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.mode not in MODES:
                raise ValueError(f"mode={self.mode!r} is not one of {', '.join(MODES)}")
            if not -1 <= self.threshold <= 1:
                raise ValueError(f"threshold={self.threshold} is a cosine, so from -1 to 1; 0.5 is the published one")

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return int(height * width * self._frames_worth(num_frames) + 0.5)

    def _frames_worth(self, frames: int) -> float:
        retention: float = self.config.retention
        return max(retention * frames, 1 + retention * (frames - 1) / 2)

    def compress_frames(self, grid: VideoGrid, state: FrameState) -> tuple[Tensor, Tensor]:
        _, t, h, w, _ = grid.shape
        similar = similarity_to_previous(grid.features, state.past)
        changed = torch.ones_like(similar, dtype=torch.bool)
        if self.config.mode == "absolute":
            changed = similar <= self.config.threshold
        wanted = changed.sum((2, 3)).cumsum(1)
        allowed = [self.num_tokens(state.seen + frame, h, w) for frame in range(1, t + 1)]
        # Kept so far, K, obeys K[t] = min(K[t-1] + wanted in t, allowed[t]); unrolled, the tightest bound yet wins.
        room = (torch.tensor(allowed, device=wanted.device) - wanted).cummin(1).values
        kept = wanted + torch.minimum(room, state.given[:, None])
        return grid.features, at_home(least(similar, kept.diff(dim=1, prepend=state.given[:, None])))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        # Cells drawn by chance are unlike their predecessors: a threshold about their mean drops half of them.
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 4, "mode": "relative"},
            {"retention": 0.6, "threshold": 0.0},
            {},
        ]
