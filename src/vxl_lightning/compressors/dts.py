"""The Dynamic Token Synthesizer: attention inside a group of frames, then one slot out of many."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.compressors.base import GroupCompressor, Groups, blocks
from vxl_lightning.compressors.pool import block_source, block_weights
from vxl_lightning.compressors.strided_conv import HalveSlots

# Below this many positions the fused attention costs more to enter than it saves (measured on CPU, 16 positions: 1.5x).
SHORT_SEQUENCE = 64


def norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: 32 where they divide the channels, else the largest divisor below."""
    return next(n for n in range(min(32, channels), 0, -1) if channels % n == 0)


class SpatialAttention(nn.Module):
    """Single-head self-attention over the H x W positions of each slot, with a residual.

    GroupNorm takes its statistics over the slots and positions of the group together. The output
    projection starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x [G, S, P, C]``: S slots of P positions."""
        g, s, p, c = x.shape
        # Channels stay last throughout: the norm is shown a transposed view, for which it has its own kernel.
        normed = self.norm(x.reshape(g, s * p, c, 1).transpose(1, 2)).transpose(1, 2).reshape(g * s, p, c)
        q, k, v = self.qkv(normed).chunk(3, -1)
        if p <= SHORT_SEQUENCE:
            mixed = _softmax(q @ k.mT * c**-0.5) @ v
        else:
            mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        change: Tensor = self.out(mixed)
        return x + change.view_as(x)


class TemporalAttention(nn.Module):
    """Single-head self-attention over the S slots of each position, with relative positions for keys and values.

    score(i, j) = q_i . k_j / sqrt(C) + q_i . Rk[j - i] / C^(1/4)
    mixed(i) = sum_j softmax(score)(i, j) (v_j + Rv[j - i])

    GroupNorm takes its statistics over the slots of one position. The output projection starts at zero.
    """

    def __init__(self, channels: int, slots: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.relative_k = nn.Parameter(torch.empty(2 * slots - 1, channels))
        self.relative_v = nn.Parameter(torch.empty(2 * slots - 1, channels))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.relative_k, std=0.02)
        nn.init.normal_(self.relative_v, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``x [G, S, P, C]``: S slots of P positions."""
        g, s, p, c = x.shape
        y = x.transpose(1, 2).reshape(g * p, s, c, 1)
        normed = self.norm(y.transpose(1, 2)).transpose(1, 2).reshape(g * p, s, c)
        q, k, v = self.qkv(normed).chunk(3, -1)
        q, k = q * c**-0.25, k * c**-0.25
        slot = torch.arange(s, device=x.device)
        distance = slot[None, :] - slot[:, None] + s - 1  # [query, key]: key - query, from 0
        # Scores against the 2S-1 rows of the table, then the row each (query, key) pair stands at.
        relative = (q @ self.relative_k.T).gather(2, distance.expand(g * p, s, s))
        attention = _softmax(q @ k.mT + relative)
        by_distance = attention.new_zeros(g * p, s, 2 * s - 1).scatter(2, distance.expand(g * p, s, s), attention)
        mixed = attention @ v + by_distance @ self.relative_v
        change: Tensor = self.out(mixed)
        return x + change.view(g, p, s, c).transpose(1, 2)


class DynamicTokenSynthesizer(GroupCompressor):
    """Attention over space and over time inside each group, then a reduction to ``retention`` of its cells.

    ``frames + temporal encoding -> [spatial attention, temporal attention] x n -> reduction``, where the reduction is

    - ``conv``, as published: after each attention pair a strided 3-D convolution halves the slots until one is left,
      which is then averaged over space to the block grid that ``retention`` asks for;
    - ``saliency``: each block's token is the mean of its cells (all frames of the group) weighted by the softmax, in
      float32, of a learned score, which starts at zero.

    Differences from the publication: any channel count and group length; the attention outputs, the temporal encoding
    and (with ``residual``) the convolutions start at zero and add to the mean, so that an untrained module equals
    `Pool` on whole groups, where the published one starts as random convolutions; relative tables have a row for each
    of the 2S-1 distances that occur. The release's reinterpretation of memory as time and its transposed relative term
    are not inherited. A video's last group is filled with its last frame, as published; those copies take part in the
    attention, and get no weight in the saliency mean.
    """

    trainable = True
    origin = "Video-XL-Pro, arXiv 2503.18478 (released code Apache-2.0); clean-room, from a written description"

    @dataclass(frozen=True, kw_only=True)
    class Config(GroupCompressor.Config):
        frames_per_group: int = 4
        """Frames that become one slot; a power of two for the convolutional reduction."""
        reduction: Literal["conv", "saliency"] = "conv"
        """How a group becomes one slot: strided 3-D convolutions, as published, or a saliency-weighted mean."""
        depth: int = 2
        """Attention pairs before the saliency mean. The convolutional reduction has log2(frames_per_group) of them."""
        channels: int | None = None
        """Working width, entered and left by a linear map around which the mean goes; None is the width of the grid."""
        residual: bool = True
        """Convolutions add to the mean of what they reduce. False is the published module."""

        def __post_init__(self) -> None:
            super().__post_init__()
            size = self.frames_per_group
            if self.reduction not in ("conv", "saliency"):
                raise ValueError(f"reduction={self.reduction!r} is not one of conv, saliency")
            if size < 1 or (self.reduction == "conv" and size & (size - 1)):
                raise ValueError(
                    f"frames_per_group={size} must be a power of two for reduction=conv, which halves it; "
                    "take 2, 4, 8 or reduction=saliency"
                )
            if self.depth < 0:
                raise ValueError(f"depth={self.depth} must be at least 0")
            if self.channels is not None and self.channels < 1:
                raise ValueError(f"channels={self.channels} must be at least 1, or null for the width of the grid")

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__(config, dim)
        self.frames_per_group = slots = config.frames_per_group
        width = config.channels or dim
        self.temporal_encoding = nn.Parameter(torch.zeros(slots, width))
        self.enter = nn.Linear(dim, width) if config.channels else None
        self.leave = nn.Linear(width, dim) if config.channels else None
        self.saliency = nn.Linear(width, 1, bias=False) if config.reduction == "saliency" else None
        self.blocks = nn.ModuleList()
        if self.saliency is not None:
            nn.init.zeros_(self.saliency.weight)
            for _ in range(config.depth):
                self.blocks.extend((SpatialAttention(width), TemporalAttention(width, slots)))
        else:
            for _ in range(int(math.log2(slots))):
                conv = HalveSlots(width, zero=config.residual)
                self.blocks.extend((SpatialAttention(width), TemporalAttention(width, slots), conv))
                slots //= 2
        if self.leave is not None and self._skip:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)

    @property
    def _skip(self) -> bool:
        return bool(self.config.residual or self.config.reduction == "saliency")

    def block_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a group's tokens."""
        return blocks(self.group_size * height * width, self.config.retention, height, width)

    def tokens_per_group(self, height: int, width: int) -> int:
        rows, cols = self.block_grid(height, width)
        return rows * cols

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        rows, cols = self.block_grid(h, w)
        cells = groups.features.to(self.temporal_encoding.dtype)
        x = cells if self.enter is None else self.enter(cells)
        x = (x + self.temporal_encoding[:, None, None]).flatten(2, 3)
        for block in self.blocks:
            if isinstance(block, HalveSlots):
                mean = x.unflatten(1, (-1, 2)).mean(2) if self.config.residual else 0
                x = block(x.unflatten(2, (h, w))).flatten(2, 3) + mean
            else:
                x = block(x)
        # x is [G, S, H*W, C]: all slots for the saliency mean, one after the convolutions.
        if self.saliency is not None:
            weights = block_weights(self.saliency(x).view(g, f, h, w), groups.valid, rows, cols)
        else:
            one = groups.valid[:, :1]
            weights = block_weights(x.new_zeros(g, 1, h, w), one, rows, cols)
        tokens = weights.to(x.dtype) @ x.flatten(1, 2)
        if self.leave is not None:
            tokens = self.leave(tokens)
            if self._skip:
                kept = cells if self.saliency is not None else cells.mean(1)
                tokens = tokens + weights.to(x.dtype) @ kept.reshape(g, -1, d)
        return tokens.to(groups.features.dtype), block_source(groups, rows, cols)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 16, "reduction": "saliency"},
            {"retention": 1 / 4, "residual": False, "channels": 16},
            {"retention": 4 / 48, "frames_per_group": 3, "reduction": "saliency", "channels": 24, "depth": 1},
        ]


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, taken in float32."""
    return scores.float().softmax(-1).to(scores.dtype)
