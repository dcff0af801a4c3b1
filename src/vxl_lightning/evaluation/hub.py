"""A video model of transformers as an answerer: rows share its weights; a video is decoded once for all of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.ablation import identity
from vxl_lightning.caches.base import LanguageShape
from vxl_lightning.config import to_plain
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.evaluation.config import NONE, EvaluatedVariant, Precision
from vxl_lightning.hub.load import load_hub
from vxl_lightning.hub.video_lm import HubVideoLM
from vxl_lightning.models.answering import Answer


@dataclass
class Frames:
    """The video that was decoded last: rows of an evaluation look at it one after another."""

    last: tuple[Shown, Tensor, float] | None = field(default=None, init=False)

    def of(self, shown: Shown) -> tuple[Tensor, float]:
        """uint8 ``[T, 3, h, w]`` and the milliseconds that it took to decode them.

        Raises:
            DecodeError: the video cannot be read.
        """
        if self.last is None or self.last[0] != shown:
            begun = time.perf_counter()
            self.last = None  # two videos are never held
            self.last = (shown, _decoded(shown), (time.perf_counter() - begun) * 1e3)
        return self.last[1:]


def _decoded(shown: Shown) -> Tensor:
    """All frames, put where they stay: joining what came in parts would hold them twice."""
    frames, filled = torch.empty(0, dtype=torch.uint8), 0
    for part, _ in stream_frames(shown.path, shown.times):
        if not filled:
            frames = part.new_empty(len(shown.times), *part.shape[1:])
        frames[filled : filled + len(part)] = part
        filled += len(part)
    return frames


class HubAnswerer(Answerer):
    """One row: a model with what stands between its vision and its language.

    Args:
        model: the model, which other rows may share.
        frames: the decoded video, which they share too.
        depends: plain values that its replies depend on, beside versions and code.
        max_new_tokens: longest reply.
    """

    def __init__(self, model: HubVideoLM, frames: Frames, depends: dict[str, Any], max_new_tokens: int) -> None:
        self.model = model
        self.frames = frames
        self.depends = depends
        self.max_new_tokens = max_new_tokens

    @property
    def identity(self) -> dict[str, Any]:
        environment = identity.environment(("hub", "evaluation.hub"))
        return self.depends | {"max_new_tokens": self.max_new_tokens, "environment": environment}

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        frames, decoding = self.frames.of(shown)
        times = torch.tensor(list(shown.times))
        for one in asked:
            choices = list(dict.fromkeys(one.choices)) or None
            found = self.model.answer(frames, times, one.prompt, choices, one.max_new_tokens or self.max_new_tokens)
            yield _reply(found, shown.times, decoding / len(asked))


def _reply(found: Answer, times: Sequence[float], decoding: float) -> Reply:
    tokens = found.tokens
    # A frame of cells may be several of the video: the first of them stands for all.
    step = -(-len(times) // tokens.source.shape[1])
    kept = sorted({int(t) for t in tokens.position[found.kept, 0].round().tolist()})
    return Reply(
        text=found.text,
        scores=found.scores or {},
        kept=[round(times[min(t * step, len(times) - 1)], 3) for t in kept],
        counts=dict(found.counts),
        milliseconds={"decode": decoding} | found.milliseconds,
    )


def hub_answerers(
    folder: Path,
    rows: Mapping[str, EvaluatedVariant],
    max_new_tokens: int,
    device: torch.device,
    precision: Precision = "auto",
) -> dict[str, Answerer]:
    """One for each row, of a folder of Hugging Face's layout; the arguments are those of `evaluation.models.answerers`.

    Raises:
        UserError: see `load_hub`; an unknown plugin.
    """
    base = load_hub(folder, dtype=precision, device=str(device))
    hidden, frames = base.text_model.config.hidden_size, Frames()
    depends = {"weights": identity.language_model(folder), "precision": str(base.model.dtype)}
    made: dict[str, Answerer] = {}
    for name, row in rows.items():
        if row.model:
            raise UserError(f"variants.{name}: model={row.model} beside a Hugging Face model; evaluate it by itself")
        given = {kind: getattr(row, kind) for kind in ("compressor", "selector", "cache")}
        # A wrapped model has no selector or cache of its own that could be taken out.
        without = {kind for kind in ("selector", "cache") if given[kind].get("name") == NONE}
        parts = {kind: spec for kind, spec in given.items() if spec and kind not in without}
        built: dict[str, Any] = {
            kind: registry.build(kind, spec, dim=hidden) for kind, spec in parts.items() if kind != "cache"
        }
        if "cache" in parts:
            built["cache"] = registry.build("cache", parts["cache"], shape=LanguageShape.of(base.text_model))
        untrained = [kind for kind, part in built.items() if part.trainable]
        if untrained:
            raise UserError(
                f"variants.{name}: {untrained[0]}={parts[untrained[0]]['name']} has to be trained with the model, and "
                "this one was not; choose a method without weights"
            )
        known = {kind: identity.plugin(kind, spec) for kind, spec in parts.items()}
        made[name] = HubAnswerer(
            HubVideoLM(base.model, base.processing, select=row.select, **built),
            frames,
            depends | {"row": to_plain(row), "parts": known},
            max_new_tokens,
        )
    return made
