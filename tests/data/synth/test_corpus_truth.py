"""Judging decisions: definitions of planted, found, taken and right, on decisions written by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from vxl_lightning.curation.schema import DECISIONS, write_table
from vxl_lightning.data.synth.corpus.truth import ALL, Score, score
from vxl_lightning.errors import UserError

TRUTH = [  # planted, expected, rule
    ("blind", "drop", "blind"),
    ("blind", "drop", "blind"),
    ("clean", "keep", None),
    ("ordered", "weigh", "ordered"),
    ("truncated", "quarantine", "damaged"),
    ("missing_id", "quarantine", "malformed"),
    ("exact_qa", "drop", "exact_qa"),
    ("odd_pixels", "flag", "odd_pixels"),
]


def truth(folder: Path) -> Path:
    lines = [
        {"source": "annotations/a.json", "record_number": i, "planted": p, "expected": e, "rule": r}
        for i, (p, e, r) in enumerate(TRUTH, 1)
    ]
    path = folder / "truth.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def decisions(*decided: tuple[str, str | None]) -> pa.Table:
    rows = [
        {"source": "/elsewhere/a.json", "record_number": i, "decision": d, "rule": r}
        for i, (d, r) in enumerate(decided, 1)
    ]
    return pa.Table.from_pylist(rows, DECISIONS)


PERFECT = [
    ("drop", "blind"), ("drop", "blind"), ("keep", None), ("keep", None),
    ("quarantine", "probe"), ("quarantine", "record"), ("drop", "exact_qa"), ("keep", None),
]  # fmt: skip


def test_perfect_decisions(tmp_path: Path) -> None:
    found = score(decisions(*PERFECT), truth(tmp_path))
    assert [(s.rule, s.planted, s.taken) for s in found] == [
        ("blind", 2, 2), ("damaged", 1, 1), ("exact_qa", 1, 1), ("malformed", 1, 1), (ALL, 5, 5),
    ]  # fmt: skip
    assert all(s.recall == s.precision == 1.0 for s in found)


def test_mistakes_count_where_they_belong(tmp_path: Path) -> None:
    decided = [
        ("drop", "exact_qa"),  # blind, found although another rule came first
        ("keep", None),  # blind, missed
        ("drop", "blind"),  # clean, taken wrongly
        ("drop", "blind"),  # only to be weighed: taken wrongly
        ("drop", "near_video"),  # damaged, gone for a reason that is not the true one
        ("quarantine", "record"),
        ("drop", "exact_qa"),
        ("quarantine", "probe"),  # odd but usable: taken wrongly
    ]
    path = tmp_path / "decisions.parquet"
    write_table(path, decisions(*decided))
    assert score(path, truth(tmp_path)) == [
        Score("blind", planted=2, found=1, taken=2, right=0),
        Score("damaged", planted=1, found=0, taken=0, right=0),
        Score("exact_qa", planted=1, found=1, taken=2, right=2),
        Score("malformed", planted=1, found=1, taken=1, right=1),
        Score("near_video", planted=0, found=0, taken=1, right=1),
        Score("probe", planted=0, found=0, taken=1, right=0),
        Score(ALL, planted=5, found=3, taken=7, right=4),
    ]
    row = next(s for s in score(path, truth(tmp_path)) if s.rule == "near_video")
    assert row.recall is None and row.precision == 1.0


@pytest.mark.parametrize("decided", [PERFECT[:-1], [*PERFECT, ("keep", None)]])
def test_decisions_must_cover_the_truth(tmp_path: Path, decided: list[tuple[str, str | None]]) -> None:
    with pytest.raises(UserError, match=r"tells of 8 records and there are [79] decisions, about [78] of them"):
        score(decisions(*decided), truth(tmp_path))
    with pytest.raises(UserError, match=r"gone.jsonl: no such file; 'vxl data synth corpus' writes it"):
        score(decisions(*decided), tmp_path / "gone.jsonl")
