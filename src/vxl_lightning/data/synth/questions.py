"""Needles of a clip and the questions about them, each with exactly one answer among listed choices."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.synth.clips import integer, uniform
from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES

COUNTS = ("0", "1", "2", "3", "4")
MAX_NEEDLES = len(COUNTS) - 1
YES_NO = ("yes", "no")
ABOUT = 2  # needles of a clip that are asked about, by each of the questions about one
# Clips without needles (one in five of those that ask) can only answer no; this evens out yes and no over all.
YES_IF_ANY = 0.625
Ask = Literal["count", "exists"]


@dataclass(frozen=True)
class Needle:
    """A shape on one frame; ``x``, ``y`` and ``radius`` as fractions of the frame, ``time`` in seconds."""

    shape: str
    colour: str
    frame: int
    time: float
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Question:
    """A question, its answer, what may be answered, and where in the video the answer is (seconds) if at one place."""

    task: str
    text: str
    answer: str
    choices: tuple[str, ...]
    span: tuple[float, float] | None


def place_needles(
    count: int, num_frames: int, fps: float, group: int, allow_held_out: bool, generator: torch.Generator
) -> tuple[Needle, ...]:
    """Draw needles in time order: no two of one shape, of one colour, or in one group of frames.

    So a shape, a colour or a group names one needle, and every question has one answer. Inside its
    group a needle may be on any frame.
    """
    groups = torch.randperm(num_frames // group, generator=generator)[:count].sort().values.tolist()
    while True:  # a third of the draws pair some colour and shape that are held out
        shapes = [SHAPES[i] for i in torch.randperm(len(SHAPES), generator=generator)[:count].tolist()]
        colours = [list(COLOURS)[i] for i in torch.randperm(len(COLOURS), generator=generator)[:count].tolist()]
        if allow_held_out or not HELD_OUT.intersection(zip(colours, shapes, strict=True)):
            break
    needles = []
    for g, shape, colour in zip(groups, shapes, colours, strict=True):
        frame = g * group + integer(0, group, generator)
        radius = uniform(0.15, 0.20, generator)
        x, y = (round(uniform(radius, 1 - radius, generator), 4) for _ in range(2))
        needles.append(Needle(shape, colour, frame, frame / fps, x, y, round(radius, 4)))
    return tuple(needles)


def ask(
    needles: tuple[Needle, ...],
    num_frames: int,
    fps: float,
    group: int,
    about_all: Sequence[Ask],
    generator: torch.Generator,
) -> list[Question]:
    """What, colour and when about up to `ABOUT` needles each, order from two on, those of ``about_all``; shuffled."""
    questions = [count(needles) if which == "count" else _exists(needles, generator) for which in about_all]
    starts = tuple(f"{i * group / fps:g} s" for i in range(num_frames // group))

    def picked() -> list[Needle]:
        return [needles[i] for i in torch.randperm(len(needles), generator=generator)[:ABOUT].tolist()]

    questions += [what(n, _span(n, fps)) for n in picked()]
    questions += [colour(n, _span(n, fps)) for n in picked()]
    questions += [when(n, starts[n.frame // group], starts, _span(n, fps)) for n in picked()]
    if len(needles) > 1:
        a, b = torch.randperm(len(needles), generator=generator)[:2].tolist()
        questions.append(order(needles[a], needles[b]))
    return [questions[i] for i in torch.randperm(len(questions), generator=generator).tolist()]


def _span(needle: Needle, fps: float) -> tuple[float, float]:
    return needle.time, needle.time + 1 / fps


def what(needle: Needle, span: tuple[float, float]) -> Question:
    """Its shape, by its colour."""
    return Question("what", f"What shape is the {needle.colour} object?", needle.shape, SHAPES, span)


def colour(needle: Needle, span: tuple[float, float]) -> Question:
    """Its colour, by its shape."""
    return Question("colour", f"What colour is the {needle.shape}?", needle.colour, tuple(COLOURS), span)


def when(needle: Needle, answer: str, choices: tuple[str, ...], span: tuple[float, float]) -> Question:
    """Its time, as ``answer`` says it, by its colour and shape."""
    return Question("when", f"When does the {needle.colour} {needle.shape} appear?", answer, choices, span)


def count(needles: Sequence[Needle]) -> Question:
    """How many there are."""
    return Question("count", "How many coloured shapes appear?", str(len(needles)), COUNTS, None)


def order(a: Needle, b: Needle) -> Question:
    """Which of two came first."""
    text = f"Which came first, the {a.shape} or the {b.shape}?"
    return Question("order", text, min(a, b, key=lambda n: n.frame).shape, (a.shape, b.shape), None)


def _exists(needles: tuple[Needle, ...], generator: torch.Generator) -> Question:
    """Is one there?"""
    if needles and uniform(0, 1, generator) < YES_IF_ANY:
        needle = needles[integer(0, len(needles), generator)]
        return Question("exists", f"Is there a {needle.colour} {needle.shape}?", "yes", YES_NO, None)
    present = {(n.colour, n.shape) for n in needles}
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in present | HELD_OUT]
    colour, shape = absent[integer(0, len(absent), generator)]
    return Question("exists", f"Is there a {colour} {shape}?", "no", YES_NO, None)


def annotate(identity: str, video: str, needles: tuple[Needle, ...], questions: list[Question], **meta: Any) -> Sample:
    """The clip's annotation: every question in one conversation, and beside it what is known about each."""
    turns = []
    for i, q in enumerate(questions):
        turns += [Turn("human", ("<image>\n" if i == 0 else "") + q.text), Turn("gpt", q.answer)]
    return Sample(
        identity,
        video,
        tuple(turns),
        {
            "task": [q.task for q in questions],
            "choices": [list(q.choices) for q in questions],
            "answer_span": [None if q.span is None else list(q.span) for q in questions],
            "needles": [asdict(n) | {"held_out": (n.colour, n.shape) in HELD_OUT} for n in needles],
            **meta,
        },
    )
