"""The end of a recipe: its tables beside the shards, the report, and `dataset.json` last of all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vxl_lightning.config import to_plain
from vxl_lightning.curation.prune import State
from vxl_lightning.curation.recipe import Recipe
from vxl_lightning.curation.schema import DECISIONS, ERRORS, iterate, write_batches, write_table
from vxl_lightning.curation.throughput import throughput
from vxl_lightning.curation.verdicts import DROP, KEEP, QUARANTINE, Fault
from vxl_lightning.curation.work import Work
from vxl_lightning.curation.write import Writing, read_record
from vxl_lightning.data.files import published, sha256_of
from vxl_lightning.data.manifest import NAME, Manifest
from vxl_lightning.errors import UserError

_NAMES = {KEEP: "keep", DROP: "drop", QUARANTINE: "quarantine"}
_ELSEWHERE = ("out", "work", "engine", "workers")
"""Settings that change where and how, and not one byte of what."""


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What decides the bytes of the result, as plain values."""
    return {name: value for name, value in to_plain(recipe).items() if name not in _ELSEWHERE}


def lists(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the files of overrides and exclusions."""
    rules = recipe.contamination
    files = [recipe.overrides] * bool(recipe.overrides)
    files += [*rules.ids, *rules.video_hashes, *rules.qa_hashes, *rules.annotations]
    return {file: sha256_of(Path(file)) for file in files if Path(file).is_file()}


def is_published(recipe: Recipe, sources: dict[str, str]) -> bool:
    """Whether ``out`` holds the dataset of this recipe and these annotations.

    Raises:
        UserError: it holds another dataset.
    """
    out = Path(recipe.out)
    if not (out / NAME).exists():
        return False
    made = Manifest.load(out)[0].recipe or {}
    if (made.get("settings"), made.get("annotations"), made.get("lists")) == (
        settings_of(recipe),
        sources,
        lists(recipe),
    ):
        return True
    raise UserError(
        f"out={recipe.out}: holds the dataset of another recipe or of other annotations; name another folder"
    )


def publish(recipe: Recipe, sources: dict[str, str], work: Work, state: State, writing: Writing, shards: int) -> None:
    """Write everything beside the shards."""
    from vxl_lightning.reporting.curation import write_curation_report
    from vxl_lightning.reporting.manifest import versions

    out, index, verdicts = Path(recipe.out), state.index, state.verdicts
    assert state.strata is not None
    with published(out / "samples.parquet") as temporary:
        shutil.copyfile(index.samples, temporary)
    write_batches(out / "decisions.parquet", DECISIONS, _decisions(state))
    write_batches(out / "errors.parquet", ERRORS, _errors(state))
    strata = state.strata.table(state.eligible, verdicts.kept, state.tokens)
    tables = {
        "media": index.table, "probe": state.probed, "frames": state.frames, "duplicates": state.duplicates,
        "rules": verdicts.rules_table(), "scores": verdicts.scores_table(), "strata": strata,
    }  # fmt: skip
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    names = ["samples", "decisions", "errors", *tables]
    counts = {name: int((verdicts.state == state_).sum()) for state_, name in _NAMES.items()}
    assert sum(counts.values()) == len(index), "no sample is lost"
    made = {
        "settings": settings_of(recipe),
        "annotations": sources,
        "lists": lists(recipe),
        "counts": {"read": len(index), **counts},
        "tokens": {"read": int(state.tokens.sum()), "kept": int(state.tokens[verdicts.kept].sum())},
        "versions": versions(),
    }
    timings = throughput(work.spent, recipe, state)
    write_curation_report(out / "report.html", out, Path(recipe.media_root), to_plain(recipe), timings)
    manifest = Manifest(
        "video",
        None,
        tuple(read_record(writing.record(number)) for number in range(shards)),
        {f"{name}.parquet": sha256_of(out / f"{name}.parquet") for name in names},
        json.loads(json.dumps(made)),
    )
    manifest.save(out)


def _decisions(state: State) -> Iterator[pa.RecordBatch]:
    index, verdicts = state.index, state.verdicts
    columns = ["row", "sample_id", "source", "record_number", "id", "media"]
    for batch in iterate(index.samples, columns):
        rows = batch["row"].to_numpy()
        decided = [verdicts.applied[r] if r >= 0 else None for r in verdicts.rule[rows].tolist()]
        faults = [verdicts.faults.get(row, Fault()) for row in rows.tolist()]
        # A kept sample whose file is stored under its twin's name says so.
        moved = (index.original[rows] != index.media[rows]) & verdicts.kept[rows]
        places = zip(index.media[rows].tolist(), moved.tolist(), faults, strict=True)
        found = {
            **{name: batch[name] for name in columns},
            "decision": [_NAMES[s] for s in verdicts.state[rows].tolist()],
            "rule": [a.rule if a else None for a in decided],
            "score": [
                None if a is None or a.score is None else float(a.score[row])
                for a, row in zip(decided, rows, strict=True)
            ],
            "threshold": [a.threshold if a else None for a in decided],
            "duplicate_of": [index.paths[place] if elsewhere else f.duplicate_of for place, elsewhere, f in places],
            "detail": [f.detail for f in faults],
            "overridden": [bool(o) for o in _overridden(state, rows)],
            "tokens": state.tokens[rows],
        }
        yield pa.RecordBatch.from_pydict(found, DECISIONS)


def _overridden(state: State, rows: "np.ndarray[Any, np.dtype[np.int64]]") -> Iterator[bool]:
    """Samples whose fate an override changed."""
    names = {place for place, applied in enumerate(state.verdicts.applied) if applied.rule == "override"}
    for row in rows.tolist():
        yield bool(state.verdicts.saved[row]) or int(state.verdicts.rule[row]) in names


def _errors(state: State) -> Iterator[pa.RecordBatch]:
    verdicts = state.verdicts
    columns = ["row", "sample_id", "source", "record_number", "media"]
    for batch in iterate(state.index.samples, columns):
        set_aside = verdicts.state[batch["row"].to_numpy()] == QUARANTINE
        chosen = batch.filter(pa.array(set_aside))
        rows = chosen["row"].to_pylist()
        reasons = [(verdicts.faults[row].detail or "").split(": ", 1) for row in rows]
        more = [
            pa.array([verdicts.applied[int(verdicts.rule[row])].stage for row in rows], pa.string()),
            pa.array([reason[0] for reason in reasons], pa.string()),
            pa.array([reason[-1] for reason in reasons], pa.string()),
        ]
        yield pa.RecordBatch.from_arrays([*(chosen[name] for name in columns), *more], schema=ERRORS)
