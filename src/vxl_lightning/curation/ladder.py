"""How well a model knows an answer when it sees all of a video, some of it, the parts in another order, or nothing.

All conditions but the blind one show the model as many frames, at the same times, as the whole video would: what is
left out is covered by holding a frame that stays, as a film that freezes does. So a compressor meets the full groups
it was trained on, a prompt is as long and says the same times, and a difference of losses is a difference of what
was seen. The frames are encoded once, and a condition is an index into them.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from vxl_lightning import registry
from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.decoding import probe, stream_frames
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.data.schema import Sample
from vxl_lightning.encoders.base import Encoder
from vxl_lightning.errors import UserError
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.prefix import Prefix
from vxl_lightning.models.pretrained import load_pretrained
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.tokens import VideoGrid

MAX_ANSWER = 64
"""Tokens of an answer that are judged: what a long caption says further on follows from what it said before."""
DEFAULT_FPS = 2.0
"""Frames a second where the model's folder does not record its own."""


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and, where only some answers are allowed, which (the answer among them)."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()

    def turned(self) -> list["Asked"]:
        """The question with the choices that it names in every rotation, itself first.

        Small models answer "which came first, the star or the ring?" by what is said first or last, and are sure of it.
        Who knows the answer knows it in every order (CircularEval of MMBench, arXiv 2307.06281). A question that names
        fewer than two of its choices has one way to be asked, and so has one that names a choice twice: it says
        something about it, which must stay true.
        """
        places = {c: [m.start() for m in re.finditer(rf"\b{re.escape(c)}\b", self.question)] for c in self.choices}
        named = sorted((c for c in self.choices if places[c]), key=lambda c: places[c])
        if len(named) < 2 or any(len(places[c]) > 1 for c in named):
            return [self]
        anywhere = "|".join(rf"\b{re.escape(choice)}\b" for choice in sorted(named, key=len, reverse=True))
        rotations = (dict(zip(named, named[k:] + named[:k], strict=True)) for k in range(len(named)))
        return [
            replace(self, question=re.sub(anywhere, lambda match, new=new: new[match[0]], self.question))  # type: ignore[misc]
            for new in rotations
        ]


def asked(record: str) -> list[Asked]:
    """The questions of a sample's record (JSON), each with its ``choices`` where the record lists them.

    ``choices`` is a list of answers for all questions, or one such list a question. Lists without the answer, or
    with nothing else, are ignored: the question counts as open.
    """
    parsed = json.loads(record)
    pairs = exchanges(Sample.from_record(parsed, "record"))
    given = parsed.get("choices")
    lists = given if isinstance(given, list) else []
    if not any(isinstance(x, list) for x in lists):
        lists = [lists] * len(pairs)
    found = []
    for i, pair in enumerate(pairs):
        listed = lists[i] if i < len(lists) and isinstance(lists[i], list) else []
        choices = tuple(dict.fromkeys(text for choice in listed if (text := str(choice).strip())))
        if not pair.answer:  # the conversation rules find these
            continue
        closed = pair.answer in choices and len(choices) > 1
        question = pair.question.replace("<video>", "").strip()
        found.append(Asked(question, pair.answer, choices if closed else ()))
    return found


@dataclass(frozen=True, eq=False)
class Reader:
    """A model that answers, and how it sees.

    Attributes:
        model: in evaluation mode, on its device.
        encoder: for its frames; None where it reads questions alone.
        fps: frames a second it was trained on.
    """

    model: VideoLM
    encoder: Encoder | None
    fps: float

    @property
    def limit(self) -> int:
        """Positions that the language model has."""
        return int(getattr(self.model.plain.config, "max_position_embeddings", None) or 1 << 30)

    def grid(self, path: Path, name: str, max_frames: int) -> VideoGrid:
        """A video's cells, a batch of one.

        Raises:
            UserError: it cannot be decoded.
        """
        assert self.encoder is not None
        info = probe(path, name=name)
        fps = min(self.fps, info.fps) if info.fps > 0 else self.fps
        times = sample_times(info.duration, fps, max_frames)
        features, seconds, importance = [], [], []
        for frames, at in stream_frames(path, times, self.encoder.frame_size, name=name):
            encoded = self.encoder(frames.to(self.model.device))
            features.append(encoded.features.float())
            seconds.append(at)
            if encoded.importance is not None:
                importance.append(encoded.importance.float())
        side = {"importance": torch.cat(importance)[None]} if importance else {}
        return VideoGrid.of(torch.cat(features)[None], torch.cat(seconds)[None].to(self.model.device), **side)

    def prefixes(self, grid: VideoGrid, questions: Sequence[Asked]) -> list[tuple[Prefix, list[Asked]]]:
        """Prefixes of a video, each with the questions that may follow it.

        One for all, unless the compressor or a selector reads the question: then one each.
        """
        model = self.model
        if model.selector is None and not model.compressor.needs_query:
            return [(model.prefix(model.project(grid), 0), list(questions))]
        return [(model.prefix(model.project(grid, q.question), 0, q.question), [q]) for q in questions]

    def length(self, prefix: Prefix, question: Asked) -> int:
        """Positions that a question after a prefix takes, its longest answer included."""
        chat = self.model.layout.chat
        answers = [len(chat.answer(text)) for text in (question.answer, *question.choices)]
        return len(prefix.embeds) + len(chat.question(question.question)) + min(max(answers), MAX_ANSWER)

    @torch.inference_mode()
    def losses(self, trees: Sequence[tuple[Prefix, Sequence[Asked]]], batch_size: int) -> list[list[float]]:
        """Loss of every answer of every prefix, nats: see `necessity`.

        Args:
            trees: prefixes and what is asked after each.
            batch_size: questions of a forward pass.
        """
        found: list[list[float]] = [[math.nan] * len(questions) for _, questions in trees]
        for closed in (True, False):
            places = [(t, i) for t, (_, qs) in enumerate(trees) for i, q in enumerate(qs) if bool(q.choices) == closed]
            for begin in range(0, len(places), batch_size):
                part = places[begin : begin + batch_size]
                which = list(dict.fromkeys(t for t, _ in part))
                prefixes = [trees[t][0] for t in which]
                batch = [[trees[t][1][i] for u, i in part if u == t] for t in which]
                for (t, i), loss in zip(
                    part, (x for row in self._pass(prefixes, batch, closed) for x in row), strict=True
                ):
                    found[t][i] = loss
        return found

    def _pass(self, prefixes: list[Prefix], batch: list[list[Asked]], closed: bool) -> list[list[float]]:
        if not closed:
            pairs = [[(q.question, q.answer) for q in row] for row in batch]
            return self.model.answer_losses(prefixes, pairs, MAX_ANSWER)
        scores = self.model.choice_scores(
            prefixes, [[q.question for q in row] for row in batch], [[q.choices for q in row] for row in batch]
        )
        return [
            [-float(s.double().log_softmax(-1)[q.choices.index(q.answer)]) for s, q in zip(ss, row, strict=True)]
            for ss, row in zip(scores, batch, strict=True)
        ]


@lru_cache(maxsize=2)
def reader(model: str, language_model: str, device: str) -> Reader:
    """The video language model of a folder, or a language model alone where ``model`` is empty; loaded once a process.

    Raises:
        UserError: no such model, or one that does not answer, or whose encoder is unknown.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # its bars would run through those of the recipe
    if not model:
        # Nothing is ever shown to it, so that any compressor will do.
        config = VideoLMConfig(
            dim=1, language_model=language_model, compressor={"name": "none"}, adapter=AdapterConfig(rank=0)
        )
        return Reader(build_video_lm(config).eval().to(device), None, DEFAULT_FPS)
    loaded = load_pretrained(model)
    if not isinstance(loaded.model, VideoLM):
        raise UserError(
            f"necessity.model={model}: holds a compressor alone, which answers nothing; give a tuned VideoLM"
        )
    if loaded.encoder is None:
        raise UserError(
            f"necessity.model={model}: does not record its encoder; save it with save_pretrained(encoder=...)"
        )
    encoder = registry.build("encoder", loaded.encoder).eval().to(device)
    return Reader(loaded.model.to(device), encoder, loaded.fps or DEFAULT_FPS)
