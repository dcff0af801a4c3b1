"""``report.html`` of a pruning run: what every rule took and why, in one file that opens anywhere, offline.

All text in the tables is untrusted: the template escapes it, and no script is made from it but plotly's own JSON.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vxl_lightning.curation.schema import iterate
from vxl_lightning.data.files import sha256_of
from vxl_lightning.reporting import curation_plots as plots
from vxl_lightning.reporting.curation_cards import Cards, rule_row, short
from vxl_lightning.reporting.curation_tables import Records, Tables, codes, failing, read_small
from vxl_lightning.reporting.manifest import commit, versions
from vxl_lightning.reporting.page import write_page

GROUPS, COPIES = 10, 4
"""Groups of duplicates shown of each kind, and duplicates in a group."""
ERRORS = 12
"""Rows shown of each problem."""
STRATA = 60
"""Rows of the table of strata."""
_HASHED = ("samples", "decisions", "rules", "scores", "duplicates", "strata", "errors")


def write_curation_report(
    path: Path, tables: Path, media_root: Path, recipe: dict[str, Any], timings: Records | None = None
) -> None:
    """Render the report; the same tables and files give the same bytes.

    Args:
        path: where to write it.
        tables: folder with the tables of `curation.schema` and ``rules``, ``scores``, ``strata`` and ``duplicates``;
            the last three, ``media``, ``probe`` and ``errors`` may be missing or empty.
        media_root: folder that media paths are relative to, from which the pictures are decoded.
        recipe: the resolved recipe as plain values.
        timings: stage, items, seconds, unit, rate, limit, limit_rate and of_limit of every stage that ran.
    """
    from omegaconf import OmegaConf

    data = Tables(tables)
    groups = _duplicate_groups(tables)
    cards = Cards(tables, media_root, data, [m for g in groups for m in g["media"]])
    strata = read_small(tables / "strata.parquet")
    write_page(
        path,
        "curation.html.jinja",
        name=recipe.get("name") or "recipe",
        facts=_facts(data),
        counts=data.counts,
        read=data.read,
        funnel=plots.funnel(data.read, data.steps()),
        rules=[rule_row(r) for r in data.rules],
        histograms=_histograms(data),
        examples=cards.by_rule(),
        kept=cards.kept(),
        groups=[{**g, "strips": [cards.thumbnails.strip(m) for m in g["media"]]} for g in groups],
        duplicates=_duplicate_counts(tables),
        errors=_errors(tables / "errors.parquet"),
        strata=_strata(strata),
        timings=[_timing(t) for t in timings or []],
        recipe=OmegaConf.to_yaml(OmegaConf.create(recipe)),
        reproduce=_reproduce(tables, recipe),
    )


def _facts(data: Tables) -> list[tuple[str, str]]:
    everything = np.ones(len(data.row), np.bool_)
    # Once a sample, as the budget counts them: that is what training on it costs.
    before, after = int(data.tokens.sum()), int(data.tokens[data.is_kept].sum())
    share = f" ({after / before:.0%})" if before else ""
    facts = [
        ("samples read", f"{data.read:,}"),
        ("kept", f"{data.counts['keep']:,}"),
        ("dropped", f"{data.counts['drop']:,}"),
        ("quarantined", f"{data.counts['quarantine']:,}"),
        ("videos read", f"{data.videos(everything):,}"),
        ("videos kept", f"{data.videos(data.is_kept):,}"),
        ("grid tokens before", f"{before:,}"),
        ("grid tokens after", f"{after:,}{share}"),
    ]
    return facts + ([("changed by overrides", f"{data.overridden:,}")] if data.overridden else [])


def _histograms(data: Tables) -> Records:
    rules = {r["rule"]: r for r in data.rules}
    figures = []
    for number, (name, (_, scores)) in enumerate(data.scores.items()):
        rule = rules.get(name, {"mode": "score", "threshold": None})
        threshold = rule["threshold"]
        note = f"{len(scores):,} scores, median {np.median(scores):.3g}"
        fails = np.zeros(len(scores), np.bool_)
        if threshold is not None:
            note += f"; fails {'above' if rule['higher_is_worse'] else 'below'} {threshold:.4g}"
            fails = failing(scores, rule)
        figure = plots.histogram(number, scores, fails, threshold, name)
        figures.append({"name": name, "mode": rule["mode"], "note": note, "figure": figure})
    return figures


def _duplicate_groups(tables: Path) -> Records:
    """Groups to show, evenly from the least alike to the most: a group is the kept twin and some of its duplicates."""
    groups: Records = []
    for kind, table in _duplicates(tables).items():
        overlap = pc.fill_null(table["overlap"], 1.0).to_numpy()
        twin, twins = codes(table["duplicate_of"].dictionary_encode())
        order = np.lexsort((np.arange(len(twin)), overlap))
        first = order[np.sort(np.unique(twin[order], return_index=True)[1])]
        places = np.unique(np.linspace(0, len(first) - 1, min(GROUPS, len(first))).round().astype(np.int64))
        for code in twin[first[places]]:
            members = order[twin[order] == code]
            shown = members[np.unique(np.linspace(0, len(members) - 1, min(COPIES, len(members))).round().astype(int))]
            groups.append(
                {
                    "kind": kind,
                    "media": [twins[int(code)].as_py(), *(table["media"][int(i)].as_py() for i in shown)],
                    "overlap": [f"{overlap[i]:.0%}" for i in shown],
                    "more": len(members) - len(shown),
                }
            )
    return groups


def _duplicates(tables: Path) -> dict[str, pa.Table]:
    path = tables / "duplicates.parquet"
    if not path.is_file():
        return {}
    table = pa.Table.from_batches(iterate(path), pq.read_schema(path)).sort_by("media")
    return {kind: table.filter(pc.equal(table["rule"], kind)) for kind in sorted(pc.unique(table["rule"]).to_pylist())}


def _duplicate_counts(tables: Path) -> Records:
    return [
        {"kind": kind, "videos": f"{table.num_rows:,}", "groups": f"{len(pc.unique(table['duplicate_of'])):,}"}
        for kind, table in _duplicates(tables).items()
    ]


def _errors(path: Path) -> Records:
    """Problems by how often they occurred, with rows of different details; one row group is held at a time."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], dict[str | None, dict[str, Any]]] = {}
    for batch in iterate(path) if path.is_file() else ():
        table = pa.Table.from_batches([batch])
        for group in table.group_by(["stage", "problem"]).aggregate([([], "count_all")]).to_pylist():
            key = group["stage"], group["problem"]
            counts[key] += group["count_all"]
            shown = examples.setdefault(key, {})
            if len(shown) < ERRORS:
                same = table.filter(pc.and_(pc.equal(table["stage"], key[0]), pc.equal(table["problem"], key[1])))
                first = np.sort(np.unique(codes(same["detail"].dictionary_encode())[0], return_index=True)[1])
                for row in same.take(first[: 2 * ERRORS]).to_pylist():
                    if len(shown) < ERRORS:
                        shown.setdefault(row["detail"], row)
    return [
        {
            "stage": key[0],
            "problem": key[1],
            "count": f"{count:,}",
            "more": count - len(examples[key]),
            "rows": [row | {"detail": short(row["detail"] or "")} for row in examples[key].values()],
        }
        for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _strata(rows: Records) -> dict[str, Any] | None:
    """One figure a property that divides the samples, and the largest strata."""
    if not rows:
        return None
    figures = []
    for name in ("source", "duration", "form", "cluster"):
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        for row in rows:
            before[row[name] or ""] += row["tokens_before"]
            after[row[name] or ""] += row["tokens_after"]
        if len(before) > 1:
            figures.append({"name": name, "figure": plots.strata(name, before, after)})
    rows = sorted(rows, key=lambda r: (-r["tokens_before"], r["stratum"]))
    numbers = ("before", "after", "tokens_before", "tokens_after")
    return {
        "figures": figures,
        "rows": [
            {k: short(r[k] or "", 60) for k in ("source", "duration", "form", "cluster")}
            | {k: f"{r[k]:,}" for k in numbers}
            | {"share": f"{r['tokens_after'] / r['tokens_before']:.0%}" if r["tokens_before"] else ""}
            for r in rows[:STRATA]
        ],
        "more": max(0, len(rows) - STRATA),
    }


def _timing(row: dict[str, Any]) -> dict[str, Any]:
    def rate(value: float | None) -> str:
        unit = row["unit"] or ""
        return "" if value is None else f"{plots.short_number(value)} {unit}{'' if '/' in unit else '/s'}"

    share = row["of_limit"]
    return {
        "stage": row["stage"],
        "items": f"{row['items']:,}",
        "seconds": f"{row['seconds']:,.1f}",
        "rate": rate(row["rate"]),
        "limit": row["limit"] or "",
        "limit_rate": rate(row["limit_rate"]),
        "of_limit": "" if share is None else f"{share:.0%}",
        "bar": 0 if share is None else round(100 * min(max(share, 0.0), 1.0)),
    }


def _reproduce(tables: Path, recipe: dict[str, Any]) -> list[tuple[str, str]]:
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    found = [(name, tables / f"{name}.parquet") for name in _HASHED]
    return [
        ("seed", str(recipe.get("seed", "not given"))),
        ("recipe", digest),
        ("commit", commit() or "not run from a checkout"),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions().items())),
        *((f"{name}.parquet", sha256_of(path)) for name, path in found if path.is_file()),
    ]
