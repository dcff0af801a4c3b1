"""``report.html`` of an evaluation: its tables, what is missing, and every reply, in one file that opens offline."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vxl_lightning.evaluation.base import Problem
from vxl_lightning.evaluation.config import REFERENCE
from vxl_lightning.reporting import plots, style
from vxl_lightning.reporting.browser import Videos, evaluation_browser
from vxl_lightning.reporting.manifest import manifest_facts
from vxl_lightning.reporting.numbers import number, p_value
from vxl_lightning.reporting.page import write_page

Records = Sequence[dict[str, Any]]

SHOWN = 100
"""Problems of a benchmark, and videos, that are listed."""
ALL = "all"
"""The grouping that has one group."""
_COLUMNS = {
    "grid_tokens": ("tokens in grid", 1.0),
    "visual_tokens": ("into LM", 1.0),
    "text_tokens": ("of text", 1.0),
    "kv_length": ("KV length", 1.0),
    "kv_bytes": ("KV MiB", 2.0**20),
    "flops": ("GFLOP", 1e9),
    **{f"{step}_ms": (f"{step} ms", 1.0) for step in ("decode", "encode", "compress", "select", "prefill", "answer")},
}
"""Column of the costs -> its header, and what it is divided by; others follow as they are."""


def write_evaluation_report(
    path: Path,
    *,
    name: str,
    results: Records,
    groups: Records,
    questions: Records,
    costs: Records,
    manifest: dict[str, Any],
    problems: Mapping[str, Sequence[Problem]] | None = None,
    failed: Mapping[str, str] | None = None,
    videos: Videos | None = None,
) -> None:
    """Render the report.

    Args:
        path: where to write it.
        name: of the evaluation.
        results: ``results.parquet``; groups: ``groups.parquet``; questions: ``questions.parquet``; costs:
            ``costs.parquet``.
        manifest: `reporting.manifest.manifest`.
        problems: benchmark -> what cannot be asked.
        failed: video -> why it could not be shown.
        videos: for the length of videos and pictures of what was kept.
    """
    problems, failed = problems or {}, failed or {}
    listed = list(failed.items())
    write_page(
        path,
        "evaluation.html.jinja",
        name=name,
        facts=_facts(groups, manifest, problems, failed),
        headlines=_headlines(results, groups),
        figures=_other_figures(results),
        bars=_bars(groups),
        costs=_costs(costs),
        problems=[_problems(benchmark, found) for benchmark, found in problems.items() if found],
        failed={"rows": listed[:SHOWN], "more": max(0, len(listed) - SHOWN)} if listed else None,
        questions=evaluation_browser(questions, videos or Videos()),
        manifest_facts=manifest_facts(manifest),
        manifest_json=json.dumps(manifest, indent=2),
    )


def _facts(
    groups: Records, manifest: dict[str, Any], problems: Mapping[str, Sequence[Problem]], failed: Mapping[str, str]
) -> list[tuple[str, str]]:
    whole = {g["benchmark"]: g for g in groups if g["grouping"] == ALL}
    rows = {g["row"] for g in groups}
    config, device = manifest["config"], manifest["device"]
    lost = sum(p.questions for found in problems.values() for p in found)
    facts = [
        ("benchmark" + "s" * (len(whole) != 1), f"{len(whole):,}"),
        ("questions", f"{sum(g['n'] for g in whole.values()):,}"),
        ("videos", f"{sum(g['videos'] for g in whole.values()):,}"),
        ("row" + "s" * (len(rows) != 1), f"{len(rows):,}"),
        ("frames looked at", f"{config['fps']:g} a second, at most {config['max_frames']:,}"),
        ("answering", config["answering"]),
        ("device", device["accelerator"] or f"{device['cores']} CPU cores"),
    ]
    if config["limit"]:
        facts.append(("asked of each benchmark", f"the first {config['limit']:,}"))
    if lost:
        facts.append(("questions missing", f"{lost:,}"))
    if failed:
        facts.append(("videos not shown", f"{len(failed):,}"))
    return facts


def _headlines(results: Records, groups: Records) -> list[dict[str, Any]]:
    """The figures that papers quote, each with its rows."""
    whole = {(g["row"], g["benchmark"]): g for g in groups if g["grouping"] == ALL}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in results:
        if r["headline"]:
            found.setdefault((r["benchmark"], r["figure"]), []).append(r)
    tables = []
    for (benchmark, figure), records in found.items():
        best = max((r["value"] for r in records if r["row"] != REFERENCE), default=math.inf)
        n = _common_n(records)
        rows = [_headline(r, whole[r["row"], benchmark], r["value"] == best and len(records) > 2, n) for r in records]
        tables.append({"benchmark": benchmark, "figure": figure, "n": n, "rows": rows})
    return tables


def _headline(record: dict[str, Any], group: dict[str, Any], best: bool, n: str) -> dict[str, Any]:
    reference, p = record["row"] == REFERENCE, record["p"]
    difference = record["difference"]
    return {
        "name": record["row"],
        "role": "reference" if reference else "",
        "best": best and not reference,
        **_value(record, n),
        "retained": "" if math.isnan(record["retained"]) else f"{record['retained']:.1f} %",
        "difference": "" if reference or math.isnan(difference) else f"{difference:+.3f}",
        "tint": ("up" if difference > 0 else "down") if p is not None and p < 0.01 and difference else "",
        "p": p_value(p),
        "unparsed": f"{group['unparsed']:.1%}".replace("%", " %"),
        "failed": f"{group['failed']:,}",
    }


def _common_n(records: Records) -> str:
    """How many questions a figure is of; empty where rows differ, as where it is of replies of a kind alone."""
    first, *others = {r["n"] for r in records}
    return "" if others else f"{first:,}"


def _value(record: dict[str, Any], common_n: str) -> dict[str, str]:
    """A figure, its error, and its n where that is not all rows'."""
    value, se = ("" if math.isnan(record[k]) else number(record[k]) for k in ("value", "se"))
    return {"value": value or "–", "se": se, "n": "" if common_n else f"{record['n']:,}"}


def _other_figures(results: Records) -> list[dict[str, Any]]:
    """A table for each benchmark that has further figures: a line a figure, a column a row."""
    others = [r for r in results if not r["headline"]]
    tables = []
    for benchmark in dict.fromkeys(r["benchmark"] for r in others):
        chosen = [r for r in others if r["benchmark"] == benchmark]
        rows = list(dict.fromkeys(r["row"] for r in chosen))
        by_figure: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for r in chosen:
            by_figure.setdefault((r["figure"], r["unit"]), {})[r["row"]] = r
        lines = []
        for (figure, unit), found in by_figure.items():
            name, n = figure if unit in ("accuracy", "") else f"{figure} ({unit})", _common_n(list(found.values()))
            cells = [_value(found[row], n) if row in found else None for row in rows]
            lines.append({"name": name, "n": n, "cells": cells})
        tables.append({"benchmark": benchmark, "rows": rows, "lines": lines})
    return tables


def _bars(groups: Records) -> list[dict[str, Any]]:
    """A figure for each benchmark and way to divide it, what all questions give last; the reference is grey."""
    others = [row for row in dict.fromkeys(g["row"] for g in groups) if row != REFERENCE]
    colours = {row: style.COLOURS[i % len(style.COLOURS)] for i, row in enumerate(others)} | {REFERENCE: style.GREYS[0]}
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for g in sorted(groups, key=lambda g: g["grouping"] == ALL):
        panels.setdefault((g["benchmark"], g["grouping"]), []).append(g)
    return [
        {"first": benchmark, "second": grouping, "figure": plots.bars_by_group(chosen, colours)}
        for (benchmark, grouping), chosen in panels.items()
    ]


def _costs(costs: Records) -> dict[str, Any] | None:
    known = {name for record in costs for name, value in record.items() if value is not None} - {"row", "benchmark"}
    if not known:
        return None
    columns = [name for name in _COLUMNS if name in known]
    columns += sorted(known - set(columns))
    heads = [_COLUMNS.get(name, (name.replace("_", " "), 1.0)) for name in columns]
    rows = [
        {
            "role": "reference" if record["row"] == REFERENCE else "",
            "cells": [
                record["row"],
                record["benchmark"],
                *(_cost(record.get(name), by) for name, (_, by) in zip(columns, heads, strict=True)),
            ],
        }
        for record in costs
    ]
    return {"header": ["row", "benchmark", *(head for head, _ in heads)], "rows": rows}


def _cost(value: float | None, by: float) -> str:
    if value is None:
        return "–"
    value /= by
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def _problems(benchmark: str, found: Sequence[Problem]) -> dict[str, Any]:
    lost = sum(p.questions for p in found)
    return {
        "benchmark": benchmark,
        "questions": f"{lost:,} question{'s' * (lost != 1)}",
        "rows": [{"where": p.where, "reason": p.reason, "questions": f"{p.questions:,}"} for p in found[:SHOWN]],
        "more": max(0, len(found) - SHOWN),
    }
