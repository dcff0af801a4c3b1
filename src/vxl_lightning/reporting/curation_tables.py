"""The tables of a pruning run as a report counts them: arrays in the order of ``row``, text columns by their codes.

A million samples become a few arrays; only the rows that a page shows become Python objects.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vxl_lightning.curation.schema import iterate, read_table
from vxl_lightning.reporting.curation_plots import Step

Records = list[dict[str, Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Tables:
    """What the page counts: decisions, rules and scores, as arrays in the order of ``row``."""

    def __init__(self, folder: Path) -> None:
        self.read = int(pq.read_metadata(folder / "samples.parquet").num_rows)
        texts = ["decision", "rule", "media"]
        table = pq.read_table(
            folder / "decisions.parquet",
            columns=["row", "score", "tokens", "overridden", *texts],
            read_dictionary=texts,
        )
        self.row: Ints = table["row"].to_numpy()
        assert (np.diff(self.row) > 0).all(), "decisions.parquet is written in the order of row, one decision a row"
        self.score: Floats = table["score"].to_numpy().astype(np.float64)
        self.tokens: Ints = table["tokens"].fill_null(0).to_numpy()
        self.overridden = int(np.count_nonzero(table["overridden"].fill_null(False).to_numpy()))
        self.decision, decisions = codes(table["decision"])
        self.rule, rules = codes(table["rule"])
        self.media, self.media_names = codes(table["media"])
        self.decisions: list[str] = decisions.to_pylist()
        self.rule_names: list[str] = rules.to_pylist()
        self.is_kept = self._is("keep")
        self.counts = {d: int(np.count_nonzero(self._is(d))) for d in ("keep", "drop", "quarantine")}
        listed: Records = read_table(folder / "rules.parquet").to_pylist()
        self.rules = [r | {"threshold": _finite(r["threshold"]), "mode": self._mode(r)} for r in listed]
        self.scores = read_scores(folder / "scores.parquet", [r["rule"] for r in self.rules])

    def _mode(self, rule: dict[str, Any]) -> str:
        """A rule that sets samples aside is said to be in mode ``quarantine``."""
        out = self.taken_by(rule["rule"])
        return "quarantine" if len(out) and self._is("quarantine")[out[0]] else str(rule["mode"])

    def _is(self, decision: str) -> Mask:
        code = self.decisions.index(decision) if decision in self.decisions else -2
        return np.asarray(self.decision == code)

    def taken_by(self, rule: str) -> Ints:
        """Positions of the samples that are out because of ``rule``."""
        code = self.rule_names.index(rule) if rule in self.rule_names else -2
        return np.flatnonzero((self.rule == code) & ~self.is_kept)

    def videos(self, chosen: Mask) -> int:
        """How many different media the chosen samples name."""
        seen = np.bincount(self.media[chosen & (self.media >= 0)], minlength=len(self.media_names)) > 0
        nameless = pc.index(self.media_names, "").as_py()
        return int(seen.sum()) - (nameless >= 0 and bool(seen[nameless]))

    def steps(self) -> list[Step]:
        """The funnel, from the decisions themselves: it ends at what is kept whatever the rules' own counts say."""
        left, steps = self.read, []
        listed = [r["rule"] for r in self.rules]
        others = [{"rule": r, "mode": "enforce"} for r in self.rule_names if r not in listed]
        for rule in [*self.rules, *others]:
            out = self.taken_by(rule["rule"])
            count, effect = len(out), "quarantined" if rule["mode"] == "quarantine" else "dropped"
            left -= count
            if rule["mode"] == "score":
                count, effect = rule["failed"], "would drop"
            if count:
                steps.append(Step(rule["rule"], effect, count, left))
        return steps


def spread(data: Tables, positions: Ints, scores: Floats | None, most: int) -> Ints:
    """At most ``most`` positions, evenly over their scores (or rows); of different videos where there are enough."""
    order = np.argsort(scores, kind="stable") if scores is not None else np.arange(len(positions))
    ordered = positions[order]
    first = np.sort(np.unique(data.media[ordered], return_index=True)[1])
    if len(first) >= most:
        ordered = ordered[first]
    places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(np.int64))
    return np.asarray(ordered[places], np.int64)


def failing(scores: Floats, rule: dict[str, Any]) -> Mask:
    """Which scores fail a rule that has a threshold."""
    threshold = rule["threshold"]
    worse = scores > threshold if rule["higher_is_worse"] else scores < threshold
    # Whether the threshold itself fails is the rule's own affair; how many failed tells which it was.
    with_ties: Mask = worse | (scores == threshold)
    return with_ties if np.count_nonzero(worse) != rule["failed"] == np.count_nonzero(with_ties) else worse


def codes(column: pa.ChunkedArray | pa.DictionaryArray) -> tuple[Ints, pa.Array]:
    """A text column as the number of each value (-1 for null) and the values."""
    if isinstance(column, pa.ChunkedArray):
        if not len(column):
            return np.empty(0, np.int64), pa.array([], pa.string())
        column = column.unify_dictionaries().combine_chunks()
    return column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), column.dictionary


def read_scores(path: Path, order: Sequence[str]) -> dict[str, tuple[Ints, Floats]]:
    """Rule -> rows and finite scores, in the order of the rules."""
    parts: dict[str, list[tuple[Ints, Floats]]] = {}
    for batch in iterate(path) if path.is_file() else ():
        rules, names = codes(batch["rule"].dictionary_encode())
        rows, scores = batch["row"].to_numpy(), batch["score"].to_numpy(zero_copy_only=False)
        for code, name in enumerate(names.to_pylist()):
            of_rule = (rules == code) & np.isfinite(scores)
            if of_rule.any():
                parts.setdefault(name, []).append((rows[of_rule], scores[of_rule]))
    rank = {name: i for i, name in enumerate(order)}
    return {
        name: (np.concatenate([r for r, _ in parts[name]]), np.concatenate([s for _, s in parts[name]]))
        for name in sorted(parts, key=lambda name: (rank.get(name, len(rank)), name))
    }


def read_rows(path: Path, key: str, values: Sequence[Any], columns: Sequence[str]) -> Records:
    """``columns`` of the rows whose ``key`` is among ``values``, of a table that may be missing.

    One row group is held at a time, and only those are read whose bounds leave room for a value.
    """
    if not path.is_file() or not values:
        return []
    wanted = sorted(set(values))
    records: Records = []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            bounds = file.metadata.row_group(group).column(file.schema.names.index(key)).statistics
            if bounds and bounds.has_min_max and bisect_left(wanted, bounds.min) == bisect_right(wanted, bounds.max):
                continue
            keys = file.read_row_group(group, [key])[key]
            found = np.flatnonzero(pc.is_in(keys, pa.array(wanted, keys.type)))
            if len(found):
                records += file.read_row_group(group, list(columns)).take(found).to_pylist()
    return records


def read_small(path: Path) -> Records:
    """All rows of a small table that may be missing."""
    records: Records = read_table(path).to_pylist() if path.is_file() else []
    return records


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
