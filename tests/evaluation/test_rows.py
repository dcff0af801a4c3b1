"""Annotation files: every error names the file and the row."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.base import Question
from vxl_lightning.evaluation.places import first_there
from vxl_lightning.evaluation.rows import (
    Row,
    RowError,
    as_json,
    choose_layout,
    listing,
    read_files,
)


def question(row: Row) -> Question | None:
    if row.text("q") == "skip":
        return None
    return Question(id=row.word("id"), video=row.path("video"), text=row.text("q"), answer="A")


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"id": "1", "q": "é, 问"}, {"id": "2", "q": "b"}]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text('id,q\n1,"é, 问"\n2,b\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text("id\tq\n1\té, 问\n2\tb\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        (found,) = read_files(path)
        assert [r.value for r in found] == rows
        assert found[1].where == f"{path.name}[1]"


def test_an_object_gives_rows_by_key(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": {"q": "a"}}')
    ((row,),) = read_files(tmp_path / "a.json")
    assert (row.key, row.where, row.text("q")) == ("x", "a.json['x']", "a")


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    for name, content in {
        "a.json": b"\x00",
        "b.parquet": b"no",
        "c.csv": b"\x00,",
        "d.json": b"3",
        "e.json": b"\xff",
    }.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_files(*sorted(tmp_path.iterdir()), tmp_path / "missing.json")
    assert all(
        name in str(error.value) for name in ("a.json", "b.parquet", "c.csv", "d.json", "e.json", "missing.json")
    )


def test_bad_rows_become_problems_and_good_ones_stay_in_order(tmp_path: Path) -> None:
    good = '{"id": %d, "q": "é", "video": "a/b.mp4"}'
    lines = [good % 2, "{not json", "[]", '{"id": 1}', good % 2, '{"q": "skip"}', good % 1]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = listing(read_files(tmp_path / "a.jsonl")[0], question)
    assert [q.id for q in found.questions] == ["2", "1"]
    assert [p.where for p in found.problems] == [f"a.jsonl[{i}]" for i in (1, 2, 3, 4)]
    reasons = [p.reason for p in found.problems]
    assert "not JSON" in reasons[0] and "must be an object" in reasons[1]
    assert reasons[2] == "q: missing; the row has id" and reasons[3] == "the id '2' is taken by a.jsonl[0]"


@pytest.mark.parametrize(
    ("method", "value", "arguments"),
    [
        ("text", "", ()), ("text", " \n", ()), ("text", None, ()), ("text", 3, ()), ("text", "\ud800", ()),
        ("word", True, ()), ("word", 1.5, ()), ("number", "x", ()), ("number", float("nan"), ()), ("number", True, ()),
        ("index", 4, (4,)), ("index", -1, (4,)), ("index", "1", (4,)), ("index", True, (4,)),
        ("texts", "ab", ()), ("texts", ["a", 1], ()), ("texts", ["a", ""], ()), ("one_of", "E", ("ABCD",)),
        ("one_of", ["A"], ("ABCD",)), ("path", "../x", ()), ("path", "/x", ()), ("path", "a\\..\\x", ()),
        ("rows", {}, ()),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(method: str, value: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(RowError, match="field"):
        getattr(Row("a.json[0]", {"field": value}), method)("field", *arguments)


def test_long_values_are_cut_in_errors() -> None:
    with pytest.raises(RowError) as error:
        Row("a.json[0]", {"field": ["x" * 1000, 1]}).text("field")
    assert len(str(error.value)) < 150


def test_rows_within_a_row_know_where_they_are() -> None:
    inner = Row("a.jsonl[2]", {"qa": [{"uid": 7}]}).rows("qa")
    assert (inner[0].where, inner[0].word("uid")) == ("a.jsonl[2].qa[0]", "7")


def test_the_layout_that_is_there_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"put x/a\.json, x/b\.json; or a\.json, b\.json there"):
        choose_layout(tmp_path, ["x/a.json", "x/b.json"], ["a.json", "b.json"])
    (tmp_path / "a.json").touch()
    with pytest.raises(UserError, match=r"b\.json are missing"):
        choose_layout(tmp_path, ["x/a.json", "x/b.json"], ["a.json", "b.json"])
    (tmp_path / "b.json").touch()
    assert choose_layout(tmp_path, ["x/a.json"], ["a.json", "b.json"]) == [tmp_path / "a.json", tmp_path / "b.json"]
    assert first_there(tmp_path, "c.json", "b.json") == "b.json"
    assert first_there(tmp_path, "c.json", "d.json") == "c.json"


def test_submissions_are_utf8() -> None:
    assert as_json(["é"]).decode() == '[\n  "é"\n]\n'
    assert as_json([{"a": "é"}, 1], lines=True).decode() == '{"a": "é"}\n1\n'
