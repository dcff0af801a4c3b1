"""Haystacks for training: clips made to seem parts of long videos, of which a selector left a few groups.

A clip of seconds teaches nothing of length: its times are small, and nothing in it looks like what is sought. Here the
groups of a clip in which something happens are put among groups of the other clips of the batch, in which nothing does,
at times drawn from a video of any length. Part of those others are the ones that the selector takes for what is sought:
it will bring the same kind when the video is really long. What is laid out so costs no more than the clip itself.

The rest of the batch also is what a selector learns from: each question has to find its groups among all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vxl_lightning.data.chat import exchanges
from vxl_lightning.data.schema import Sample
from vxl_lightning.errors import UserError
from vxl_lightning.models.alignment import Event, events, group_at
from vxl_lightning.models.prefix import Projected, stretches
from vxl_lightning.models.time_text import SHORT
from vxl_lightning.models.video_lm import VideoLM
from vxl_lightning.selectors.base import Candidates
from vxl_lightning.tokens import VideoTokens

TEMPERATURE = 0.05
"""Scores of a selector over this are logits: what is sought scores about 1 in words, so that it may differ by e^20."""


@dataclass(frozen=True, kw_only=True)
class HaystackConfig:
    """How clips become parts of long videos."""

    frames: int = 8192
    """Frames of the longest video that a clip is made to seem a part of; lengths are drawn log-uniformly up to it."""
    groups: int = 0
    """Most groups of frames that the language model is shown of it: what the selector will be given to keep. 0 leaves
    clips as they are."""
    hard: float = 0.75
    """Share of the groups beside the clip's own that are those the selector likes best; the others are drawn."""
    asked: int = 0
    """Clips of a batch that are asked about; the others are hay alone, which is cheap. 0 asks about all."""

    def __post_init__(self) -> None:
        if self.frames < 1 or min(self.groups, self.asked) < 0:
            raise ValueError(
                f"haystack.frames={self.frames} must be at least 1, haystack.groups={self.groups} and "
                f"haystack.asked={self.asked} at least 0"
            )
        if not 0 <= self.hard <= 1:
            raise ValueError(f"haystack.hard={self.hard} is a share and must be between 0 and 1")


@dataclass(frozen=True, eq=False)
class Haystacks:
    """What the language model reads and the selector is told, of the clips that are asked about.

    Attributes:
        projected: their videos, as if a selector had left these groups of long ones.
        pairs: of each its (question, answer) pairs; an answer that says a time says the new one.
        selection: mean negative log-likelihood of the groups that a question is about, among them and all of the
            batch's in which nothing happens, by the selector's scores; None without a selector.
    """

    projected: Projected
    pairs: list[list[tuple[str, str]]]
    selection: Tensor | None


@dataclass(frozen=True)
class _Asked:
    """A question with the groups it is about, counted over the batch, and whether its answer says the time of one."""

    question: str
    answer: str
    about: list[int]
    timed: int | None


class _Batch:
    """A projected batch by groups, which are counted over all of its videos."""

    def __init__(self, model: VideoLM, projected: Projected, samples: Sequence[Sample]) -> None:
        self.model, self.projected, self.samples = model, projected, samples
        self.frames = model.prompt.frames_per_time
        tokens = projected.tokens
        self.per_video = -(-tokens.source.shape[1] // self.frames)
        self.group = tokens.video * self.per_video + stretches(tokens.position, self.frames)
        self.starts = projected.times[:, :: self.frames].contiguous()
        self.events = [events(sample) for sample in samples]
        self.busy = [
            sorted({b * self.per_video + group_at(self.starts[b], e.seconds) for e in seen})
            for b, seen in enumerate(self.events)
        ]
        there = set(self.group.unique().tolist())
        self.hay = sorted(there.difference(*self.busy))
        self.there = there

    def start(self, group: int) -> float:
        return float(self.starts[group // self.per_video, group % self.per_video])

    def says(self, seconds: float) -> str:
        return (self.model.prompt.time_format or SHORT).format(round(seconds, 1))

    def asked(self, video: int) -> list[_Asked]:
        """The questions of a clip."""
        sample, seen = self.samples[video], self.events[video]
        spans = sample.meta.get("answer_span") or []
        found = []
        for i, pair in enumerate(exchanges(sample)):
            span = spans[i] if i < len(spans) else None
            about = self._at(video, [float(span[0])] if span else _named(pair.question, seen))
            timed = about[0] if span and pair.answer == self.says(self.start(about[0])) else None
            found.append(_Asked(pair.question, pair.answer, about, timed))
        return found

    def _at(self, video: int, seconds: Sequence[float]) -> list[int]:
        return sorted({video * self.per_video + group_at(self.starts[video], s) for s in seconds})


def _named(question: str, seen: Sequence[Event]) -> list[float]:
    """Times of the events that a question names, or of all where it names none."""
    said = set(question.lower().replace("?", " ").replace(",", " ").split())
    named = [e.seconds for e in seen if said.intersection(e.words)]
    return named or [e.seconds for e in seen]


def haystacks(
    model: VideoLM, projected: Projected, samples: Sequence[Sample], config: HaystackConfig, generator: torch.Generator
) -> Haystacks:
    """Make the clips of a batch parts of long videos.

    Args:
        projected: the batch.
        samples: its annotations, with ``needles``: what happens when. ``answer_span`` says what a question is about;
            without it those are meant that it names, or all.
        generator: the only source of chance.

    Raises:
        UserError: samples without needles, or a selector that does not choose among groups by their tokens.
    """
    batch = _Batch(model, projected, samples)
    number = min(config.asked or len(samples), len(samples))
    asked = [batch.asked(video) for video in range(number)]
    scores = _scores(batch, asked)
    chosen: list[list[int]] = []
    for video, questions in enumerate(asked):
        busy = [g for g in batch.busy[video] if g in batch.there]
        liked = None if scores is None else _liked([scores[video][i][0] for i in range(len(questions))])
        chosen.append(_mixed(busy, batch.hay, liked, config, generator))
    times = [_times(batch, groups, config.frames, generator) for groups in chosen]
    pairs = [
        [
            (q.question, q.answer if q.timed is None else batch.says(seconds[groups.index(q.timed)]))
            for q in questions
            if q.timed is None or q.timed in groups
        ]
        for questions, groups, seconds in zip(asked, chosen, times, strict=True)
    ]
    return Haystacks(_laid_out(batch, chosen, times), pairs, _selection(batch, asked, scores))


Scores = list[list[tuple[Tensor, Tensor]]]
"""Of each clip, of each question: scores of the hay, and of the groups it is about."""


def _scores(batch: _Batch, asked: list[list[_Asked]]) -> Scores | None:
    """What the selector thinks of every group, or None without one that chooses by the question."""
    model, selector = batch.model, batch.model.selector
    if selector is None or not selector.needs_query:
        return None
    if selector.level != "frame" or selector.needs_time:
        raise UserError(
            f"selector={type(selector).__name__} in a haystack: it must choose groups by their tokens and the question "
            "alone, such as late_interaction; leave tuning.haystack out to train with this one"
        )
    ordered, counts = torch.unique(batch.group, return_counts=True)
    if len(set(counts.tolist())) != 1:
        raise UserError(
            f"tuning.haystack with a selector needs the same number of tokens in every group of {batch.frames} frames, "
            f"but this compressor gives {int(counts.min())} to {int(counts.max())}; choose one that works in groups"
        )
    by_group = batch.projected.features[batch.group.argsort(stable=True)].unflatten(0, (len(ordered), -1))
    place = {g: i for i, g in enumerate(ordered.tolist())}
    candidates = Candidates(by_group, torch.arange(len(ordered), device=by_group.device).float())
    hay = model.ids([place[g] for g in batch.hay])
    found: Scores = []
    for questions in asked:
        of_clip = []
        for q in questions:
            query = model.embedding(model.ids(model.tokenizer.encode(q.question, add_special_tokens=False)))
            score = selector.score(candidates, query).float()
            of_clip.append((score[hay], score[model.ids([place[g] for g in q.about if g in place])]))
        found.append(of_clip)
    return found


def _liked(scores: list[Tensor]) -> list[int]:
    """Places of the hay, that first which some question likes best, by standard scores."""
    if not scores or not len(scores[0]):
        return []
    table = torch.stack(scores).detach().double().cpu()
    standard = (table - table.mean(1, keepdim=True)) / table.std(1, keepdim=True, correction=0).clamp(min=1e-12)
    return standard.amax(0).argsort(descending=True, stable=True).tolist()


def _mixed(
    busy: list[int], hay: list[int], liked: list[int] | None, config: HaystackConfig, generator: torch.Generator
) -> list[int]:
    """Groups of one haystack in order: the clip's busy ones in theirs, hay anywhere among them."""
    least = max(len(busy), 1)
    number = least + int(torch.randint(max(config.groups - least, 0) + 1, (), generator=generator))
    drawn = torch.randperm(len(hay), generator=generator).tolist()
    if liked is not None:
        hard = int((torch.rand(number - len(busy), generator=generator) < config.hard).sum())
        drawn = list(dict.fromkeys([*liked[:hard], *drawn]))
    others = [hay[i] for i in drawn[: number - len(busy)]]
    others = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()]
    places = set(torch.randperm(len(busy) + len(others), generator=generator)[: len(busy)].tolist())
    own, rest = iter(busy), iter(others)
    return [next(own) if i in places else next(rest) for i in range(len(busy) + len(others))]


def _times(batch: _Batch, groups: list[int], frames: int, generator: torch.Generator) -> list[float]:
    """Seconds at which the groups of one haystack begin, all different, in order."""
    least, most = max(len(groups), 1), max(frames // batch.frames, len(groups), 1)
    length = least * (most / least) ** float(torch.rand((), generator=generator))
    at = torch.randperm(max(math.floor(length), least), generator=generator)[: len(groups)].sort().values
    starts = batch.starts[0]
    step = float(starts[1] - starts[0]) if len(starts) > 1 else 1.0
    return [i * step for i in at.tolist()]


def _laid_out(batch: _Batch, chosen: list[list[int]], times: list[list[float]]) -> Projected:
    """The haystacks as projected videos. Which cells a token stands for is not followed: nothing asks in training."""
    tokens, size = batch.projected.tokens, batch.frames
    device = tokens.features.device
    longest = max(map(len, chosen))
    begins = torch.zeros(len(chosen), longest)
    rows: list[Tensor] = []
    position: list[Tensor] = []
    span: list[Tensor] = []
    lengths: list[int] = []
    for video, groups in enumerate(chosen):
        begins[video, : len(groups)] = torch.tensor(times[video])
        before = sum(map(len, rows))
        for slot, g in enumerate(groups):
            mine = (batch.group == g).nonzero()[:, 0]
            rows.append(mine)
            moved = tokens.position[mine].clone()
            moved[:, 0] += (slot - g % batch.per_video) * size
            position.append(moved)
            span.append(tokens.span[mine] + (times[video][slot] - batch.start(g)))
        lengths.append(sum(map(len, rows)) - before)
    index = torch.cat(rows)
    starts = begins.to(device).repeat_interleave(size, 1)
    source = torch.full((len(chosen), longest * size, 1, 1), -1, device=device)
    features = batch.projected.features[index]
    made = VideoTokens(
        tokens.features[index], torch.tensor(lengths, device=device), torch.cat(position), torch.cat(span), source
    )
    return Projected(made, features, starts, batch.projected.silence)


def _selection(batch: _Batch, asked: list[list[_Asked]], scores: Scores | None) -> Tensor | None:
    """See `Haystacks.selection`; zero where no question is about a group."""
    if scores is None:
        return None
    losses = []
    for of_clip in scores:
        for hay, about in of_clip:
            if len(about) and len(hay):
                against = torch.cat([about[:, None], hay.expand(len(about), -1)], 1) / TEMPERATURE
                losses.append(F.cross_entropy(against, against.new_zeros(len(about), dtype=torch.long)))
    return torch.stack(losses).mean() if losses else batch.projected.features.new_zeros(())
