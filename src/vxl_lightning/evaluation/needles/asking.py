"""Questions about a planted haystack to one row: answers, and where on the road a needle was lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.caches.forward import attentions, extended, sliding_window
from vxl_lightning.data.synth.questions import Needle, Question
from vxl_lightning.data.synth.shapes import COLOURS, HELD_OUT, SHAPES
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.needles.plant import Planted, Posed
from vxl_lightning.evaluation.needles.road import Spent, Watched, timed
from vxl_lightning.evaluation.spans import Span, find_moment, find_span, temporal_iou
from vxl_lightning.models import scoring
from vxl_lightning.models.alignment import group_reach
from vxl_lightning.models.answering import generated
from vxl_lightning.models.packing import Segment
from vxl_lightning.models.prefix import Prefix, Projected
from vxl_lightning.models.remembering import Row, check_length, rows
from vxl_lightning.models.video_lm import VideoLM

Record = dict[str, Any]
OVERLAPS = (0.3, 0.5, 0.7)


@dataclass
class Asked:
    """One row's answers about one planted haystack, plain, and what they cost: that is measured and does not repeat."""

    records: list[Record] = field(default_factory=list)
    spent: Spent = field(default_factory=dict)


@torch.no_grad()
def ask(model: VideoLM, watched: Watched, planted: Planted, fps: float, max_new_tokens: int) -> Asked:
    """Every question three ways: its answer forced token by token, the likeliest of its choices, and said freely.

    The first is the measure of V-NIAH (LongVA, arXiv 2406.16852): ``exact`` where every token of the answer, its end
    left out, is the likeliest after those before it.

    Questions share one prefix where it does not depend on them. A prefix that does not fit the language model is
    recorded as ``failed``, with the reason, beside what was ready to be read.
    """
    asked = Asked()
    shared = model.selector is None and not model.compressor.needs_query
    for posed in [list(planted.questions)] if shared else [[q] for q in planted.questions]:
        _ask(model, watched, planted, posed, fps, max_new_tokens, asked)
    return asked


def _ask(
    model: VideoLM, watched: Watched, planted: Planted, posed: list[Posed], fps: float, most: int, asked: Asked
) -> None:
    spent, questions = asked.spent, [p.question for p in posed]
    projected = watched.of(model, questions[0].text, spent)
    prefix = timed(spent, "select", lambda: model.prefix(projected, 0, questions[0].text))
    reach, frames = group_reach(model, projected, [*COLOURS, *SHAPES]), model.prompt.frames_per_time
    found = [
        _kept(projected, prefix, planted, p, fps) | {"read": _named(p.question.task, reach, planted, frames)}
        for p in posed
    ]
    answers = timed(spent, "answer", lambda: _answers(model, prefix, questions, most))
    for record, question, answer in zip(found, questions, answers, strict=True):
        said = overlap(question, answer["reply"], planted, fps, model) if not answer["failed"] else {}
        asked.records.append(record | answer | said)


def _answers(model: VideoLM, prefix: Prefix, questions: list[Question], most: int) -> list[Record]:
    texts = [q.text for q in questions]
    # What a cache compressor leaves takes the positions it had, so that it is read before it is known to be too long.
    why = _too_long(model, len(prefix.embeds), texts, most) if model.cache is None else ""
    read = [] if why else _read_prefix(model, prefix, texts)
    memory = {i: row.memory for row in read for i in row.questions}
    if model.cache is not None:
        why = _too_long(model, max(m.position for m in memory.values() if m is not None), texts, most)
    if why:
        return [{"failed": why} for _ in questions]
    judged = scoring.judged_choices(model, read, [texts], [[q.choices for q in questions]])[0]
    found = []
    for i, q in enumerate(questions):
        scores = [float(choice.log_likelihood.sum()) for choice in judged[i]]
        choice = q.choices[scores.index(max(scores))]
        right = judged[i][q.choices.index(q.answer)].likeliest[: len(model.layout.chat.answer(q.answer))]
        reply = generated(model, prefix, memory[i], q.text, most)
        found.append(
            {"reply": reply, "choice": choice, "exact": bool(right.all()), "chosen": choice == q.answer}
            | {"generated": plain(reply) == plain(q.answer), "failed": ""}
        )
    return found


def _too_long(model: VideoLM, begin: int, texts: list[str], most: int) -> str:
    """Why questions do not fit behind ``begin`` positions; empty where they do."""
    try:
        for text in texts:
            check_length(model, begin, text, most)
    except UserError as error:
        return str(error)
    return ""


def _read_prefix(model: VideoLM, prefix: Prefix, texts: list[str]) -> list[Row]:
    """What questions follow: the prefix is read once for all of them, and for all three ways of asking.

    A family of language models whose passes cannot be taken up again reads it with every question.
    """
    if model.cache is not None or not _remembers(model):
        return rows(model, [prefix], [texts])
    memory = extended(model.plain, prefix.embeds, None)
    return [Row(0, list(range(len(texts))), Segment(prefix.embeds[:0], -1), memory)]


def _remembers(model: VideoLM) -> bool:
    try:
        attentions(model.plain)
    except ValueError:
        return False
    return sliding_window(model.plain.config) is None


def plain(text: str) -> str:
    """Without case, space around it, or a full stop behind it."""
    return " ".join(text.lower().split()).rstrip(".")


def overlap(question: Question, reply: str, planted: Planted, fps: float, model: VideoLM) -> Record:
    """Where *when* is asked: how far the seconds that were said overlap those of the needle's group."""
    if question.task != "when" or question.span is None:
        return {}
    said = said_span(reply, model.prompt.frames_per_time / fps, planted.cell.length / fps)
    iou = 0.0 if said is None else temporal_iou(question.span, said)
    return {"said": None if said is None else list(said), "iou": iou} | {f"r@{x}": iou >= x for x in OVERLAPS}


def said_span(reply: str, seconds: float, end: float) -> Span | None:
    """The span that a reply gives; one that gives a moment alone means the group of that many seconds from it on."""
    if (span := find_span(reply)) is not None:
        return span
    moment = find_moment(reply)
    return None if moment is None else (moment, max(moment, min(moment + seconds, end)))


def unasked(planted: Planted, posed: Posed, fps: float, why: str) -> Record:
    """The record of a question that cannot be asked."""
    return _posed(planted, posed, fps) | {"failed": why}


def _posed(planted: Planted, posed: Posed, fps: float) -> Record:
    question, needles = posed.question, [planted.needles[i] for i in posed.about]
    main = planted.needles[planted.asked]
    return {
        "task": question.task,
        "question": question.text,
        "answer": question.answer,
        "choices": list(question.choices),
        "span": None if question.span is None else list(question.span),
        "pair": f"{main.colour} {main.shape}",
        "held_out": (main.colour, main.shape) in HELD_OUT,
        "needles": len(planted.needles),
        "frames": [n.frame for n in needles],
        "seconds": [n.frame / fps for n in needles],
    }


def _kept(projected: Projected, prefix: Prefix, planted: Planted, posed: Posed, fps: float) -> Record:
    """The question, and whether tokens that stand for its needles were made and reached the language model."""
    needles = [planted.needles[i] for i in posed.about]
    source = projected.tokens.source[0]
    carriers = [source[n.frame][cells_under(n, source.shape[1], source.shape[2]).to(source.device)] for n in needles]
    reached = torch.zeros(len(projected.tokens.features) + 1, dtype=torch.bool, device=source.device)
    reached[prefix.token] = True  # -1, dropped, is the last, which nothing reaches
    return _posed(planted, posed, fps) | {
        "carried": all(bool((c >= 0).any()) for c in carriers),
        "recalled": all(bool(reached[c].any()) for c in carriers),
        "visual_tokens": len(prefix.place),
        "positions": len(prefix.embeds),
    }


def cells_under(needle: Needle, height: int, width: int) -> Tensor:
    """``[H, W]`` bool: the cell under the middle of a needle and all whose middles its radius covers."""
    rows_, columns = (torch.arange(n) + 0.5 for n in (height, width))
    short = min(height, width)  # the radius is a fraction of the frame's short side, and cells are square
    away = ((rows_ - needle.y * height)[:, None] ** 2 + (columns - needle.x * width)[None] ** 2).sqrt()
    under = away <= needle.radius * short
    under[min(int(needle.y * height), height - 1), min(int(needle.x * width), width - 1)] = True
    return under


def _named(task: str, reach: Tensor, planted: Planted, frames: int) -> bool | None:
    """Whether tokens by themselves name what is asked of one needle, as in `models.read_out`; None of several."""
    needle = planted.needles[planted.asked]
    colour, shape = list(COLOURS).index(needle.colour), len(COLOURS) + SHAPES.index(needle.shape)
    here = needle.frame // frames
    if not bool(reach[here].isfinite().all()):
        return False if task in ("what", "colour", "when") else None
    if task == "what":
        return int(reach[here, len(COLOURS) :].argmax()) == shape - len(COLOURS)
    if task == "colour":
        return int(reach[here, : len(COLOURS)].argmax()) == colour
    return int((reach[:, colour] + reach[:, shape]).argmax()) == here if task == "when" else None


def lost(record: Mapping[str, Any]) -> str:
    """Where on the road a question that was not answered exactly went wrong; empty where it was."""
    if record["exact"]:
        return ""
    if not record["carried"]:
        return "compressor"
    return "language model" if record["recalled"] else "selector"
