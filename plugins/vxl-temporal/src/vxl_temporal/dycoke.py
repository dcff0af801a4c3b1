"""Temporal token merging: of every four frames one is whole, and of the others what differs most from it is kept."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import budget_tokens
from vxl_lightning.tokens import VideoGrid
from vxl_temporal.change import least, similarity
from vxl_temporal.frames import FrameCompressor, FrameState, at_home

GROUP = 4

COMPARED = ((1, 1, 2), (2, 2, 4))
"""With how many frames before it a frame is compared, the first of a group that is, and from how many frames on again.
The first frame of a group is kept whole."""


class TemporalTokenMerging(FrameCompressor):
    """Keeps the first of every four frames, and of the other three the cells least like an earlier frame's.

    Cells are compared by cosine with those at their places: in frames 1 and 3 of a group with the frame just before, in
    frame 2 with frame 0; that frame is looked at complete. Kept cells are unchanged and stay in order; among equals the
    earliest wins. A group becomes ``retention`` of its cells, rounded half up: what frame 0 leaves is shared equally by
    the other three, the earlier getting what cannot be shared. An incomplete last group is treated like the beginning
    of a whole one. Two frames are remembered, and no token waits for the frames after it.

    The published merging ratio K, the share of the most similar cells that frames 1 to 3 lose, follows from the
    retention and the other way about: ``retention = (1 + 3 * (1 - K)) / 4``. The default is K = 0.7; less than a
    quarter cannot be kept.

    After Tao et al., "DyCoke" (arXiv 2411.15024), its first stage; the second prunes a language model's cache while it
    answers, which is no task of a compressor. Differs from its code: that rounds each frame's share down, keeps tokens
    in the order of their similarity, drops a video's last frame where the number of frames is odd, leaves frame 2 of
    the last group whole where no other frame follows, and fails on fewer than five frames. Here similarities are
    rounded to 1e-6, so that cells that did not change tie.
    """

    origin: ClassVar[str] = "DyCoke (arXiv 2411.15024; KD-TAO/DyCoke, Apache-2.0)"
    api_version: ClassVar[str] = "1"
    frames_per_group = GROUP
    lookback: ClassVar[int] = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(FrameCompressor.Config):
        retention: float = 0.475
        """Fraction of grid cells that reach the language model, from 0.25 to 1; 0.475 is a merging ratio of 0.7."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.retention < 1 / GROUP:
                raise ValueError(
                    f"retention={self.retention:.6g} is less than one frame of {GROUP}, which is kept whole; from 0.25 "
                    "to 1 is allowed, nearest that works: 0.25"
                )

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        kept = self._kept(height * width)
        return num_frames // GROUP * sum(kept) + sum(kept[: num_frames % GROUP])

    def _kept(self, cells: int) -> list[int]:
        """Cells kept of each frame of a group."""
        share, over = divmod(budget_tokens(GROUP * cells, self.config.retention) - cells, GROUP - 1)
        return [cells, *(share + (frame < over) for frame in range(GROUP - 1))]

    def compress_frames(self, grid: VideoGrid, state: FrameState) -> tuple[Tensor, Tensor]:
        b, t, h, w, _ = grid.shape
        device, past = grid.features.device, state.past.shape[1]
        frames = torch.cat([state.past, grid.features], 1) if past else grid.features
        similar = torch.zeros(b, t, h, w, device=device)
        for lag, place, every in COMPARED:
            first = (place - state.seen) % every
            of_them = similar[:, first::every]
            before = frames[:, past + first - lag :: every][:, : of_them.shape[1]]
            of_them.copy_(similarity(grid.features[:, first::every], before))
        of_group = (state.seen + torch.arange(t, device=device)) % GROUP
        kept = torch.tensor(self._kept(h * w), device=device)[of_group]
        return grid.features, at_home(least(similar, kept.expand(b, t)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}, {"retention": 1 / 4}, {"retention": 0.6}, {"retention": 1.0}]
