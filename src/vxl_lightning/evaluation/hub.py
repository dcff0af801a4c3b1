"""A video model of transformers as an answerer: rows share its weights, and what its vision made of a video."""

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
from vxl_lightning.hub.video_lm import HubVideoLM, Look
from vxl_lightning.models.answering import Answer


@dataclass
class Sight:
    """A model's vision, and what it saw last: rows of an evaluation look at one video after another, not at each its
    own.

    Frames are decoded at their own size, as the model's processor takes them, and let go part by part; of a video that
    was seen the features are held that its language model reads.
    """

    model: HubVideoLM
    seen: tuple[Shown, Look, dict[str, float]] | None = field(default=None, init=False)

    def look(self, shown: Shown) -> tuple[Look, dict[str, float]]:
        """A video as the model sees it, and the milliseconds of ``decode``, ``prepare`` and ``encode``.

        Raises:
            DecodeError: the video cannot be read.
            UserError: it cannot be shown to this model.
        """
        if self.seen is None or self.seen[0] != shown:
            self.seen = None  # two videos are never held
            spent = {"decode": 0.0}
            look = self.model.look(_decoded(shown, spent), torch.tensor(list(shown.times)))
            prepare = look.milliseconds["prepare"] - spent["decode"]
            self.seen = (shown, look, {**spent, **look.milliseconds, "prepare": prepare})
        return self.seen[1:]


def _decoded(shown: Shown, spent: dict[str, float]) -> Iterator[Tensor]:
    """Frames in parts, ``[t, 3, h, w]`` each; what waiting for them took is added to ``decode``."""
    parts = stream_frames(shown.path, shown.times)
    while True:
        begun = time.perf_counter()
        part = next(parts, None)
        spent["decode"] += (time.perf_counter() - begun) * 1e3
        if part is None:
            return
        yield part[0]


class HubAnswerer(Answerer):
    """One row: a model with what stands between its vision and its language.

    Args:
        model: the model, which other rows may share.
        sight: the model's vision, which they share too.
        depends: plain values that its replies depend on, beside versions and code.
        max_new_tokens: longest reply.
    """

    def __init__(self, model: HubVideoLM, sight: Sight, depends: dict[str, Any], max_new_tokens: int) -> None:
        self.model = model
        self.sight = sight
        self.depends = depends
        self.max_new_tokens = max_new_tokens

    @property
    def identity(self) -> dict[str, Any]:
        environment = identity.environment(("hub", "evaluation.hub"))
        return self.depends | {"max_new_tokens": self.max_new_tokens, "environment": environment}

    def replies(self, shown: Shown, asked: Sequence[Asked]) -> Iterator[Reply]:
        look, spent = self.sight.look(shown)
        looking = {step: ms / len(asked) for step, ms in spent.items()}
        for one in asked:
            choices = list(dict.fromkeys(one.choices)) or None
            found = self.model.answer_about(look, one.prompt, choices, one.max_new_tokens or self.max_new_tokens)
            yield _reply(found, shown.times, looking)


def _reply(found: Answer, times: Sequence[float], looking: Mapping[str, float]) -> Reply:
    tokens = found.tokens
    # A frame of cells may be several of the video: the first of them stands for all.
    step = -(-len(times) // tokens.source.shape[1])
    kept = sorted({int(t) for t in tokens.position[found.kept, 0].round().tolist()})
    return Reply(
        text=found.text,
        scores=found.scores or {},
        kept=[round(times[min(t * step, len(times) - 1)], 3) for t in kept],
        counts=dict(found.counts),
        milliseconds={**looking, **found.milliseconds},
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
    hidden, sight = base.text_model.config.hidden_size, Sight(base)
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
            sight,
            depends | {"row": to_plain(row), "parts": known},
            max_new_tokens,
        )
    return made
