"""What is planted in a haystack and asked about it: drawn from the seed, the cell and a number alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vxl_lightning.data.synth.clips import integer, uniform
from vxl_lightning.data.synth.questions import Needle, Question, colour, count, order, what, when
from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES
from vxl_lightning.data.synth.writing import generator_for
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig, Pairs
from vxl_lightning.models.time_text import SHORT

TIMES = 8
"""Times among which *when* is asked for."""


@dataclass(frozen=True)
class Cell:
    """One haystack of the grid: ``length`` frames, the needle asked about at ``depth``, and a number among equals."""

    length: int
    depth: float
    index: int

    @property
    def name(self) -> str:
        return f"{self.length}/{self.depth:g}/{self.index}"


@dataclass(frozen=True)
class Posed:
    """A question and the needles that its answer rests on, as indices."""

    question: Question
    about: tuple[int, ...]


@dataclass(frozen=True)
class Planted:
    """A haystack's needles and questions.

    Attributes:
        cell: where in the grid.
        begin: frame of the haystack at which its window begins.
        needles: in the order of time, frames counted from ``begin``.
        asked: index of the needle at the cell's depth.
        questions: about it, about two, about all.
    """

    cell: Cell
    begin: int
    needles: tuple[Needle, ...]
    asked: int
    questions: tuple[Posed, ...]


def cells(config: NeedleEvaluationConfig) -> list[Cell]:
    """All of a configuration, shorter ones first."""
    return [
        Cell(length, depth, index)
        for length in sorted(config.lengths)
        for depth in sorted(config.depths)
        for index in range(config.per_cell)
    ]


def plant(config: NeedleEvaluationConfig, cell: Cell, frames: int, fps: float, group: int) -> Planted:
    """What is planted for a cell.

    Args:
        config: what may be planted and is asked.
        cell: where.
        frames: of the haystack; at least the cell's.
        fps: frames a second.
        group: frames that share one time text: every needle is in one of its own, and a time is answered by its start.
    """
    generator = generator_for("needles at length", config.seed, cell.length, cell.depth, cell.index)
    begin = integer(0, frames - cell.length + 1, generator)
    first = depth_frame(cell.length, cell.depth, group, generator)
    groups = torch.randperm(-(-cell.length // group), generator=generator).tolist()
    others = [g for g in groups if g != first // group][: integer(0, config.needles, generator)]
    places = [first, *(_within(g, cell.length, group, generator) for g in others)]
    named = _names(len(places), config.pairs, generator)
    made = [_needle(*name, frame, fps, generator) for name, frame in zip(named, places, strict=True)]
    needles = tuple(sorted(made, key=lambda n: n.frame))
    asked = needles.index(made[0])
    posed = _questions(config.tasks, needles, asked, cell.length, fps, group, generator)
    return Planted(cell, begin, needles, asked, posed)


def depth_frame(length: int, depth: float, group: int, generator: torch.Generator) -> int:
    """A frame in the group of frame ``int(depth * (length - 1))``, never the group's first.

    Where that group is a last one of a single frame it is a frame of the group before; a video of one frame, or of
    groups of one, leaves no choice.
    """
    at = int(depth * (length - 1))
    if group == 1 or length == 1:
        return at
    here = at // group
    return _within(here - (here * group == length - 1), length, group, generator)


def _within(number: int, length: int, group: int, generator: torch.Generator) -> int:
    """A frame of a group, not its first where it has others."""
    first = number * group
    size = min(group, length - first)
    return first if size == 1 else first + integer(1, size, generator)


def _names(number: int, pairs: Pairs, generator: torch.Generator) -> list[tuple[str, str]]:
    """Different colours with different shapes; the first is the needle asked about."""
    while True:
        shapes = [SHAPES[i] for i in torch.randperm(len(SHAPES), generator=generator)[:number].tolist()]
        colours = [list(COLOURS)[i] for i in torch.randperm(len(COLOURS), generator=generator)[:number].tolist()]
        found = list(zip(colours, shapes, strict=True))
        if pairs == "any" or (found[0] in HELD_OUT if pairs == "held_out" else not HELD_OUT.intersection(found)):
            return found


def _needle(name: str, shape: str, frame: int, fps: float, generator: torch.Generator) -> Needle:
    radius = uniform(0.15, 0.20, generator)
    x, y = (round(uniform(radius, 1 - radius, generator), 4) for _ in range(2))
    return Needle(shape, name, frame, frame / fps, x, y, round(radius, 4))


def _questions(
    tasks: Sequence[str],
    needles: tuple[Needle, ...],
    asked: int,
    length: int,
    fps: float,
    group: int,
    generator: torch.Generator,
) -> tuple[Posed, ...]:
    """Of each task the question that there is: *order* needs two needles, *when* two groups."""
    needle, alone = needles[asked], (asked,)
    span = group_span(needle.frame, length, fps, group)
    posed = {"what": Posed(what(needle, span), alone), "colour": Posed(colour(needle, span), alone)}
    posed["count"] = Posed(count(needles), tuple(range(len(needles))))
    times = _times(needles, asked, length, fps, group, generator)
    if len(times) > 1:
        posed["when"] = Posed(when(needle, said(span[0]), times, span), alone)
    others = [i for i in range(len(needles)) if i != asked]
    if others:
        other = others[integer(0, len(others), generator)]
        pair = [asked, other] if integer(0, 2, generator) else [other, asked]
        posed["order"] = Posed(order(needles[pair[0]], needles[pair[1]]), tuple(sorted(pair)))
    return tuple(posed[task] for task in tasks if task in posed)


def group_span(frame: int, length: int, fps: float, group: int) -> tuple[float, float]:
    """Seconds of the group that a frame is in."""
    first = frame // group * group
    return first / fps, min(first + group, length) / fps


def said(seconds: float) -> str:
    """A time as questions and time text say it."""
    return SHORT.format(round(seconds, 1))


def _times(
    needles: tuple[Needle, ...], asked: int, length: int, fps: float, group: int, generator: torch.Generator
) -> tuple[str, ...]:
    """Times to choose among: the right one, those of the other needles, and of any groups, up to `TIMES`."""
    right = needles[asked].frame // group
    elsewhere = [n.frame // group for i, n in enumerate(needles) if i != asked]
    anywhere = torch.randperm(-(-length // group), generator=generator)[: 2 * TIMES].tolist()
    texts: dict[str, int] = {}
    for number in [right, *elsewhere, *anywhere]:
        if len(texts) < TIMES:
            texts.setdefault(said(number * group / fps), number)
    return tuple(sorted(texts, key=lambda text: texts[text]))
