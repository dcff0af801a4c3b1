"""The road of one planted haystack, from the video file to projected tokens, in chunks, with the time of each stage."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from vxl_lightning.compressors.base import Compressor
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.data.synth.needles import draw_needles
from vxl_lightning.data.synth.questions import Needle
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.evaluation.needles.haystack import Haystack
from vxl_lightning.evaluation.needles.plant import Planted
from vxl_lightning.models.prefix import Projected
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid, VideoTokens, concat_time

CHUNK = 32
"""Frames that are held at once."""

Spent = dict[str, float]
R = TypeVar("R")


def timed(spent: Spent, stage: str, work: Callable[[], R]) -> R:
    """What the work gives; its milliseconds are added to a stage's."""
    begun = time.perf_counter()
    found = work()
    if torch.cuda.is_available():  # or the next stage would wait for this one
        torch.cuda.synchronize()
    spent[stage] = spent.get(stage, 0.0) + (time.perf_counter() - begun) * 1e3
    return found


@dataclass(eq=False)
class Watched:
    """A haystack as one compressor has seen it.

    Attributes:
        projected: where no question is needed for it.
        grid: where one is.
        spent: milliseconds of ``decode``, ``plant``, ``encode``, ``compress`` and ``project``.
    """

    projected: Projected | None
    grid: VideoGrid | None
    spent: Spent = field(default_factory=dict)

    def of(self, model: VideoLM, question: str, spent: Spent) -> Projected:
        """Tokens for a question."""
        if self.projected is not None:
            return self.projected
        grid = self.grid
        assert grid is not None
        return timed(spent, "compress", lambda: model.project(grid, question))


class _Streamed:
    """A causal compressor sees every chunk as it comes; grids are never held."""

    def __init__(self, model: VideoLM) -> None:
        self.model = model
        self.state: Any = None
        self.tokens: list[VideoTokens] = []
        self.times: list[Tensor] = []
        self.spent: Spent = {}

    def add(self, grid: VideoGrid, last: bool) -> None:
        step: Callable[..., tuple[VideoTokens, Any]] = self.model.compressor.step  # type: ignore[assignment]
        tokens, self.state = timed(self.spent, "compress", lambda: step(grid, self.state, last=last))
        self.tokens.append(tokens)
        self.times.append(grid.times)

    def done(self) -> Watched:
        tokens = timed(self.spent, "compress", lambda: concat_time(self.tokens))
        features = timed(self.spent, "project", lambda: self.model.projector(tokens.features))
        return Watched(Projected(tokens, features, torch.cat(self.times, 1), self.model.silence), None, self.spent)


class _Whole:
    """A compressor that looks at all of a video, or at the question, or a model with a projection of its own."""

    def __init__(self, model: VideoLM) -> None:
        self.model = model
        self.grids: list[VideoGrid] = []

    def add(self, grid: VideoGrid, last: bool) -> None:
        self.grids.append(grid)

    def done(self) -> Watched:
        side = {}
        if all(g.importance is not None for g in self.grids):
            side = {"importance": torch.cat([g.importance for g in self.grids if g.importance is not None], 1)}
        features, times = (torch.cat([getattr(g, n) for g in self.grids], 1) for n in ("features", "times"))
        grid = VideoGrid.of(features, times, **side)
        if self.model.compressor.needs_query:
            return Watched(None, grid)
        spent: Spent = {}
        return Watched(timed(spent, "compress", lambda: self.model.project(grid)), None, spent)


def streams(model: VideoLM) -> bool:
    """Whether a model's tokens can be made chunk by chunk."""
    own = type(model).project is not VideoLM.project
    return model.compressor.causal and not model.compressor.needs_query and not own


@torch.no_grad()
def watch(
    haystack: Haystack, planted: Planted, encoder: Encoder, models: Iterable[VideoLM], chunk: int = CHUNK
) -> dict[Compressor, Watched]:
    """Decode, plant, encode and compress: all compressors watch the same frames, each of them once.

    Args:
        haystack: the video file.
        planted: which of its frames, and the needles that are drawn into them.
        encoder: at whose size of frames they are drawn.
        models: of whose compressors, all on one device, where the encoder is too; those that share one share what it
            gives.
        chunk: frames held at once.

    Raises:
        DecodeError: the haystack cannot be read.
    """
    models = list(models)
    device, dtype = models[0].device, models[0].dtype
    watchers = {m.compressor: _Streamed(m) if streams(m) else _Whole(m) for m in models}
    spent: Spent = defaultdict(float)
    length, done = planted.cell.length, 0
    # A model is shown the window as if it were the whole video: its times begin at 0.
    seconds = torch.arange(length, dtype=torch.float64) / haystack.fps
    chunks = stream_frames(haystack.path, haystack.times(planted.begin, length), encoder.frame_size, chunk)
    while done < length:
        frames, _ = timed(spent, "decode", lambda: next(chunks))
        timed(spent, "plant", lambda frames=frames, done=done: plant_into(frames, done, planted.needles))  # type: ignore[misc]
        encoded = timed(spent, "encode", lambda frames=frames: encoder(frames.to(device)))  # type: ignore[misc]
        side = {} if encoded.importance is None else {"importance": encoded.importance.float()[None]}
        times = seconds[done : done + len(frames)].float()[None].to(device)
        grid = VideoGrid.of(encoded.features.to(dtype)[None], times, **side)
        done += len(frames)
        for watcher in watchers.values():
            watcher.add(grid, done == length)
    found = {compressor: watcher.done() for compressor, watcher in watchers.items()}
    for watched in found.values():
        watched.spent = dict(spent) | watched.spent
    return found


def plant_into(frames: Tensor, first: int, needles: Sequence[Needle]) -> None:
    """Draw the needles that are on ``frames [t, 3, h, w]``, of which the first is number ``first``, in place."""
    here = [n for n in needles if first <= n.frame < first + len(frames)]
    draw_needles(frames, [replace(n, frame=n.frame - first) for n in here])
