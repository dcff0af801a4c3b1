"""A `VideoLM` as an answerer: a video is encoded once for all rows, and compressed once where no question is needed."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.ablation import identity
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.models.answering import Answer, answer_about
from vxl_lightning.models.prefix import Projected
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid


@dataclass
class Eyes:
    """An encoder, and what it saw last: rows of an evaluation look at one video after another, not at each its own."""

    encoder: Encoder
    seen: tuple[Shown, VideoGrid, dict[str, float]] | None = field(default=None, init=False)

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return next((p.device for p in self.encoder.parameters()), torch.device("cpu"))

    def look(self, shown: Shown) -> tuple[VideoGrid, dict[str, float]]:
        """A video encoded, and the milliseconds of ``decode`` and ``encode``.

        Raises:
            DecodeError: it cannot be read.
        """
        if self.seen is None or self.seen[0] != shown:
            self.seen = (shown, *self._looked(shown))
        return self.seen[1:]

    @torch.no_grad()
    def _looked(self, shown: Shown) -> tuple[VideoGrid, dict[str, float]]:
        spent = {"decode": 0.0, "encode": 0.0}
        features: list[Tensor] = []
        importance: list[Tensor] = []
        begun = time.perf_counter()
        for frames, _ in stream_frames(shown.path, shown.times, self.encoder.frame_size):
            decoded = time.perf_counter()
            encoded = self.encoder(frames.to(self.device))
            features.append(encoded.features.float())
            if encoded.importance is not None:
                importance.append(encoded.importance.float())
            spent["decode"] += (decoded - begun) * 1e3
            begun = time.perf_counter()
            spent["encode"] += (begun - decoded) * 1e3
        side = {"importance": torch.cat(importance)[None]} if importance else {}
        seconds = torch.tensor([list(shown.times)], dtype=torch.float32, device=self.device)
        return VideoGrid.of(torch.cat(features)[None], seconds, **side), spent


class VideoLMAnswerer(Answerer):
    """A tuned `VideoLM`.

    Args:
        model: the model.
        eyes: its encoder; one for all rows.
        depends: plain values that its replies depend on, beside versions and code.
        max_new_tokens: longest generated reply, where a question does not say.
    """

    def __init__(self, model: VideoLM, eyes: Eyes, depends: dict[str, Any], max_new_tokens: int) -> None:
        self.model = model
        self.eyes = eyes
        self.depends = depends
        self.max_new_tokens = max_new_tokens

    @property
    def identity(self) -> dict[str, Any]:
        environment = identity.environment(("evaluation.embedded",))
        return self.depends | {"max_new_tokens": self.max_new_tokens, "environment": environment}

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        grid, spent = self.eyes.look(shown)
        looking = {step: ms / len(asked) for step, ms in spent.items()}
        shared = None if self.model.compressor.needs_query else self._compressed(grid, None)
        for one in asked:
            projected, ms = shared or self._compressed(grid, one.prompt)
            steps = {"compress": ms / len(asked) if shared else ms}
            longest = one.max_new_tokens or self.max_new_tokens
            found = answer_about(self.model, projected, one.prompt, one.choices or None, longest, steps, evidence=False)
            yield _reply(found, looking)

    @torch.no_grad()
    def _compressed(self, grid: VideoGrid, question: str | None) -> tuple[Projected, float]:
        if why := refusal(self.model.compressor, *grid.shape[1:4]):
            frames, height, width = grid.shape[1:4]
            raise UserError(
                f"a video of {frames} frames of {height} x {width} cells: {why}; look at more frames (fps, max_frames) "
                "or choose another compressor"
            )
        begun = time.perf_counter()
        projected = self.model.project(grid.to(self.model.dtype), question)
        return projected, (time.perf_counter() - begun) * 1e3


def refusal(compressor: Compressor, frames: int, height: int, width: int) -> str:
    """Why a compressor takes no video of this size; empty where it does."""
    name = type(compressor).__name__
    if frames < compressor.min_frames:
        return f"{name} needs at least {compressor.min_frames} frames"
    try:
        compressor.num_tokens(frames, height, width)
    except ValueError as error:
        return f"{name}: {error}"
    return ""


def _reply(found: Answer, looking: dict[str, float]) -> Reply:
    spans = found.tokens.span[found.kept]
    return Reply(
        text=found.text,
        scores=found.scores or {},
        kept=sorted({round(float(s), 3) for s in spans[:, 0]}),
        counts=dict(found.counts),
        milliseconds=looking | found.milliseconds,
    )
