"""Write rendered clips as video shards: rendering and H.264 run on threads, the shards are written in order."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor

from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.schema import Sample
from vxl_lightning.data.shards import ShardWriter

Progress = Callable[[int, int], None]
_S = TypeVar("_S")
_T = TypeVar("_T")


def check_counts(train: int, val: int, test: int) -> None:
    """Clips of the splits.

    Raises:
        ValueError: a negative number.
    """
    for name, count in {"train": train, "val": val, "test": test}.items():
        if count < 0:
            raise ValueError(f"{name}={count} must be at least 0, the clips of that split")


def generator_for(*parts: object) -> torch.Generator:
    """A generator of its own for every clip, so that any clip can be made without those before it."""
    digest = hashlib.sha256("/".join(str(p) for p in parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def write_clips(
    out: Path,
    count: int,
    render: Callable[[int], tuple[Sample, Tensor]],
    fps: float,
    workers: int,
    progress: Progress | None = None,
) -> list[Sample]:
    """Write ``count`` clips to a new folder of video shards, and give their samples.

    Args:
        out: folder for the shards.
        count: clips to write.
        render: gives the sample and the frames ``[T, 3, h, w]`` uint8 of clip i; called on threads.
        fps: frames a second.
        workers: threads; what is written does not depend on it.
        progress: told (clips done, clips in all).

    Raises:
        UserError: the folder holds a dataset, or there is no H.264 encoder.
    """
    samples = []
    with TemporaryDirectory(prefix="vxl-synth-") as folder, ShardWriter(out, "video") as writer:

        def make(index: int) -> tuple[Sample, bytes]:
            sample, frames = render(index)
            path = Path(folder) / f"{index}.mp4"
            write_video(path, frames, fps)
            video = path.read_bytes()
            path.unlink()
            return sample, video

        with ThreadPoolExecutor(workers) as pool:
            for done, (sample, video) in enumerate(ahead(pool, make, range(count), 2 * workers), 1):
                writer.add_video(sample, video)
                samples.append(sample)
                if progress is not None:
                    progress(done, count)
    return samples


def ahead(pool: ThreadPoolExecutor, call: Callable[[_S], _T], items: Iterable[_S], depth: int) -> Iterator[_T]:
    """Results in order, with at most ``depth`` calls under way or waiting to be taken."""
    pending: deque[Future[_T]] = deque()
    for item in items:
        pending.append(pool.submit(call, item))
        if len(pending) >= depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
