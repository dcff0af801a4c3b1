"""Does the answer need the video? The loss of known answers, blind and up a ladder of what is shown.

After VisNec (arXiv 2603.01195: loss without vision minus loss with it; below zero misaligned, near zero redundant)
and the VDS of GDO (arXiv 2603.12478: the same on answer tokens, for video), with VidGround's use of it (answerable
from the text: drop it). The steps between blind and full, what their differences mean, and the losses of listed
choices are this project's own.

The loss of an answer is the mean negative log-likelihood of its tokens (nats a token, `ladder.MAX_ANSWER` at most,
without the end of turn). Where the record lists ``choices`` it is the negative log of the answer's probability among
them: a model that does not know says log C, one that knows says 0, whatever the words are. The loss of a sample is
the mean over its answers.

============= ======================================================================================
``blind``      the chat's head and the question: no video at all
``one``        the middle frame, held for the whole video
``few``        ``frames`` frames, evenly spaced, each held for its stretch of the video
``shuffled``   all frames, the video cut into ``frames`` stretches that come in another order (`reordered`)
``full``       all frames, ``max_frames`` at most
============= ======================================================================================
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from vxl_lightning.curation.ladder import Asked, Reader, asked, reader
from vxl_lightning.curation.recipe import NecessityRules
from vxl_lightning.errors import UserError
from vxl_lightning.models.prefix import Prefix
from vxl_lightning.tokens import VideoGrid

BLIND = pa.schema([("row", pa.int64()), ("blind", pa.float32())])
STEPS = ("one", "few", "shuffled", "full")
LOSSES = ("blind", *STEPS)
LADDER = pa.schema(
    [
        ("row", pa.int64()),
        *((step, pa.float32()) for step in LOSSES),
        ("problem", pa.string()),  # null, or undecodable, too_short, too_long
        ("detail", pa.string()),
    ]
)
Losses = NDArray[np.float64]
Flags = NDArray[np.bool_]
Tree = tuple[Prefix, list[Asked]]
Problem = tuple[str | None, str | None]
FINE: Problem = (None, None)


def blind(samples: pa.Table, settings: NecessityRules) -> pa.Table:
    """The loss of every sample's answers when no video is shown.

    Args:
        samples: ``row`` and ``record`` (JSON) of well-formed samples.
        settings: the language model that is asked; where it is empty, that of the video language model.

    Returns:
        `BLIND`, in the order of ``samples``; null where a sample has no answer, or one longer than the model's context.
        A question that names its choices is asked with them in every rotation, and the mean probability counts.
    """
    model = reader("" if settings.language_model else settings.model, settings.language_model, settings.device)
    items = samples.select(["row", "record"]).to_pylist()
    head = model.model.nothing()
    questions = [asked(item["record"]) for item in items]
    short = [all(model.length(head, q) <= model.limit for q in qs) for qs in questions]
    turned = [[q.turned() for q in qs] if fits else [] for qs, fits in zip(questions, short, strict=True)]
    everything = [way for ways in turned for several in ways for way in several]
    losses = iter(model.losses([(head, everything)], settings.batch_size)[0])
    rows = []
    for item, ways in zip(items, turned, strict=True):
        of_sample = [[next(losses) for _ in several] for several in ways]
        rows.append({"row": item["row"], "blind": _mean([_over_ways(several) for several in of_sample])})
    return pa.Table.from_pylist(rows, BLIND)


def _over_ways(losses: list[float]) -> float:
    """Loss of the mean probability over the ways in which one question was asked."""
    if len(losses) == 1:
        return losses[0]
    return float(np.log(len(losses)) - np.logaddexp.reduce([-loss for loss in losses]))


def ladder(samples: pa.Table, settings: NecessityRules, media_root: Path, seed: int) -> pa.Table:
    """The loss of every sample's answers, a step of the ladder a column.

    Samples that follow one another and show the same media share its decoding and encoding: sort by ``media``.

    Args:
        samples: ``row``, ``record``, ``media`` and ``kind`` of well-formed samples.
        settings: the model, and how many frames the steps between show.
        media_root: folder of the media.
        seed: of the shuffled order, which also depends on the media's path.

    Returns:
        `LADDER`, in the order of ``samples``. An image has only ``blind`` and ``full``: nothing to leave out or
        to shuffle. What cannot be shown has nulls and a problem: ``undecodable`` media, ``too_short`` for the
        compressor, ``too_long`` for the language model.

    Raises:
        UserError: ``settings.model`` is empty or cannot be used.
    """
    if not settings.model:
        raise UserError("necessity.model is empty: the steps that show video need the folder of a tuned VideoLM")
    model = reader(settings.model, settings.language_model, settings.device)
    found: list[dict[str, Any]] = []
    waiting: list[_Shown] = []
    items = samples.select(["row", "record", "media", "kind"]).to_pylist()
    for _, run in groupby(items, key=lambda item: (item["media"], item["kind"])):
        waiting.append(_show(list(run), model, settings, media_root, seed))
        # Prefixes are small: those of several videos wait until their questions fill a forward pass.
        if sum(len(qs) for media in waiting for qs in media.questions) >= settings.batch_size:
            found += _losses(waiting, model, settings.batch_size)
            waiting = []
    found += _losses(waiting, model, settings.batch_size)
    return pa.Table.from_pylist(found, LADDER)


def weights(
    blind: Losses, one: Losses, few: Losses, shuffled: Losses, full: Losses, settings: NecessityRules
) -> tuple[Losses, Losses, Flags, Flags]:
    """What the losses say of every sample; NaN stands for a step that was not taken.

    Returns:
        ``necessity``, blind minus full, NaN where either is. ``weight``, the product of what follows, else 1.
        ``one_frame``: seeing one frame helps by more than the margin, and as much as seeing all within it.
        ``ordered``: the parts in another order are worse than in their own by more than the margin, of a video that
        helps at all. A comparison with NaN holds for neither.
    """
    necessity = blind - full
    one_frame = (blind - one > settings.margin) & (one - full <= settings.margin)
    ordered = (shuffled - full > settings.margin) & (necessity > 0)
    weight = np.where(one_frame, settings.one_frame, 1.0) * np.where(ordered, settings.ordered, 1.0)
    return necessity, weight, one_frame, ordered


def held(frames: int, shown: int) -> Tensor:
    """``[frames]``: which frame is on screen when ``shown`` of them, evenly spaced, are held for a stretch each."""
    shown = min(shown, frames)
    stretch = torch.arange(frames) * shown // frames
    # The middle of stretch s, which for one stretch is the middle of the video.
    return (2 * stretch + 1) * frames // (2 * shown)


def reordered(frames: int, parts: int, unit: int, generator: torch.Generator) -> Tensor:
    """``[frames]``: all frames, cut into ``parts`` stretches that come last to first, none in its own place.

    A drawn order leaves half of all pairs as they were, and the reverse none: with the demo's model it makes 85% of the
    which-came-first questions that the video helps with worse, a drawn one 38%. Of an odd number of stretches the
    middle one changes places with a neighbour, and which is drawn.

    Cuts fall between whole units of ``unit`` frames, the compressor's groups, so that no group mixes two stretches;
    what is left of the last unit stays at the end. A video too short for two units is cut anywhere, and a single
    frame has no other order.
    """
    unit = unit if frames >= 2 * unit else 1
    count = frames // unit
    parts = max(min(parts, count), min(2, count))
    cuts = [part * count // parts * unit for part in range(parts + 1)]
    order = list(range(parts))[::-1]
    if parts % 2 and parts > 1:
        middle = parts // 2
        other = middle - 1 + 2 * int(torch.randint(2, (), generator=generator))
        order[middle], order[other] = order[other], order[middle]
    pieces = [torch.arange(cuts[p], cuts[p + 1]) for p in order]
    return torch.cat([*pieces, torch.arange(cuts[-1], frames)])


@dataclass(frozen=True)
class _Shown:
    """Samples of one media, and what the model reads in every step: prefixes, each with the questions after it.

    A sample with a problem has no questions.
    """

    rows: list[int]
    questions: list[list[Asked]]
    problems: list[Problem]
    trees: dict[str, list[Tree]]


def _show(items: list[dict[str, Any]], model: Reader, settings: NecessityRules, media_root: Path, seed: int) -> _Shown:
    """Decode, encode and lay out one media in all its steps."""
    name, kind = items[0]["media"], items[0]["kind"]
    rows, questions = [item["row"] for item in items], [asked(item["record"]) for item in items]

    def failed(problem: str, detail: str) -> _Shown:
        return _Shown(rows, [[] for _ in rows], [(problem, detail)] * len(rows), {})

    try:
        grid = model.grid(media_root / name, name, settings.max_frames)
    except UserError as error:
        return failed("undecodable", str(error))
    frames, compressor = grid.shape[1], model.model.compressor
    if frames < compressor.min_frames:
        return failed("too_short", f"{frames} frames, {type(compressor).__name__} needs {compressor.min_frames}")
    unit = compressor.frames_per_group or model.model.prompt.frames_per_time
    orders = {
        "one": held(frames, 1),
        "few": held(frames, settings.frames),
        "shuffled": reordered(frames, settings.frames, unit, _generator(seed, name)),
        "full": torch.arange(frames),
    }
    with torch.inference_mode():
        lengths = (
            model.length(prefix, question)
            for prefix, after in model.prefixes(grid, [q for qs in questions for q in qs])
            for question in after
        )
        problems = [_too_long(max((next(lengths) for _ in qs), default=0), model.limit) for qs in questions]
        questions = [qs if problem == FINE else [] for qs, problem in zip(questions, problems, strict=True)]
        everything = [q for qs in questions for q in qs]
        steps = ["full"] if kind == "image" else STEPS
        trees = {step: model.prefixes(_frames(grid, orders[step]), everything) for step in steps if everything}
        trees["blind"] = [(model.model.nothing(), everything)]
    return _Shown(rows, questions, problems, trees)


def _too_long(length: int, limit: int) -> Problem:
    if length <= limit:
        return FINE
    return "too_long", f"{length:,} positions, the language model has {limit:,}; lower necessity.max_frames"


def _losses(shown: list[_Shown], model: Reader, batch_size: int) -> Iterator[dict[str, Any]]:
    """The `LADDER` rows of some media, all of a step's questions together."""
    found: dict[str, Iterator[float]] = {}
    for step in LOSSES:
        trees = [tree for media in shown for tree in media.trees.get(step, [])]
        found[step] = chain.from_iterable(model.losses(trees, batch_size))
    for media in shown:
        for row, questions, (problem, detail) in zip(media.rows, media.questions, media.problems, strict=True):
            losses = {
                step: _mean([next(found[step]) for _ in questions] if step in media.trees else []) for step in LOSSES
            }
            yield {"row": row, **losses, "problem": problem, "detail": detail}


def _frames(grid: VideoGrid, index: Tensor) -> VideoGrid:
    """A video that shows its frames ``index``, at the times of its own."""
    index = index.to(grid.features.device)
    importance = None if grid.importance is None else grid.importance[:, index]
    return VideoGrid(grid.features[:, index], grid.times, grid.frame_mask, importance)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _mean(losses: list[float]) -> float | None:
    return float(np.mean(losses)) if losses else None
