"""What the loader hands to a training step: clips of different lengths, padded into one grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.data.schema import Sample
from vxl_lightning.tokens import VideoGrid


@dataclass(frozen=True)
class Failed:
    """A sample that could not be read: its index in the dataset and the reason, one line."""

    index: int
    reason: str


@dataclass(frozen=True)
class Position:
    """Where a batch stands in the stream of samples; the same on every rank but for ``repeats`` and ``failed``.

    Attributes:
        start: samples consumed, over all ranks, before this batch.
        stop: samples consumed once it is done.
        repeats: samples at the end of this rank's batch that stand elsewhere too, only there to give every rank the
            same number of steps. Losses and metrics leave them out.
        failed: samples that belong into this rank's batch and could not be read. Nothing takes their place.
    """

    start: int
    stop: int
    repeats: int = 0
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, eq=False)
class Clip:
    """One sample: ``video`` is features ``[T,H,W,D]`` or uint8 frames ``[T,3,h,w]``; times ``[T]`` in seconds."""

    key: str
    sample: Sample
    video: Tensor
    times: Tensor
    importance: Tensor | None = None


class ClipBatch:
    """Encoded clips.

    A plain class: Lightning's half precision plugins walk into dataclasses and refuse frozen ones.

    Attributes:
        grid: features in float32, padded to the longest clip.
        samples: annotations, one a clip.
        keys: shard keys, one a clip.
        position: place in the stream; None where a batch was made by hand.
    """

    def __init__(
        self, grid: VideoGrid, samples: list[Sample], keys: list[str], position: Position | None = None
    ) -> None:
        self.grid = grid
        self.samples = samples
        self.keys = keys
        self.position = position

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device | str) -> "ClipBatch":
        return ClipBatch(self.grid.to(device), self.samples, self.keys, self.position)


class FrameBatch:
    """Decoded clips that wait for their encoder: ``frames [B,T,3,h,w]`` uint8, ``times`` and ``frame_mask [B,T]``."""

    def __init__(
        self,
        frames: Tensor,
        times: Tensor,
        frame_mask: Tensor,
        samples: list[Sample],
        keys: list[str],
        position: Position | None,
    ) -> None:
        self.frames = frames
        self.times = times
        self.frame_mask = frame_mask
        self.samples = samples
        self.keys = keys
        self.position = position

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device | str) -> "FrameBatch":
        frames, times, mask = (x.to(device) for x in (self.frames, self.times, self.frame_mask))
        return FrameBatch(frames, times, mask, self.samples, self.keys, self.position)


def stands_in(batch: Any) -> bool:
    """Whether a batch holds repeated samples alone: its step must be done, and must teach and measure nothing.

    A rank whose own samples all failed takes part in the step this way, so that every rank does the same collective
    operations. Batches made by hand have no position and count.
    """
    position: Position | None = getattr(batch, "position", None)
    return position is not None and position.repeats >= len(batch.samples)


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def _times_and_mask(clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(c.times) for c in clips])
    return _padded([c.times for c in clips]), torch.arange(int(lengths.max()))[None] < lengths[:, None]


def collate(clips: Sequence[Clip], position: Position | None = None) -> ClipBatch:
    """Clips with features into one batch, in float32."""
    times, mask = _times_and_mask(clips)
    importance = [c.importance.float() for c in clips if c.importance is not None]
    side = _padded(importance) if len(importance) == len(clips) else None
    grid = VideoGrid(_padded([c.video.float() for c in clips]), times, mask, side)
    return ClipBatch(grid, [c.sample for c in clips], [c.key for c in clips], position)


def collate_frames(clips: Sequence[Clip], position: Position | None = None) -> FrameBatch:
    """Clips with frames into one batch."""
    times, mask = _times_and_mask(clips)
    frames = _padded([c.video for c in clips])
    return FrameBatch(frames, times, mask, [c.sample for c in clips], [c.key for c in clips], position)
