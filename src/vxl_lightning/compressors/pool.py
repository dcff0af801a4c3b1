"""Pooling: each block of cells becomes its mean or its maximum. The baseline every learned method must beat."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vxl_lightning.compressors.base import GroupCompressor, Groups, blocks


def block_of_cell(rows: int, cols: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """``[height, width]`` int64: which block, of ``rows x cols``, each cell of a frame falls in.

    A partition, as even as the sizes allow. Where they do not divide, `torch.nn.AdaptiveAvgPool2d` lets
    neighbouring windows overlap; here every cell belongs to one token, so that ``source`` can say which.
    """
    row = torch.arange(height, device=device) * rows // height
    col = torch.arange(width, device=device) * cols // width
    return row[:, None] * cols + col


def block_source(groups: Groups, rows: int, cols: int) -> Tensor:
    """``[G, F, H, W]``: the token that carries each cell when all frames of a block become one token."""
    g, f, h, w, _ = groups.features.shape
    return block_of_cell(rows, cols, h, w, groups.features.device).expand(g, f, h, w)


def block_weights(score: Tensor, valid: Tensor, rows: int, cols: int) -> Tensor:
    """Softmax of each block's scores over its own cells, in float32.

    Args:
        score: ``[G, F, H, W]``; equal scores give the plain mean.
        valid: ``[G, F]``; the cells of other frames get no weight.

    Returns:
        ``[G, rows * cols, F * H * W]``: row k weighs the cells of block k and is zero elsewhere.
    """
    g, f, h, w = score.shape
    block = block_of_cell(rows, cols, h, w, score.device)
    inside = block.flatten() == torch.arange(rows * cols, device=score.device)[:, None]  # [K, H*W]
    open_ = inside[None, :, None] & valid[:, None, :, None]  # [G, K, F, H*W]
    masked = score.float().reshape(g, 1, f, h * w).masked_fill(~open_, float("-inf"))
    return masked.flatten(2).softmax(-1)


def block_means(frames: Tensor, rows: int, cols: int) -> Tensor:
    """Mean of each block's cells in float32, rows and columns one after the other: work that hardly grows with blocks.

    Args:
        frames: ``[..., H, W, D]``.
        rows: of blocks, see `block_of_cell`.
        cols: likewise.

    Returns:
        ``[..., rows * cols, D]``.
    """
    *leading, h, w, d = frames.shape
    down, across = _shares(rows, h, frames.device), _shares(cols, w, frames.device)
    bands = down @ frames.float().reshape(-1, h, w * d)  # [N, rows, W * D]
    means = across @ bands.reshape(-1, w, d)
    return means.reshape(*leading, rows * cols, d)


def _shares(blocks: int, length: int, device: torch.device) -> Tensor:
    """``[blocks, length]``: what each place of a line gives to the mean of each block."""
    block = block_of_cell(1, blocks, 1, length, device)[0]
    inside = (block == torch.arange(blocks, device=device)[:, None]).float()
    return inside / inside.sum(1, keepdim=True)


class Pool(GroupCompressor):
    """Temporal x spatial adaptive pooling, one block of ``frames_per_group`` frames and some cells a token.

    The block grid is the one ``retention`` asks for (see `blocks`). Frames that only fill a video's last
    group are left out. Means are taken in float32.
    """

    origin = "Baseline, found throughout the field (e.g. the 2x2 pooling of LLaVA-OneVision); written here from scratch"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames that are pooled together."""
        mode: Literal["mean", "max"] = "mean"
        """What a block becomes: its mean, or the maximum of each channel."""
        block_aspect: float = 1.0
        """Width over height, in cells, that blocks come as near to as the retention allows; 2 pools two of a row."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.frames_per_group < 1:
                raise ValueError(f"frames_per_group={self.frames_per_group} must be at least 1")
            if self.mode not in ("mean", "max"):
                raise ValueError(f"mode={self.mode!r} is not one of mean, max")
            if not 0 < self.block_aspect < float("inf"):
                raise ValueError(f"block_aspect={self.block_aspect} must be above 0; 1 is a square of cells")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = config.frames_per_group

    def block_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a group's tokens."""
        cells = self.group_size * height * width
        return blocks(cells, self.config.retention, height, width, self.config.block_aspect)

    def tokens_per_group(self, height: int, width: int) -> int:
        rows, cols = self.block_grid(height, width)
        return rows * cols

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        rows, cols = self.block_grid(h, w)
        source = block_source(groups, rows, cols)
        if self.config.mode == "mean":
            share = groups.valid / groups.valid.sum(1, keepdim=True)  # [G, F]: copies of the last frame have none
            pooled = block_means(torch.einsum("gf,gfhwd->ghwd", share, groups.features.float()), rows, cols)
        else:
            low = groups.features.masked_fill(~groups.valid[:, :, None, None, None], float("-inf")).reshape(g, -1, d)
            index = source.reshape(g, -1, 1).expand_as(low)
            pooled = low.new_full((g, rows * cols, d), float("-inf")).scatter_reduce(1, index, low, "amax")
        return pooled.to(groups.features.dtype), source

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 4},
            {"retention": 1 / 8, "frames_per_group": 2, "mode": "max"},
            {"retention": 6 / 48, "frames_per_group": 3},
        ]
