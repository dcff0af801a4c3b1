"""The Dynamic Token Synthesizer: attention inside a group of frames, then one slot out of many."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.compressors.base import GroupCompressor, Groups, StreamState, blocks
from vxl_lightning.compressors.pool import block_source, block_weights
from vxl_lightning.compressors.released import GROUP_FRAMES, GROUPS_AT_ONCE, REACH, released_slots, spread_frames
from vxl_lightning.compressors.strided_conv import HalveSlots
from vxl_lightning.tokens import VideoGrid, VideoTokens

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

    Args:
        channels: C.
        slots: S; the tables have a row for each of the 2S-1 distances.
        released: as Video-XL-Pro's release has it: tables for distances up to 64, of which 2S-1 occur, and the
            relative term of the scores with query and key exchanged, q_j . Rk[i - j].
    """

    def __init__(self, channels: int, slots: int, released: bool = False) -> None:
        super().__init__()
        self.released = released
        self.reach = REACH if released else slots - 1
        self.norm = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.relative_k = nn.Parameter(torch.empty(2 * self.reach + 1, channels))
        self.relative_v = nn.Parameter(torch.empty(2 * self.reach + 1, channels))
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
        occurring = slice(self.reach - s + 1, self.reach + s)
        # Scores against the 2S-1 rows of the table, then the row each (query, key) pair stands at.
        relative = (q @ self.relative_k[occurring].T).gather(2, distance.expand(g * p, s, s))
        if self.released:
            relative = relative.mT
        attention = _softmax(q @ k.mT + relative)
        by_distance = attention.new_zeros(g * p, s, 2 * s - 1).scatter(2, distance.expand(g * p, s, s), attention)
        mixed = attention @ v + by_distance @ self.relative_v[occurring]
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
    of the 2S-1 distances that occur. A video's last group is filled with its last frame; those copies take part in the
    attention, and get no weight in the saliency mean.

    The released code is odd in places, and its weights work with those quirks alone. They are not inherited: all of
    them are behind ``released``. Then the four frames of a group are read as the release reads them (`released_slots`),
    the relative term is transposed (`TemporalAttention`), the convolutions are not residual, and ``pad`` may spread the
    copies that complete the last group, where the release draws at random the frames it doubles.
    """

    trainable = True
    origin = (
        "Video-XL-Pro, arXiv 2503.18478 (VectorSpaceLab/Video-XL, Apache-2.0); written from a description, "
        "compared with the released code"
    )

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
        released: bool = False
        """The released module with all of its quirks, for its weights (vxl convert); leave it off to train your own."""
        pad: Literal["last", "spread"] = "last"
        """How a released module's last group is completed: the last frame again, or frames doubled evenly over the
        video, as the release doubles frames drawn at random. A video of fewer frames than a group repeats its last."""

        def __post_init__(self) -> None:
            super().__post_init__()
            size = self.frames_per_group
            if self.pad not in ("last", "spread"):
                raise ValueError(f"pad={self.pad!r} is not one of last, spread")
            if self.pad == "spread" and not self.released:
                raise ValueError("pad=spread is for released=true; otherwise the last frame is repeated: pad=last")
            if self.released and (size, self.reduction, self.channels) != (GROUP_FRAMES, "conv", None):
                raise ValueError(
                    f"released=true is the released module as it is: leave frames_per_group={size}, "
                    f"reduction={self.reduction} and channels={self.channels} at {GROUP_FRAMES}, conv and null"
                )
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
        # Which frames are doubled depends on how many there are: a stream does not know.
        self.causal = config.pad == "last"  # type: ignore[misc]
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
                conv = HalveSlots(width, zero=self._adds_mean)
                attention = TemporalAttention(width, slots, config.released)
                self.blocks.extend((SpatialAttention(width), attention, conv))
                slots //= 2
        if self.leave is not None and self._skip:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)

    @property
    def _skip(self) -> bool:
        return bool(self.config.residual or self.config.reduction == "saliency")

    @property
    def _adds_mean(self) -> bool:
        """Whether the convolutions add to the mean of what they reduce."""
        return bool(self.config.residual and not self.config.released)

    def block_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a group's tokens."""
        return blocks(self.group_size * height * width, self.config.retention, height, width)

    def tokens_per_group(self, height: int, width: int) -> int:
        rows, cols = self.block_grid(height, width)
        return rows * cols

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        if self.config.pad == "last":
            return super().compress(grid, query)
        b, t, h, w, _ = grid.shape
        frame, padded = spread_frames(grid.num_frames, self.group_size)
        row = torch.arange(b, device=frame.device)[:, None]
        full = VideoGrid(grid.features[row, frame], grid.times[row, frame], padded)
        tokens = super().compress(full, query)
        # A doubled frame is carried where it stands first; what stood in for a video's padding carries nothing.
        first = torch.searchsorted(frame, torch.arange(t, device=frame.device).repeat(b, 1))
        source = tokens.source[row, first.clamp(max=frame.shape[1] - 1)]
        source = source.masked_fill(~grid.frame_mask[:, :, None, None], -1)
        return VideoTokens.carry(tokens.features, tokens.lengths, source, grid)

    def compress_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        g, f, h, w, d = groups.features.shape
        rows, cols = self.block_grid(h, w)
        cells = groups.features.to(self.temporal_encoding.dtype)
        if self.config.released:
            x = torch.cat([self._reduce(released_slots(part)) for part in cells.split(GROUPS_AT_ONCE)])
        else:
            x = self._reduce(cells if self.enter is None else self.enter(cells))
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

    def _reduce(self, x: Tensor) -> Tensor:
        """``[G, F, H, W, C]`` through the blocks, to ``[G, S, H * W, C]``."""
        h, w = x.shape[2:4]
        x = (x + self.temporal_encoding[:, None, None]).flatten(2, 3)
        for block in self.blocks:
            if isinstance(block, HalveSlots):
                mean = x.unflatten(1, (-1, 2)).mean(2) if self._adds_mean else 0
                x = block(x.unflatten(2, (h, w))).flatten(2, 3) + mean
            else:
                x = block(x)
        return x

    def step(
        self, chunk: VideoGrid, state: StreamState | None = None, *, query: Tensor | None = None, last: bool = False
    ) -> tuple[VideoTokens, StreamState]:
        if not self.causal:
            raise ValueError("pad=spread doubles frames over the whole video, which a stream does not know: pad=last")
        return super().step(chunk, state, query=query, last=last)

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [
            {"retention": 1 / 16},
            {"retention": 1 / 4, "released": True},
            {"retention": 1 / 16, "released": True, "pad": "spread"},
            {"retention": 1 / 16, "reduction": "saliency"},
            {"retention": 1 / 4, "residual": False, "channels": 16},
            {"retention": 4 / 48, "frames_per_group": 3, "reduction": "saliency", "channels": 24, "depth": 1},
        ]


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, taken in float32."""
    return scores.float().softmax(-1).to(scores.dtype)
