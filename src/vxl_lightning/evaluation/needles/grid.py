"""The tables of needles at length: every question, depth by length grids with their errors, and what it cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.ablation.statistics import clustered_mean
from vxl_lightning.evaluation.needles.asking import OVERLAPS, lost
from vxl_lightning.reporting import needles as report

Records = list[dict[str, Any]]
Table = tuple[list[str], list[list[str]]]

RETRIEVAL = "retrieval"
"""*what* and *colour* together: what V-NIAH's one figure is about."""
PLACES = ("compressor", "selector", "language model")
"""Where a needle may be lost."""

_TEXT, _YES, _NUMBERS = pa.string(), pa.bool_(), pa.list_(pa.float64())
JUDGED = ("exact", "generated", "chosen", "carried", "recalled", "read")
REACHED = tuple(f"r@{x}" for x in OVERLAPS)
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("row", "task", "haystack", "question", "answer"), _TEXT),
        "length": pa.int64(),
        "depth": pa.float64(),
        "choices": pa.list_(_TEXT),
        "span": _NUMBERS,
        "pair": _TEXT,
        "held_out": _YES,
        "needles": pa.int64(),
        "frames": pa.list_(pa.int64()),
        "seconds": _NUMBERS,
        **dict.fromkeys(("reply", "choice"), _TEXT),
        "said": _NUMBERS,
        **dict.fromkeys(JUDGED, _YES),
        "iou": pa.float64(),
        **dict.fromkeys(REACHED, _YES),
        "lost": _TEXT,
        **dict.fromkeys(("visual_tokens", "positions"), pa.int64()),
        "failed": _TEXT,
    }
)
"""Columns of ``questions.parquet``."""

SCORES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    **{
        name: lambda r, name=name: r.get(name)  # type: ignore[misc]
        for name in (*JUDGED, "iou", *REACHED)
    },
    "chance": lambda r: 1 / len(r["choices"]),
    **{f"lost: {place}": lambda r, place=place: r["lost"] == place for place in PLACES},  # type: ignore[misc]
}
"""What is averaged; None where a question has no such score."""

SUMMARY = (
    *((RETRIEVAL, s) for s in ("exact", "generated", "chosen", "chance", "carried", "recalled", "read")),
    *((task, "exact") for task in ("what", "colour")),
    *(("when", s) for s in ("exact", "iou", "r@0.3", "r@0.5", "r@0.7")),
    *((task, s) for task in ("order", "count") for s in ("exact", "chosen")),
)
"""Lines of the summary: task and score."""
GRIDS = ((RETRIEVAL, "exact"), (RETRIEVAL, "recalled"), ("when", "iou"))
"""Depth by length tables that are printed; the report has all."""
TITLES = {"iou": "m_tIoU"} | {f"r@{x}": f"R1@{x}" for x in OVERLAPS}


def grids(records: Records) -> Records:
    """One record a row, task, score, length and depth: mean, standard error clustered by haystack, n.

    ``depth`` None is over all depths, ``length`` None over all lengths too. Questions that a row could not be asked
    (``failed``) do not count and are counted apart.
    """
    cells: dict[tuple[Any, ...], Records] = {}
    for r in records:
        for task in (r["task"], *([RETRIEVAL] if r["task"] in ("what", "colour") else [])):
            for length, depth in ((r["length"], r["depth"]), (r["length"], None), (None, None)):
                cells.setdefault((r["row"], task, length, depth), []).append(r)
    found: Records = []
    for (row, task, length, depth), those in cells.items():
        asked = [r for r in those if not r["failed"]]
        where = {"row": row, "task": task, "length": length, "depth": depth, "failed": len(those) - len(asked)}
        for score, of in SCORES.items():
            pairs = [(float(value), r["haystack"]) for r in asked if (value := of(r)) is not None]
            mean, se = math.nan, math.nan
            if pairs:
                mean, se = clustered_mean(np.asarray([v for v, _ in pairs]), [h for _, h in pairs])
            if pairs or (not asked and score == "exact"):
                haystacks = len({h for _, h in pairs})
                found.append(where | {"score": score, "n": len(pairs), "haystacks": haystacks, "mean": mean, "se": se})
    return found


def summary(found: Records, row: str) -> Table:
    """A row's figures, lengths across, over all depths."""
    of = {(g["length"], g["task"], g["score"]): g for g in found if g["row"] == row and g["depth"] is None}
    lengths = sorted({length for length, _, _ in of if length is not None})
    header = ["figure", *(f"{length:,}" for length in lengths), "mean"]
    body = []
    for task, score in SUMMARY:
        here = [of.get((length, task, score)) for length in [*lengths, None]]
        if any(here):
            body.append([f"{task} {TITLES.get(score, score)}", *(_value(g) for g in here)])
    counts = [of.get((length, RETRIEVAL, "exact")) for length in [*lengths, None]]
    return header, [*body, [f"n of {RETRIEVAL}", *(str(g["n"]) if g else "" for g in counts)]]


def depth_by_length(found: Records, row: str, task: str, score: str) -> Table:
    """A row's grid: depths down, lengths across, and the mean of each length; mean ± standard error (n)."""
    of = {(g["length"], g["depth"]): g for g in found if (g["row"], g["task"], g["score"]) == (row, task, score)}
    lengths = sorted({length for length, _ in of if length is not None})
    depths = sorted({depth for _, depth in of if depth is not None})
    header = ["depth", *(f"{length:,}" for length in lengths)]
    body = [[f"{d:g}", *(_value(of.get((length, d)), True) for length in lengths)] for d in depths]
    return header, [*body, ["all", *(_value(of.get((length, None)), True) for length in lengths)]]


def _value(cell: Mapping[str, Any] | None, counted: bool = False) -> str:
    if cell is None:
        return ""
    if math.isnan(cell["mean"]):
        return "does not fit"
    error = "" if math.isnan(cell["se"]) else f" ± {cell['se']:.2f}"
    return f"{cell['mean']:.2f}{error}" + (f" ({cell['n']})" if counted else "")


def costs(records: Records) -> Table:
    """Median seconds of each stage and the highest memory, by row and length. They are measured and do not repeat."""
    stages = list(dict.fromkeys(key for r in records for key in r if key.endswith("_ms")))
    groups: dict[tuple[str, int], Records] = {}
    for r in records:
        groups.setdefault((r["row"], r["length"]), []).append(r)
    header = ["row", "frames", *(f"{s.removesuffix('_ms')} s" for s in stages), "all s", "peak MiB", "haystacks"]
    body = []
    for (row, length), those in groups.items():
        seconds = [float(np.median([r.get(s, 0.0) for r in those])) / 1e3 for s in stages]
        total = float(np.median([sum(r.get(s, 0.0) for s in stages) for r in those])) / 1e3
        peak = max(r["peak_mib"] for r in those)
        body.append(
            [row, f"{length:,}", *(f"{s:.2f}" for s in seconds), f"{total:.2f}", f"{peak:,.0f}", str(len(those))]
        )
    return header, body


def markdown(table: Table) -> str:
    header, body = table
    lines = [header, ["---:"] * len(header), *body]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |\n" for line in lines)


def why_not(records: Records) -> list[str]:
    """Rows and lengths that could not be asked, with the reason."""
    reasons: dict[tuple[str, int], str] = {}
    for r in records:
        if r["failed"]:
            reasons.setdefault((r["row"], r["length"]), r["failed"])
    return [f"{row}, {length:,} frames: {reason}" for (row, length), reason in reasons.items()]


def page(name: str, records: Records, found: Records) -> str:
    """``needle.md``: summaries and grids of all rows; it repeats bit for bit."""
    text = [f"# {name}\n"]
    rows = list(dict.fromkeys(r["row"] for r in records))
    for row in rows:
        text.append(f"## {row}\n\n{markdown(summary(found, row))}")
        for task, score in GRIDS:
            if any((g["row"], g["task"], g["score"]) == (row, task, score) for g in found):
                title = f"{task}, {TITLES.get(score, score)}"
                text.append(f"**{title}** by depth and frames\n\n{markdown(depth_by_length(found, row, task, score))}")
    if reasons := why_not(records):
        text.append("## Does not fit\n\n" + "".join(f"- {reason}\n" for reason in reasons))
    return "\n".join(text)


def write(out: Path, name: str, records: Sequence[Mapping[str, Any]], spent: Records) -> Records:
    """``questions``, ``grid`` and ``costs`` as parquet, ``needle.md``, ``needle.png`` and ``needle.html``.

    Returns:
        The records of ``grid``.
    """
    blank = dict.fromkeys(SCHEMA.names)
    full = [blank | dict(r) | {"lost": None if r["failed"] else lost(r)} for r in records]
    found = grids(full)
    pq.write_table(pa.Table.from_pylist(full, schema=SCHEMA), out / "questions.parquet")
    pq.write_table(pa.Table.from_pylist(found), out / "grid.parquet")
    keys = list(dict.fromkeys(key for r in spent for key in r))
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(keys) | r for r in spent]), out / "costs.parquet")
    (out / "needle.md").write_text(page(name, full, found))
    report.picture(found, RETRIEVAL, "exact", name).save(out / "needle.png")
    report.write_report(out / "needle.html", name, found)
    return found
