"""V-STaR's rows: five questions of each, with their truths."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vxl_lightning.evaluation.base import Question
from vxl_lightning.evaluation.phrases import words
from vxl_lightning.evaluation.rows import Row, RowError

COORDINATES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Part:
    """One of the five questions of a row.

    Attributes:
        name: ends the question's id.
        aspect: what, when or where.
        chain: 1 (what, when, where), 2 (what, where, when), or both.
        question: the row's field that asks it.
        answer: the field under which the authors' scorer looks for what was found in the reply.
        raw: the field of the reply itself, or none.
    """

    name: str
    aspect: str
    chain: str
    question: str
    answer: str
    raw: str = ""


PARTS = (
    Part("what", "what", "both", "question", "answer_vqa"),
    Part("when-1", "when", "1", "temporal_question", "answer_temporal", "answer_temporal_pre"),
    Part("where-1", "where", "1", "spatial_question", "answer_spatial", "answer_spatial_pre"),
    Part("where-2", "where", "2", "spatial_question_2", "answer_spatial_2", "answer_spatial_pre_2"),
    Part("when-2", "when", "2", "temporal_question", "answer_temporal_2", "answer_temporal_pre_2"),
)


def questions_of(row: Row, videos: Mapping[str, str]) -> list[Question]:
    name = f"{row.word('vid')}.mp4"
    if "/" in name or "\\" in name or "\x00" in name:
        raise RowError(f"vid: must be the name of a video without folders, not {name!r}")
    for field in ("fps", "frame_count", "width", "height"):
        if _number(row, field) <= 0:
            raise RowError(f"{field}: must be above 0, not {row.field(field)}")
    boxes = [_box(box) for box in row.rows("bboxes")]
    if not boxes:
        raise RowError("bboxes: must not be empty")
    if not words(row.text("answer")):
        raise RowError(f"answer: must have a word, not {row.text('answer')!r}")
    answers = {"what": row.text("answer"), "when": json.dumps(_timestamps(row)), "where": json.dumps(boxes)}
    seconds = length_of(row.value)
    duration = "Short" if seconds < 60 else "Medium" if seconds < 180 else "Long"
    shared = {"domain": row.text("domain"), "duration": duration}
    return [
        Question(
            id=f"{row.key}-{part.name}",
            video=videos.get(name, f"videos/{name}"),
            text=row.text(part.question),
            answer=answers[part.aspect],
            categories={"aspect": part.aspect, "chain": part.chain, **shared},
            bundle=row.key,
            meta={"part": part.name, "row": row.value},
        )
        for part in PARTS
    ]


def _box(row: Row) -> dict[str, float]:
    try:
        return {c: _number(row, c) for c in ("timestamp", *COORDINATES)}
    except RowError as error:
        raise RowError(f"bboxes[{row.key}]: {error}") from None


def _timestamps(row: Row) -> list[float]:
    ends = row.field("timestamps")
    if not isinstance(ends, list) or len(ends) != 2:
        raise RowError(f"timestamps: must be a list of two numbers, not {ends!r:.80}")
    begin, end = (_number(Row(row.where, {"timestamps": t}), "timestamps") for t in ends)
    if not 0 <= begin < end:
        raise RowError(f"timestamps: must rise from 0 or later, not {ends!r}")
    return [begin, end]


def _number(row: Row, name: str) -> float:
    """A number as it is published, whole or not: prompts repeat it."""
    checked, value = row.number(name), row.field(name)
    return value if isinstance(value, int | float) else checked


def length_of(row: Mapping[str, Any]) -> float:
    """Seconds of the video, as the authors give them."""
    return round(float(row["frame_count"]) / float(row["fps"]), 2)
