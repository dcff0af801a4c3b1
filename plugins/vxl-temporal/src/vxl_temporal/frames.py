"""Compressors that take a video frame by frame and remember no more than a few frames of it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.tokens import VideoGrid, VideoTokens


@dataclass(frozen=True)
class FrameState:
    """What is remembered between steps.

    Attributes:
        past: ``[B, P, H, W, D]`` the last frames, complete; fewer than ``lookback`` only where the video begins.
        seen: frames so far.
        given: ``[B]`` tokens given so far.
    """

    past: Tensor
    seen: int
    given: Tensor

    @classmethod
    def beginning(cls, grid: VideoGrid) -> "FrameState":
        return cls(grid.features[:, :0], 0, torch.zeros(len(grid.features), dtype=torch.long, device=grid.times.device))


class FrameCompressor(Compressor):
    """A compressor whose tokens of a frame follow from that frame and a few before it: causal, and streamable for free.

    All frames are treated together; ``step`` goes on where the frames before ended. A subclass writes ``num_tokens``
    and ``compress_frames``; padding, packing and ``step`` are handled here.
    """

    causal = True
    frames_per_group: int | None = 1
    lookback: ClassVar[int] = 1
    """Frames before the current one that are looked at."""

    @abstractmethod
    def compress_frames(self, grid: VideoGrid, state: FrameState) -> tuple[Tensor, Tensor]:
        """Compress the frames that follow ``state``.

        Returns:
            ``features [B, T, H, W, D]`` and ``home [B, T, H, W]``: for every cell the cell of its frame, counted row by
            row, whose token carries it, or -1. A cell that is its own home is a token, with the features at its place;
            what is said of padding frames is ignored.
        """

    def compress(self, grid: VideoGrid, query: Tensor | None) -> VideoTokens:
        return self._compress(grid, FrameState.beginning(grid))

    def step(
        self, chunk: VideoGrid, state: FrameState | None = None, *, query: Tensor | None = None, last: bool = False
    ) -> tuple[VideoTokens, FrameState]:
        """Compress a video as its frames arrive: every frame's tokens are given at once.

        Args:
            chunk: the next frames (any number), without padding.
            state: what the previous step returned, or None at the beginning.
            query: not used.
            last: no frames follow; makes no difference here.

        Returns:
            Tokens of these frames and the new state. `concat_time` joins them to what ``forward`` gives.
        """
        if not bool(chunk.frame_mask.all()):
            raise ValueError("step takes frames as they come, without padding; pass the valid frames alone")
        if self.needs_importance and chunk.importance is None:
            raise ValueError(f"{type(self).__name__} needs VideoGrid.importance; choose an encoder that provides it")
        state = state or FrameState.beginning(chunk)
        tokens = self._compress(chunk.check(), state)
        past = torch.cat([state.past, chunk.features.detach()[:, -self.lookback :]], 1)[:, -self.lookback :]
        return tokens, FrameState(past.clone(), state.seen + chunk.shape[1], state.given + tokens.lengths)

    def _compress(self, grid: VideoGrid, state: FrameState) -> VideoTokens:
        b, t, h, w, _ = grid.shape
        features, home = self.compress_frames(grid, state)
        home = home.masked_fill(~grid.frame_mask[:, :, None, None], -1).flatten(2)
        is_token = home == torch.arange(h * w, device=home.device)
        number = (is_token.flatten(1).cumsum(1) - 1).view_as(home)
        source = torch.where(home >= 0, number.gather(2, home.clamp(min=0)), home).view(b, t, h, w)
        lengths = is_token.sum((1, 2))
        return VideoTokens.carry(features.flatten(2, 3)[is_token].to(grid.features.dtype), lengths, source, grid)


def at_home(keep: Tensor) -> Tensor:
    """``home`` where the cells with ``keep [B, T, H, W]`` stay as they are and all others are dropped."""
    cell = torch.arange(keep[0, 0].numel(), device=keep.device).view(keep.shape[-2:])
    return torch.where(keep, cell, -1)
