"""``report.html``: one file that opens anywhere, offline, made from the tables of a finished ablation."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxl_lightning.ablation.statistics import ALL_READS, ALL_TASKS, READ
from vxl_lightning.reporting import plots, style
from vxl_lightning.reporting.browser import ablation_browser
from vxl_lightning.reporting.manifest import manifest_facts
from vxl_lightning.reporting.numbers import number, p_value
from vxl_lightning.reporting.page import write_page

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Picture:
    """An image file of what a row kept, with its name and a note."""

    name: str
    note: str
    path: Path


def write_report(
    path: Path,
    *,
    name: str,
    results: Records,
    comparisons: Records,
    timings: Records,
    pictures: Sequence[Picture],
    manifest: dict[str, Any],
    caption: str,
    baselines: Sequence[str],
    predictions: Records | None = None,
) -> None:
    """Render the report.

    Args:
        path: where to write it.
        name: of the ablation.
        results: ``results.parquet``; comparisons: ``comparisons.parquet``; timings: ``timings.parquet``.
        pictures: what each row kept.
        manifest: `reporting.manifest.manifest`.
        caption: what the accuracy table's numbers are.
        baselines: rows with a column of p-values.
        predictions: ``predictions.parquet``, for the error browser.
    """
    write_page(
        path,
        "report.html.jinja",
        name=name,
        many=len({r["variant"] for r in results}) > style.MANY,
        facts=_facts(results, manifest),
        baselines=list(baselines),
        tables=[
            {
                "title": title,
                "tasks": tasks,
                "chance": _chance(results, tasks),
                "rows": _accuracy(results, tasks, baselines),
            }
            for title, tasks in _tables(results).items()
        ],
        caption=caption,
        plots={
            "tokens": plots.accuracy_against_tokens(results),
            "time": plots.accuracy_against_time(results, timings) if timings else None,
            "gain": plots.reconstruction_gain(results),
            "time_tokens": plots.time_against_tokens(results, timings) if timings else None,
            "steps": plots.time_by_step(timings) if timings else None,
        },
        bars=_bars(results),
        questions=ablation_browser(predictions) if predictions else None,
        costs=_costs(results, timings),
        matrices=_matrices(comparisons),
        matrix_tests=len({frozenset([(c["a"], c["a_retention"]), (c["b"], c["b_retention"])]) for c in comparisons}),
        pictures=[_embedded(p) for p in pictures],
        manifest_facts=manifest_facts(manifest),
        manifest_json=json.dumps(manifest, indent=2),
    )


def _tables(results: Records) -> dict[str, list[str]]:
    """What is answered and what is read out, each with its tasks, the total first."""
    tasks = list(dict.fromkeys(r["task"] for r in results))
    reads = [t for t in tasks if t.startswith(READ)]
    answers = [ALL_TASKS, *(t for t in tasks if t not in (*reads, ALL_TASKS, ALL_READS))]
    tables = {"Accuracy per task": answers}
    return tables | {"Read-outs: what the tokens name by themselves": [ALL_READS, *reads]} if reads else tables


def _rows(results: Records) -> dict[tuple[str, float], dict[str, dict[str, Any]]]:
    """(variant, retention) -> task -> record, in the order of the table."""
    rows: dict[tuple[str, float], dict[str, dict[str, Any]]] = {}
    for r in results:
        rows.setdefault((r["variant"], r["retention"]), {})[r["task"]] = r
    return rows


def _facts(results: Records, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    whole = next(r for r in results if r["task"] == ALL_TASKS)
    budgets = sorted({r["retention"] for r in results if r["role"] != "uncompressed"})
    device = manifest["device"]
    return [
        ("held-out questions", f"{whole['n']:,}"),
        ("held-out videos", f"{whole['videos']:,}"),
        ("seeds" if whole["seeds"] > 1 else "seed", str(whole["seeds"])),
        ("retention", ", ".join(plots.fraction(b) for b in budgets)),
        ("rows", str(len(_rows(results)))),
        ("device", device["accelerator"] or f"{device['cores']} CPU cores"),
    ]


def _chance(results: Records, tasks: Sequence[str]) -> list[dict[str, str]]:
    first = next(iter(_rows(results).values()))
    return [{"uniform": number(first[t]["chance"]), "majority": number(first[t]["majority"])} for t in tasks]


def _accuracy(results: Records, tasks: Sequence[str], baselines: Sequence[str]) -> list[dict[str, Any]]:
    rows = _rows(results)
    best = {
        t: max((cells[t]["mean"] for cells in rows.values() if cells[t]["role"] != "uncompressed"), default=2.0)
        for t in tasks
    }
    table = []
    for (variant, retention), cells in rows.items():
        whole = cells[tasks[0]]
        several = len({k[1] for k in rows if k[0] == variant}) > 1
        table.append(
            {
                "name": variant + (f" · {plots.fraction(retention)}" if several else "") + _untuned(whole),
                "role": whole["role"],
                "tokens": f"{whole['lm_tokens']:,}",
                "cells": [
                    {
                        "mean": number(r["mean"]),
                        "se": number(r["se"]) if r["se"] is not None else "–",
                        "best": r["mean"] == best[t] and r["role"] != "uncompressed",
                    }
                    for t, r in ((t, cells[t]) for t in tasks)
                ],
                "p": [p_value(whole[f"p_{b}"]) for b in baselines],
            }
        )
    return table


def _bars(results: Records) -> list[dict[str, Any]]:
    """Accuracy of every task as bars, of what is answered and of what is read out, for each budget."""
    colours = style.colours(results)
    panels = []
    for title, tasks in _tables(results).items():
        order = {task: i for i, task in enumerate(tasks)}
        chosen = sorted((r for r in results if r["task"] in order), key=lambda r: order[r["task"]])
        whole = [r for r in chosen if r["role"] == "uncompressed"]
        for budget in dict.fromkeys(r["retention"] for r in chosen if r["role"] != "uncompressed") or (1.0,):
            compressed = [r for r in chosen if r["retention"] == budget and r["role"] != "uncompressed"]
            shown = [r | {"row": r["variant"], "group": r["task"]} for r in [*whole, *compressed]]
            figure = plots.bars_by_group(shown, colours, "accuracy")
            panels.append({"first": title, "second": plots.fraction(budget), "figure": figure})
    return panels


def _costs(results: Records, timings: Records) -> dict[str, Any] | None:
    if not timings:
        return None
    measured = {(t["variant"], t["retention"]): t for t in timings}
    header = [
        "row", "tokens in grid", "into LM", "layer mean", "KV length", "KV MiB", "decode ms", "encoder ms",
        "compressor ms", "selector ms", "prefill ms", "compressor GFLOP", "prefill GFLOP", "peak MiB",
    ]  # fmt: skip
    rows = []
    for key, cells in _rows(results).items():
        r, t = cells[ALL_TASKS], measured[key]
        times = [t[s] for s in plots.STEPS]
        rows.append(
            {
                "role": r["role"],
                "cells": [
                    plots.label(r),
                    f"{r['grid_tokens']:,}",
                    f"{r['lm_tokens']:,}",
                    f"{r['layer_mean_tokens']:,.4g}",
                    f"{r['kv_length']:,}",
                    f"{r['kv_bytes'] / 2**20:.2f}",
                    *("–" if v is None else f"{v:.2f}" if v < 10 else f"{v:.0f}" for v in times),
                    f"{r['compressor_flops'] / 1e9:.3g}",
                    f"{r['prefill_flops'] / 1e9:.3g}",
                    f"{t['peak_memory_mib']:,.0f}",
                ],
            }
        )
    return {"header": header, "rows": rows}


def _matrices(comparisons: Records) -> list[dict[str, Any]]:
    """A matrix of differences for all tasks together, then for each, over the rows that were compared."""
    tasks = list(dict.fromkeys(c["task"] for c in comparisons))
    rows = list(dict.fromkeys((c["a"], c["a_retention"]) for c in comparisons))
    columns = list(dict.fromkeys([*rows, *((c["b"], c["b_retention"]) for c in comparisons)]))
    found = {(c["a"], c["a_retention"], c["b"], c["b_retention"], c["task"]): c for c in comparisons}
    several = len({r[1] for r in rows}) > 1

    def label(row: tuple[str, float]) -> str:
        return f"{row[0]} · {plots.fraction(row[1])}" if several else row[0]

    def cell(a: tuple[str, float], b: tuple[str, float], task: str) -> dict[str, str] | None:
        c = found.get((*a, *b, task))
        if c is None:
            return None
        tint = ("up" if c["difference"] > 0 else "down") if c["p"] < 0.01 else ""
        return {"difference": f"{c['difference']:+.3f}", "p": p_value(c["p"]), "tint": tint}

    order = [t for t in tasks if t == ALL_TASKS] + [t for t in tasks if t != ALL_TASKS]
    return [
        {
            "title": {ALL_TASKS: "All questions", ALL_READS: "All read-outs"}.get(task, f"Task: {task}"),
            "columns": [label(c) for c in columns],
            "rows": [{"name": label(a), "cells": [cell(a, b, task) for b in columns]} for a in rows],
        }
        for task in order
    ]


def _embedded(picture: Picture) -> dict[str, str]:
    return {
        "name": picture.name,
        "note": picture.note,
        "format": picture.path.suffix.lstrip("."),
        "data": base64.b64encode(picture.path.read_bytes()).decode(),
    }


def _untuned(record: dict[str, Any]) -> str:
    return "" if record["tuned"] else " (not tuned)"
