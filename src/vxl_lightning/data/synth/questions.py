"""Needles of a clip and the questions about them, each with exactly one answer among listed choices."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from vxl_lightning.data.synth.clips import integer, uniform
from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES

COUNTS = ("0", "1", "2", "3", "4")
MAX_NEEDLES = len(COUNTS) - 1


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
    needles: tuple[Needle, ...], num_frames: int, fps: float, group: int, wanted: int, generator: torch.Generator
) -> list[Question]:
    """Up to ``wanted`` questions about a clip, in random order; without needles only how many and whether."""
    questions = [_count(needles), _exists(needles, generator)]
    if needles:

        def pick() -> Needle:
            return needles[integer(0, len(needles), generator)]

        what, colour, when = pick(), pick(), pick()
        seconds = group / fps
        starts = tuple(_seconds(i * seconds) for i in range(num_frames // group))
        # The three that read one needle come first: of `wanted` questions they are never left out.
        questions = [
            Question("what", f"What shape is the {what.colour} object?", what.shape, SHAPES, _span(what, fps)),
            Question(
                "colour", f"What colour is the {colour.shape}?", colour.colour, tuple(COLOURS), _span(colour, fps)
            ),
            Question(
                "when",
                f"When does the {when.colour} {when.shape} appear?",
                starts[when.frame // group],
                starts,
                _span(when, fps),
            ),
            *([_order(needles, generator)] if len(needles) > 1 else []),
            *(questions if integer(0, 2, generator) else reversed(questions)),
        ]
    questions = questions[:wanted]
    return [questions[i] for i in torch.randperm(len(questions), generator=generator).tolist()]


def _span(needle: Needle, fps: float) -> tuple[float, float]:
    return needle.time, needle.time + 1 / fps


def _seconds(value: float) -> str:
    return f"{value:g} s"


def _count(needles: tuple[Needle, ...]) -> Question:
    return Question("count", "How many coloured shapes appear?", str(len(needles)), COUNTS, None)


def _order(needles: tuple[Needle, ...], generator: torch.Generator) -> Question:
    a, b = torch.randperm(len(needles), generator=generator)[:2].tolist()
    text = f"Which came first, the {needles[a].shape} or the {needles[b].shape}?"
    return Question("order", text, needles[min(a, b)].shape, (needles[a].shape, needles[b].shape), None)


def _exists(needles: tuple[Needle, ...], generator: torch.Generator) -> Question:
    """Is one there? Where there are needles, yes and no are equally likely."""
    if needles and integer(0, 2, generator):
        needle = needles[integer(0, len(needles), generator)]
        text, answer, span = f"{needle.colour} {needle.shape}", "yes", None
    else:
        present = {(n.colour, n.shape) for n in needles}
        absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in present and (c, s) not in HELD_OUT]
        colour, shape = absent[integer(0, len(absent), generator)]
        text, answer, span = f"{colour} {shape}", "no", None
    return Question("exists", f"Is there a {text}?", answer, ("yes", "no"), span)


def annotate(
    identity: str, video: str, needles: tuple[Needle, ...], questions: list[Question], **meta: Any
) -> dict[str, Any]:
    """The clip's record in LLaVA's form; what is not conversation is kept beside it."""
    turns = []
    for i, q in enumerate(questions):
        turns.append({"from": "human", "value": ("<image>\n" if i == 0 else "") + q.text})
        turns.append({"from": "gpt", "value": q.answer})
    return {
        "id": identity,
        "video": video,
        "conversations": turns,
        "task": [q.task for q in questions],
        "choices": [list(q.choices) for q in questions],
        "answer_span": [None if q.span is None else list(q.span) for q in questions],
        "needles": [asdict(n) | {"held_out": (n.colour, n.shape) in HELD_OUT} for n in needles],
        **meta,
    }
