"""Hide the same places in every frame of a stretch of video."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vxl_lightning.maskers.base import Mask, Masker, hide_top
from vxl_lightning.maskers.random import hidden_counts
from vxl_lightning.tokens import VideoGrid


class TubeMasker(Masker):
    """Random places, hidden through time (the tube masking of VideoMAE, arXiv 2203.12602).

    Copying from another frame of the tube is impossible. Where the paper masks one clip, here
    ``frames`` sets how long a tube is. Every tube hides the same number of places; when the exact
    count is not a multiple of that, one more place is hidden in the earliest frames.
    """

    origin = "VideoMAE (arXiv 2203.12602), written from the paper"

    @dataclass(frozen=True, kw_only=True)
    class Config(Masker.Config):
        frames: int | None = None
        """Frames of one tube; None hides the same places in the whole video."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames is not None and self.frames < 1:
                raise ValueError(f"frames={self.frames} must be at least 1, or null for the whole video")

    config: Config

    def mask(self, grid: VideoGrid, generator: torch.Generator) -> Mask:
        # The score is minus the place's rank in its own tube, so all tubes hide the same ranks.
        b, t, h, w, _ = grid.shape
        score = torch.zeros(b, t, h * w)
        for row, n in zip(score, grid.num_frames.tolist(), strict=True):
            length = self.config.frames or n
            tubes = -(-n // length)
            rank = _ranks(torch.rand(tubes, h * w, generator=generator, device=generator.device).cpu())
            row[:n] = -rank.repeat_interleave(length, 0)[:n].float()
        return Mask(hide_top(score.view(b, t, h, w).to(grid.features.device), grid, hidden_counts(self, grid)))

    @classmethod
    def get_test_params(cls) -> list[dict[str, float | int]]:
        return [{"ratio": 0.5}, {"ratio": 0.75, "frames": 4}]


def _ranks(noise: Tensor) -> Tensor:
    """``[..., N]`` rank of each entry within its row."""
    return noise.argsort(dim=-1, stable=True).argsort(dim=-1)
