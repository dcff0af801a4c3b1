"""The ablation's tables: parquet files to compute with, and one to read, as Markdown and as LaTeX.

``predictions``, ``results`` and ``comparisons`` repeat bit for bit when the same configuration is run
again on the same machine. ``timings`` does not, so it is a file of its own, and no table made here
shows it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.ablation.accounting import Counts
from vxl_lightning.ablation.statistics import (
    ALL_READS,
    ALL_TASKS,
    PAIRED_TEST,
    Chance,
    Comparison,
    Row,
    accuracies,
    answers_by_row,
    chances,
    compare,
)

Records = list[dict[str, Any]]

BASELINES = ("random", "pool")
"""Compressors every ablation compares with at equal tokens."""

_PREDICTIONS = pa.schema(
    [
        ("variant", pa.string()), ("retention", pa.float64()), ("seed", pa.int64()), ("video", pa.string()),
        ("question_id", pa.string()), ("task", pa.string()), ("question", pa.string()),
        ("choices", pa.list_(pa.string())), ("answer", pa.string()), ("prediction", pa.string()),
        ("correct", pa.bool_()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class RowInfo:
    """What is known of a row beside its answers.

    Attributes:
        role: ``uncompressed``, ``baseline`` or ``variant``.
        compressor: plugin name; ``init``: ``none``, ``autoencode`` or ``reconstruct``.
        tuned: False when the row uses the warmed-up model as it is.
        masker: what was hidden while ``gain`` was measured; gains under different maskers do not compare.
        gain: held-out masked reconstruction, one minus the squared error over that of the better of the
            two means of visible cells; None without pretraining. ``gain_previous``: the same over the
            nearest earlier visible cell. Means over seeds.
    """

    variant: str
    retention: float
    role: str
    compressor: str
    init: str
    selector: str | None
    tuned: bool
    counts: Counts
    masker: str | None = None
    gain: float | None = None
    gain_previous: float | None = None


def results(rows: Sequence[RowInfo], predictions: Records, comparisons: Sequence[Comparison]) -> Records:
    """One record per row and task: accuracy with its errors, chance, costs, and tests against the baselines."""
    chance = {c.task: c for c in chances(predictions)}
    info = {(r.variant, r.retention): r for r in rows}
    tests = {(c.a, c.b, c.task): c for c in comparisons}
    records = []
    for a in accuracies(predictions):
        row = info[a.variant, a.retention]
        record = asdict(a) | {k: v for k, v in asdict(row).items() if k != "counts"} | asdict(row.counts)
        record |= {"chance": chance[a.task].uniform, "majority": chance[a.task].majority}
        for baseline in BASELINES:
            test = tests.get(((a.variant, a.retention), (baseline, a.retention), a.task))
            record[f"minus_{baseline}"] = test.difference if test else None
            record[f"p_{baseline}"] = test.p if test else None
        records.append({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()})
    return records


def all_comparisons(rows: Sequence[RowInfo], predictions: Records) -> list[Comparison]:
    """Every row against every other row of its budget and against the uncompressed one."""
    by_row, tested = answers_by_row(predictions), dict[tuple[Row, Row], list[Comparison]]()
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            if a.retention == b.retention or "uncompressed" in (a.role, b.role):
                one, other = (a.variant, a.retention), (b.variant, b.retention)
                tested[one, other] = compare(by_row, one, other)
                tested[other, one] = [c.turned() for c in tested[one, other]]
    names = [((a.variant, a.retention), (b.variant, b.retention), b.role) for a in rows for b in rows]
    return [c for a, b, role in names if a[1] == b[1] or role == "uncompressed" for c in tested.get((a, b), [])]


def write_predictions(path: Path, predictions: Records) -> None:
    """The question-level table."""
    pq.write_table(pa.Table.from_pylist(predictions, schema=_PREDICTIONS), path)


def read_predictions(path: Path) -> Records:
    """What `write_predictions` wrote."""
    return list(pq.read_table(path).to_pylist())


def write_tables(out: Path, rows: Sequence[RowInfo], predictions: Records) -> Records:
    """Write ``predictions``, ``results`` and ``comparisons`` (parquet), ``table.md`` and ``table.tex``.

    Returns:
        The records of ``results.parquet``.
    """
    comparisons = all_comparisons(rows, predictions)
    records = results(rows, predictions, comparisons)
    write_predictions(out / "predictions.parquet", predictions)
    pq.write_table(pa.Table.from_pylist(records), out / "results.parquet")
    compared = [
        {
            "a": c.a[0], "a_retention": c.a[1], "b": c.b[0], "b_retention": c.b[1], "task": c.task,
            "n": c.n, "difference": c.difference, "p": c.p, "test": c.test,
        }
        for c in comparisons
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(compared), out / "comparisons.parquet")
    header, body = layout(records, chances(predictions))
    (out / "table.md").write_text(markdown(header, body) + "\n\n" + caption(records) + "\n")
    (out / "table.tex").write_text(latex(header, body))
    return records


def layout(records: Records, chance: Sequence[Chance]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the readable table, rows in the order of the ablation, chance first."""
    tasks = [c.task for c in chance]
    totals = [t for t in (ALL_TASKS, ALL_READS) if t in tasks]
    tests = [(t, b) for t in totals for b in BASELINES]
    header = ["row", "tokens", *tasks, *(f"p {'read ' if t == ALL_READS else ''}vs {b}" for t, b in tests)]
    body = [["chance", "", *(_fraction(c.uniform) for c in chance), *("" for _ in tests)]]
    by_row: dict[tuple[str, float], dict[str, dict[str, Any]]] = {}
    for r in records:
        by_row.setdefault((r["variant"], r["retention"]), {})[r["task"]] = r
    for (variant, _), cells in by_row.items():
        whole = cells[ALL_TASKS]
        body.append(
            [
                variant + ("" if whole["tuned"] else " (not tuned)"),
                str(whole["lm_tokens"]),
                *(_accuracy(cells[t]) for t in tasks),
                *(_p(cells[t][f"p_{b}"]) for t, b in tests),
            ]
        )
    return header, body


def caption(records: Records) -> str:
    """What the numbers of the readable table are."""
    whole = next(r for r in records if r["task"] == ALL_TASKS)
    seeds = whole["seeds"]
    spread = "" if seeds == 1 else ", then over seeds in brackets"
    reads = (
        ""
        if all(r["task"] != ALL_READS for r in records)
        else (" Read-outs are what the tokens name by themselves, without the language model.")
    )
    return (
        f"Accuracy ± standard error (clustered by video{spread}); n = {whole['n']} questions on {whole['videos']} "
        f"held-out videos, {seeds} seed{'s' if seeds > 1 else ''}. tokens: visual tokens into the language model for "
        f"one video. p: paired test over all questions ({PAIRED_TEST}), not corrected for the number of rows.{reads}"
    )


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A pipe table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def latex(header: list[str], body: list[list[str]]) -> str:
    """A booktabs tabular."""

    def line(row: list[str]) -> str:
        return " & ".join(_tex(cell) for cell in row) + r" \\"

    top = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", line(header), r"\midrule"]
    return "\n".join([*top, *(line(row) for row in body), r"\bottomrule", r"\end{tabular}"]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "<": r"$<$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {c: "\\" + c for c in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def _fraction(value: float) -> str:
    return f"{value:.3f}".lstrip("0") if value < 1 else f"{value:.3f}"


def _accuracy(record: dict[str, Any]) -> str:
    text = _fraction(record["mean"])
    if record["se"] is not None:
        text += f" ± {_fraction(record['se'])}"
    if record["se_seeds"] is not None:
        text += f" [{_fraction(record['se_seeds'])}]"
    return text


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return f"{p:.1e}" if p < 0.001 else _fraction(p)
