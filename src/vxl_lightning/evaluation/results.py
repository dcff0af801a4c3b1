"""The tables of an evaluation: what the replies are worth, per figure, per group, and against the reference row."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.ablation.statistics import clustered_mean, sign_flip
from vxl_lightning.evaluation.asking import Answered, reply_text
from vxl_lightning.evaluation.base import Benchmark, Figure, Judged
from vxl_lightning.evaluation.config import REFERENCE

Records = list[dict[str, Any]]

_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int64()
SCHEMAS = {
    "results": pa.schema(
        {
            **dict.fromkeys(("row", "benchmark", "figure"), _TEXT),
            **dict.fromkeys(("value", "se"), _REAL),
            **{"n": _COUNT, "unit": _TEXT, "headline": pa.bool_()},
            **dict.fromkeys(("retained", "difference", "p"), _REAL),
        }
    ),
    "groups": pa.schema(
        {
            **dict.fromkeys(("row", "benchmark", "grouping", "group"), _TEXT),
            **dict.fromkeys(("n", "videos"), _COUNT),
            **dict.fromkeys(("mean", "se", "unparsed"), _REAL),
            "failed": _COUNT,
        }
    ),
    "questions": pa.schema(
        {
            **dict.fromkeys(("row", "benchmark", "id", "video", "question"), _TEXT),
            "options": pa.list_(_TEXT),
            **dict.fromkeys(("categories", "answer", "reply", "parsed"), _TEXT),
            **{"score": _REAL, "kept": pa.list_(_REAL), "visual_tokens": _REAL, "failed": _TEXT},
        }
    ),
}
"""Columns of the tables, whatever is in them: a column of nothing but None would have no type."""


@dataclass(frozen=True)
class Answers:
    """One row's replies to one benchmark, judged; in the order of the questions."""

    row: str
    benchmark: str
    answered: Sequence[Answered]
    judged: Sequence[Judged]

    @classmethod
    def of(cls, row: str, name: str, benchmark: Benchmark, answered: Sequence[Answered]) -> "Answers":
        judged = []
        for a in answered:
            text = reply_text(benchmark, a)
            judged.append(Judged(a.question, text, benchmark.judge(a.question, text)))
        return cls(row, name, answered, judged)

    @property
    def scores(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        return np.asarray([j.judgement.score for j in self.judged], dtype=np.float64)

    @property
    def videos(self) -> list[str]:
        return [j.question.video for j in self.judged]


def figures(answers: Sequence[Answers], benchmarks: Mapping[str, Benchmark]) -> Records:
    """One record a row, benchmark and figure: its value and error, what is left of the reference's, and the test."""
    reference = {a.benchmark: a for a in answers if a.row == REFERENCE}
    base = {name: {f.name: f for f in benchmarks[name].figures(a.judged)} for name, a in reference.items()}
    videos = {name: {j.question.id: j.question.video for j in a.judged} for name, a in reference.items()}
    records: Records = []
    for a in answers:
        for f in benchmarks[a.benchmark].figures(a.judged):
            # A figure of some replies alone may not be there for the reference.
            other = base[a.benchmark].get(f.name)
            whole = math.nan if other is None else other.value
            p = None if other is None or a.row == REFERENCE else tested(f, other, videos[a.benchmark])
            records.append(
                {"row": a.row, "benchmark": a.benchmark, "figure": f.name}
                | {k: getattr(f, k) for k in ("value", "se", "n", "unit", "headline")}
                | {"retained": 100 * f.value / whole if whole else math.nan, "difference": f.value - whole, "p": p}
            )
    return records


def tested(figure: Figure, reference: Figure, videos: Mapping[str, str]) -> float | None:
    """p of the paired test of a figure against the reference's; None where it is no sum over the same questions.

    Args:
        figure: of a row.
        reference: the same one of the reference.
        videos: question's id -> its video; whole videos are exchanged.
    """
    ids = list(figure.shares)
    if not ids or figure.shares.keys() != reference.shares.keys():
        return None
    differences = np.array([figure.shares[i] - reference.shares[i] for i in ids])
    return sign_flip(differences * len(ids), [videos[i] for i in ids])


def groups(answers: Sequence[Answers]) -> Records:
    """One record a row, benchmark and group of every grouping: mean score, its error, and the rate of replies in which
    no answer was found; the grouping ``all`` has one group. Questions whose answer is not published have no score:
    they are in ``n`` and in no mean, which is NaN where there are no others."""
    records: Records = []
    for a in answers:
        scores, videos = a.scores, a.videos  # once: they are made anew each time they are asked for
        sets: dict[tuple[str, str], list[int]] = {("all", "all"): list(range(len(a.judged)))}
        for i, j in enumerate(a.judged):
            for grouping, group in j.question.categories.items():
                sets.setdefault((grouping, group), []).append(i)
        for (grouping, group), which in sets.items():
            scored = [i for i in which if a.judged[i].question.answer]
            mean, se = math.nan, math.nan
            if scored:
                mean, se = clustered_mean(scores[scored], [videos[i] for i in scored])
            unparsed = sum(a.judged[i].judgement.parsed is None for i in which)
            failed = sum(bool(a.answered[i].failed) for i in which)
            records.append(
                {"row": a.row, "benchmark": a.benchmark, "grouping": grouping, "group": group, "n": len(which)}
                | {"videos": len({videos[i] for i in which}), "mean": mean, "se": se}
                | {"unparsed": unparsed / len(which), "failed": failed}
            )
    return records


def questions(answers: Sequence[Answers]) -> Records:
    """One record a row and question: what was asked, replied and found, and why not."""
    return [
        {
            "row": a.row,
            "benchmark": a.benchmark,
            "id": j.question.id,
            "video": j.question.video,
            "question": j.question.text,
            "options": list(j.question.options),
            "categories": json.dumps(dict(j.question.categories), sort_keys=True, ensure_ascii=False),
            "answer": j.question.answer,
            "reply": j.reply,
            "parsed": j.judgement.parsed,
            "score": j.judgement.score,
            "kept": list(x.reply.kept),
            "visual_tokens": x.reply.counts.get("visual_tokens"),
            "failed": x.failed,
        }
        for a in answers
        for x, j in zip(a.answered, a.judged, strict=True)
    ]


def costs(answers: Sequence[Answers]) -> Records:
    """One record a row and benchmark: medians of counts and milliseconds of a reply. They do not repeat."""
    records: Records = []
    for a in answers:
        record: dict[str, Any] = {"row": a.row, "benchmark": a.benchmark}
        for part in ("counts", "milliseconds"):
            names = sorted({name for x in a.answered for name in getattr(x.reply, part)})
            for name in names:
                values = [getattr(x.reply, part)[name] for x in a.answered if name in getattr(x.reply, part)]
                record[name if part == "counts" else f"{name}_ms"] = float(np.median(values))
        records.append(record)
    # Every record has every column: a table takes its columns from the first.
    columns = dict.fromkeys(name for record in records for name in record)
    return [columns | record for record in records]


def layout(records: Records, grouped: Records) -> tuple[list[str], list[list[str]]]:
    """Header and body of the table of headlines, for people."""
    header = ["row", "benchmark", "figure", "n", "value", "retained", "p", "unparsed", "failed"]
    whole = {(g["row"], g["benchmark"]): g for g in grouped if g["grouping"] == "all"}
    body = []
    for r in records:
        if not r["headline"]:
            continue
        g = whole[r["row"], r["benchmark"]]
        error = "" if math.isnan(r["se"]) else f" ± {r['se']:.3f}"
        retained = "" if math.isnan(r["retained"]) else f"{r['retained']:.1f} %"
        p = "" if r["p"] is None else f"{r['p']:.4f}"
        value, unparsed = f"{r['value']:.3f}{error}", f"{100 * g['unparsed']:.1f} %"
        named = [r["row"], r["benchmark"], r["figure"], str(r["n"])]
        body.append([*named, value, retained, p, unparsed, str(g["failed"])])
    return header, body


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 3), *body]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |\n" for line in lines)


def folder(name: str) -> str:
    """A name as one folder's, whatever is in it (``dtd 1/4``, ``..``); other names stay others."""
    for mark in ("/", "\\", "\x00", *(["."] if not name.strip(".") else [])):
        name = name.replace(mark, f"%{ord(mark):02X}")
    return name


def write(
    out: Path, answers: Sequence[Answers], benchmarks: Mapping[str, Benchmark], notes: Sequence[str] = ()
) -> tuple[Records, Records]:
    """``results``, ``groups``, ``questions`` and ``costs`` as parquet, ``table.md``, and the submissions.

    Args:
        out: folder.
        answers: of every row to every benchmark.
        benchmarks: by name.
        notes: lines under the table, of what was not asked.

    Returns:
        The records of ``results`` and ``groups``.
    """
    found, grouped = figures(answers, benchmarks), groups(answers)
    tables = {"results": found, "groups": grouped, "questions": questions(answers), "costs": costs(answers)}
    for name, records in tables.items():
        pq.write_table(pa.Table.from_pylist(records, schema=SCHEMAS.get(name)), out / f"{name}.parquet")
    under = "".join(f"\n{note}\n" for note in notes)
    (out / "table.md").write_text(markdown(*layout(found, grouped)) + under, encoding="utf-8")
    for a in answers:
        for file, content in benchmarks[a.benchmark].submission(a.judged).items():
            path = out / "submissions" / folder(a.row) / folder(a.benchmark) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return found, grouped
