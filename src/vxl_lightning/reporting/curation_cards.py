"""Samples and rules as a pruning report shows them: a strip of frames, what was asked and answered, and the verdict."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vxl_lightning.reporting.curation_tables import Ints, Records, Tables, failing, read_rows, spread
from vxl_lightning.reporting.thumbnails import Thumbnails

EXAMPLES = 3
"""Samples shown of those that fail a rule, and as many of those that pass it."""
_LONGEST = 240


class Cards:
    """Samples with their pictures. All rows are chosen first, so that every table is read once."""

    def __init__(self, tables: Path, media_root: Path, data: Tables, more_media: Iterable[str]) -> None:
        self._data = data
        self._chosen = {r["rule"]: self._choose(r) for r in data.rules}
        self._kept = spread(data, np.flatnonzero(data.is_kept), None, 2 * EXAMPLES)
        every = [self._kept, *(rows for pair in self._chosen.values() for rows in pair)]
        rows = data.row[np.concatenate(every)].tolist()
        decided = ("row", "sample_id", "decision", "rule", "duplicate_of", "detail")
        self._decisions = {r["row"]: r for r in read_rows(tables / "decisions.parquet", "row", rows, decided)}
        read = ("row", "source", "record_number", "id", "media", "record", "detail")
        self._samples = {r["row"]: r for r in read_rows(tables / "samples.parquet", "row", rows, read)}
        media = sorted({s["media"] for s in self._samples.values() if s["media"]} | set(more_media))
        self.thumbnails = Thumbnails(media_root, _media_facts(tables, media))

    def _choose(self, rule: dict[str, Any]) -> tuple[Ints, Ints]:
        """Positions of samples that failed a rule and, where it has scores, of some that passed it."""
        data, failed = self._data, self._data.taken_by(rule["rule"])
        score = data.score[failed]
        passed = np.empty(0, np.int64)
        if rule["rule"] in data.scores:
            rows, scores = data.scores[rule["rule"]]
            decided = np.isin(rows, data.row)
            at, scores = np.searchsorted(data.row, rows[decided]), scores[decided]
            if rule["mode"] == "score" and rule["threshold"] is not None:
                fails = failing(scores, rule)
                failed, score = at[fails], scores[fails]
            good = data.is_kept[at] & ~np.isin(at, failed)
            passed = spread(data, at[good], scores[good], EXAMPLES)
        return spread(data, failed, None if np.isnan(score).any() else score, EXAMPLES), passed

    def by_rule(self) -> Records:
        """Rules that found something, with samples on either side."""
        return [
            {
                "rule": rule_row(rule),
                "failed": [self._card(p, rule) for p in self._chosen[rule["rule"]][0]],
                "passed": [self._card(p, rule) for p in self._chosen[rule["rule"]][1]],
            }
            for rule in self._data.rules
            if len(self._chosen[rule["rule"]][0])
        ]

    def kept(self) -> Records:
        """Some of what is kept."""
        return [self._card(p, None) for p in self._kept]

    def _card(self, position: int, rule: dict[str, Any] | None) -> dict[str, Any]:
        row = int(self._data.row[position])
        decision, sample = self._decisions[row], self._samples[row]
        score = None
        if rule is not None and rule["rule"] in self._data.scores:
            rows, scores = self._data.scores[rule["rule"]]
            found = np.flatnonzero(rows == row)
            score = f"{scores[found[0]]:.4g}" if len(found) else None
        question, answer = _exchange(sample["record"])
        return {
            "strip": self.thumbnails.strip(sample["media"] or ""),
            "verdict": {"keep": "kept", "drop": "dropped", "quarantine": "quarantined"}[decision["decision"]],
            "by": decision["rule"],
            "score": score,
            "id": short(sample["id"] or "", 60),
            "sample_id": decision["sample_id"],
            "where": f"{sample['source']}, record {sample['record_number']}",
            "question": question,
            "answer": answer,
            "duplicate_of": decision["duplicate_of"],
            "detail": short(decision["detail"] or sample["detail"] or ""),
        }


def _media_facts(tables: Path, media: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `Thumbnails` wants to know; a problem of the path comes before one of the content."""
    facts: dict[str, dict[str, Any]] = {m: {} for m in media}
    for name, columns in (("probe", ("duration", "width", "height")), ("media", ("kind",))):
        for row in read_rows(tables / f"{name}.parquet", "media", media, ("media", "problem", "detail", *columns)):
            if not row["problem"]:
                del row["problem"], row["detail"]
            facts[row["media"]] |= row
    return facts


def rule_row(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule of ``rules.parquet`` in words."""
    threshold, quantile, reached = rule["threshold"], rule["quantile"], rule["reached"]
    side = "above" if rule["higher_is_worse"] else "below"
    given = "" if threshold is None else "absolute" if quantile is None else f"quantile {quantile:g}"
    return {
        "name": rule["rule"],
        "stage": rule["stage"],
        "mode": rule["mode"],
        "fails": "" if threshold is None else f"{side} {threshold:.4g}",
        "set": given,
        "reached": f"{reached:,}",
        "failed": f"{rule['failed']:,}",
        "share": f"{rule['failed'] / reached:.2%}" if reached else "",
    }


def _exchange(record: str | None) -> tuple[str, str]:
    """The first question and answer of a record that may be of any shape."""
    try:
        parsed = json.loads(record or "null")
    except (ValueError, RecursionError):
        return short(record or ""), ""
    turns = parsed.get("conversations") if isinstance(parsed, dict) else None
    if not isinstance(turns, list):
        return short(record or ""), ""
    said = [t.get("value") for t in turns[:2] if isinstance(t, dict)]
    texts = [short(t if isinstance(t, str) else json.dumps(t)) for t in said] + ["", ""]
    return texts[0], texts[1]


def short(text: str, longest: int = _LONGEST) -> str:
    """One line of at most ``longest`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
