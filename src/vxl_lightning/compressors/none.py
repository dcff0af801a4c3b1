"""No compression: every cell is a token. The row every ablation compares with."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups


class NoCompression(GroupCompressor):
    """Every cell of every frame, in raster order, unchanged."""

    origin = "Baseline; written here from scratch"
    frames_per_group = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        retention: float = 1.0
        """Always 1."""

        def __post_init__(self) -> None:
            if self.retention != 1:
                raise ValueError(
                    f"retention={self.retention}: the compressor 'none' keeps every cell, so only 1 is allowed; "
                    "to keep fewer choose another, such as pool"
                )

    def block_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a frame's tokens."""
        return height, width

    def tokens_per_group(self, height: int, width: int) -> int:
        return height * width

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        source = torch.arange(f * h * w, device=groups.features.device).view(f, h, w).expand(g, f, h, w)
        return groups.features.reshape(g, f * h * w, d), source

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{}]
