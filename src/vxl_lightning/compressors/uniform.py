"""Whole frames, uniformly spaced: what most video language models do instead of compressing."""

from typing import Any

import torch
from torch import Tensor

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.tokens import VideoGrid, VideoTokens


class UniformFrames(Compressor):
    """All cells of ``retention * T`` frames (rounded half up, at least one), each from the middle of its stretch.

    The T frames of a video are cut into as many equal stretches as frames are kept. Which are kept depends on T,
    so it is not causal.
    """

    origin = "Baseline; written here from scratch"

    def num_tokens(self, num_frames: int, height: int, width: int) -> int:
        return self._kept(num_frames) * height * width

    def _kept(self, frames: int) -> int:
        return max(1, int(frames * self.config.retention + 0.5))  # a video of a few frames is not lost

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        b, t, h, w, d = grid.shape
        device = grid.features.device
        source = torch.full((b, t, h, w), -1, dtype=torch.long, device=device)
        parts = []
        for video, frames in enumerate(grid.num_frames.tolist()):
            count = self._kept(frames)
            kept = (2 * torch.arange(count, device=device) + 1) * frames // (2 * count)
            source[video, kept] = torch.arange(count * h * w, device=device).view(count, h, w)
            parts.append(grid.features[video, kept].reshape(-1, d))
        lengths = torch.tensor([len(p) for p in parts], device=device)
        return VideoTokens.carry(torch.cat(parts), lengths, source, grid)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 4}, {"retention": 1 / 16}, {"retention": 0.7}]
