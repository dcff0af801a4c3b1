"""Which sample comes when, and loading it: a pure function of (seed, dataset, position).

The samples of a training run are one endless stream: a permutation of the dataset for pass 0, one for pass 1, and so
on. A step on ``world_size`` ranks takes the next ``world_size * batch_size`` samples of it, each rank its own part, so
all ranks take the same number of steps, and what does not fill a last step of one pass opens the next: nothing is lost.
The number of samples consumed is then all there is to remember, whatever the ranks and workers.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vxl_lightning.data.batch import Clip, ClipBatch, Failed, FrameBatch, Position, collate, collate_frames
from vxl_lightning.data.decoding import Limits, probe, stream_frames
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.errors import UserError

__all__ = ["Clip", "ClipBatch", "ClipDataset", "ClipLoader", "FrameBatch", "Position", "collate", "collate_frames"]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from labelled parts; different parts give unrelated seeds."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Order:
    """The stream: which sample stands at which position.

    Args:
        size: samples in the dataset.
        seed: of the permutations; None keeps the dataset's order in every pass.
    """

    def __init__(self, size: int, seed: int | None) -> None:
        self.size = size
        self.seed = seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def __reduce__(self) -> tuple[Any, ...]:
        return Order, (self.size, self.seed)

    def _permute(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed("order", self.seed or 0, epoch))
        return torch.randperm(self.size, generator=generator)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        return place if self.seed is None else int(self._permutation(epoch)[place])


class _Failure:
    """An error to be raised in the main process: DataLoader would wrap it in the worker's traceback."""

    def __init__(self, message: str) -> None:
        self.message = message


class ClipDataset(Dataset[Clip]):
    """The clips of a dataset by index: cached features, or frames decoded as the video is read.

    Args:
        reader: the shards.
        fps: frames sampled a second, of video alone.
        max_frames: most frames sampled of one video.
        frame_size: (h, w) to decode to.
        limits: what decoding one video may cost.
    """

    def __init__(
        self,
        reader: ShardReader,
        fps: float = 2.0,
        max_frames: int = 64,
        frame_size: tuple[int, int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.reader = reader
        self.fps = fps
        self.max_frames = max_frames
        self.frame_size = frame_size
        self.limits = limits or Limits()

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Clip:
        key, sample = self.reader.key(index), self.reader.sample(index)
        if self.reader.manifest.kind == "features":
            return Clip(key, sample, *self.reader.features(index))
        data, name = self.reader.video(index), self.reader.where(index)
        duration = probe(data, limits=self.limits, name=name).duration
        times = sample_times(duration, self.fps, self.max_frames)
        chunks = list(stream_frames(data, times, self.frame_size, limits=self.limits, name=name))
        return Clip(key, sample, torch.cat([f for f, _ in chunks]), torch.cat([t for _, t in chunks]))


class _Steps(Dataset[ClipBatch | FrameBatch | _Failure]):
    """This rank's whole batch of the step that starts at a position."""

    def __init__(
        self,
        clips: ClipDataset,
        order: Order,
        batch_size: int,
        rank: int,
        world_size: int,
        endless: bool,
        leave_out: bool,
    ) -> None:
        self.clips = clips
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.stride = batch_size * world_size
        self.endless = endless
        self.leave_out = leave_out
        self.collate = collate if clips.reader.manifest.kind == "features" else collate_frames

    def __getitem__(self, start: int) -> ClipBatch | FrameBatch | _Failure:
        stop = start + self.stride if self.endless else min(start + self.stride, self.order.size)
        mine = range(start + self.rank * self.batch_size, min(start + (self.rank + 1) * self.batch_size, stop))
        loaded = [self._load(self.order[p]) for p in mine]
        failed = tuple(x for x in loaded if isinstance(x, Failed))
        if failed and not self.leave_out:
            return _Failure(failed[0].reason)
        clips = [x for x in loaded if isinstance(x, Clip)]
        repeats = 0
        if not clips:
            # Every rank does every step: one for which nothing is left repeats a sample that can be read, and says so.
            known = {f.index for f in failed}
            others = (self.order[p] for p in range(start, start + self.order.size))
            tried = (self._load(i) for i in others if i not in known)
            found = next((x for x in tried if isinstance(x, Clip) or not self.leave_out), None)
            if not isinstance(found, Clip):
                return _Failure(found.reason if found else f"{self.clips.reader.root}: no sample can be read")
            clips, repeats = [found], 1
        return self.collate(clips, Position(start, stop, repeats, failed))

    def _load(self, index: int) -> Clip | Failed:
        try:
            return self.clips[index]
        except UserError as error:
            return Failed(index, str(error))


class _Starts(Sampler[int]):
    """Positions at which the steps from here on start; asked anew at every iteration."""

    def __init__(self, start: Callable[[], int], stride: int, steps: int) -> None:
        self.start = start
        self.stride = stride
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        first = self.start()
        return iter(range(first, first + self.steps * self.stride, self.stride))


class ClipLoader:
    """Batches of one rank.

    Deliberately no ``DataLoader``: Lightning would put its own sampler into one, and its own notion of resuming.

    Args:
        clips: the dataset.
        batch_size: clips a rank and step.
        seed: of the order; None for the dataset's own order, once (evaluation).
        start: gives the number of samples consumed so far, when an iteration begins.
        rank: this process.
        world_size: processes.
        num_workers: loading processes; 0 loads in this one.
        leave_out: leave samples that cannot be read out of their batches (`Position.failed` names them) instead of
            raising for the first; the stream goes on as if they had been there.

    Raises:
        UserError: a training dataset smaller than one step over all ranks; while iterating, a damaged sample.
    """

    def __init__(
        self,
        clips: ClipDataset,
        batch_size: int,
        seed: int | None = None,
        start: Callable[[], int] = int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        leave_out: bool = False,
    ) -> None:
        self._length = num_steps(clips, batch_size, world_size, training=seed is not None)
        order = Order(len(clips), seed)
        steps = _Steps(clips, order, batch_size, rank, world_size, endless=seed is not None, leave_out=leave_out)
        self._loader = DataLoader(
            steps,
            batch_size=None,
            sampler=_Starts(start, steps.stride, self._length),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            # Its only use of a generator is a seed for the workers, which need none; drawing it from the global
            # generator would make training depend on how often an iteration began.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ClipBatch | FrameBatch]:
        for batch in self._loader:
            if isinstance(batch, _Failure):
                raise UserError(batch.message)
            yield batch


def num_steps(clips: ClipDataset, batch_size: int, world_size: int, training: bool) -> int:
    """Steps of an epoch, the same on every rank: whole ones in training, all samples in evaluation."""
    stride = batch_size * world_size
    if not training:
        return math.ceil(len(clips) / stride)
    if len(clips) < stride:
        raise UserError(
            f"{clips.reader.root}: {len(clips)} samples cannot fill one step of {world_size} x {batch_size} "
            f"(ranks x batch_size); lower batch_size to at most {len(clips) // world_size}"
        )
    return len(clips) // stride
