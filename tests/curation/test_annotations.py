import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxl_lightning.curation.annotations import check_paths, ingest, normalise
from vxl_lightning.curation.recipe import Recipe, Source
from vxl_lightning.errors import UserError

from .conftest import record


def read(recipe: Recipe, folder: Path) -> list[dict[str, Any]]:
    ingest(recipe, folder / "samples.parquet", folder / "named.parquet")
    rows: list[dict[str, Any]] = pq.read_table(folder / "samples.parquet").to_pylist()
    return rows


def sampled(folder: Path, count: int, strategy: str, seed: int = 0) -> list[int]:
    lines = [json.dumps(record(str(i), "v.mp4", "What?", "that")) for i in range(count)]
    (folder / "many.jsonl").write_text("\n".join(lines))
    source = Source(json_path="many.jsonl", sampling_strategy=strategy)
    return [int(row["id"]) for row in read(Recipe(datasets=[source], annotation_root=str(folder), seed=seed), folder)]


def test_every_record_has_a_row_and_broken_ones_say_why(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rows = read(recipe(), tmp_path)
    assert [row["row"] for row in rows] == list(range(27))
    broken = {(row["source"], row["record_number"]): (row["problem"], row["detail"]) for row in rows if row["problem"]}
    assert set(broken) == {("a.json", 24), ("b.jsonl", 2), ("b.jsonl", 3)}
    assert broken["b.jsonl", 2][0] == "not_json" and "column" in broken["b.jsonl", 2][1]
    assert "leaves media_root" in broken["a.json", 24][1]


def test_identities_are_stable_and_unique(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    first, again = read(recipe(), tmp_path), read(recipe(), tmp_path)
    assert [r["sample_id"] for r in first] == [r["sample_id"] for r in again]
    assert len({r["sample_id"] for r in first}) == len(first)


def test_the_same_record_twice_has_two_identities(tmp_path: Path) -> None:
    one = record("a", "v.mp4", "What?", "that")
    (tmp_path / "x.json").write_text(json.dumps([one, one]))
    rows = read(Recipe(datasets=[Source(json_path="x.json")], annotation_root=str(tmp_path)), tmp_path)
    assert rows[1]["sample_id"] == rows[0]["sample_id"] + "-2"


@pytest.mark.parametrize(
    ("strategy", "taken"),
    [
        ("all", range(10)),
        ("first:3", range(3)),
        ("end:3", range(7, 10)),
        ("first:25%", range(3)),
        ("end:200", range(10)),
    ],
)
def test_strategies(tmp_path: Path, strategy: str, taken: range) -> None:
    assert sampled(tmp_path, 10, strategy) == list(taken)


def test_random_is_seeded_and_keeps_the_order(tmp_path: Path) -> None:
    first = sampled(tmp_path, 50, "random:40%")
    assert len(first) == 20 and first == sorted(first)
    assert first == sampled(tmp_path, 50, "random:40%")
    assert first != sampled(tmp_path, 50, "random:40%", seed=1)


def test_braces_name_several_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"x_{name}.json").write_text(json.dumps([record(name, "v.mp4", "What?", "that")]))
    source = Source(json_path="x_{a,b}.json")
    assert [r["id"] for r in read(Recipe(datasets=[source], annotation_root=str(tmp_path)), tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(json_path="a.json", sampling_strategy="some:3"), "first:N"),
        (Source(json_path="none.json"), "no annotation file"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(
    recipe: Callable[..., Recipe], tmp_path: Path, source: Source, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(recipe(datasets=[source]), tmp_path)


def turns(*values: Any) -> list[dict[str, Any]]:
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"video": "v.mp4", "conversations": turns("a", "b")},
        {"id": "", "video": "v.mp4", "conversations": turns("a", "b")},
        {"id": "x", "conversations": turns("a", "b")},
        {"id": "x", "video": 3, "conversations": turns("a", "b")},
        {"id": "x", "video": ["v.mp4"], "conversations": turns("a", "b")},
        {"id": "x", "video": "v.mp4", "image": "i.jpg", "conversations": turns("a", "b")},
        {"id": "x", "video": "v.mp4"},
        {"id": "x", "video": "v.mp4", "conversations": []},
        {"id": "x", "video": "v.mp4", "conversations": "a"},
        {"id": "x", "video": "v.mp4", "conversations": ["a", "b"]},
        {"id": "x", "video": "v.mp4", "conversations": turns("a")},
        {"id": "x", "video": "v.mp4", "conversations": turns("a", "b")[::-1]},
        {"id": "x", "video": "v.mp4", "conversations": turns("a", 3)},
        {"id": "x", "video": "../v.mp4", "conversations": turns("a", "b")},
        {"id": "x", "video": "/v.mp4", "conversations": turns("a", "b")},
        {"id": "x", "video": "a/../../v.mp4", "conversations": turns("a", "b")},
        {"id": "x", "video": "v\0.mp4", "conversations": turns("a", "b")},
        {"id": "x", "video": "v.mp4", "conversations": turns("a", "b"), "scale": -1},
        {"id": "x", "video": "v.mp4", "conversations": turns("a", "b"), "scale": True},
    ],
)
def test_malformed_records_are_refused(wrong: object) -> None:
    with pytest.raises(UserError):
        normalise(wrong)


def test_paths_are_normal_and_images_are_told_apart() -> None:
    sample, media, kind = normalise({"id": 1, "image": "a//./b.jpg", "conversations": turns("a", "b"), "scale": 2})
    assert (media, kind, sample.meta["scale"]) == ("a/b.jpg", "image", 2)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_a_sample_or_a_user_error(value: object) -> None:
    try:
        normalise(value)
    except UserError as error:
        assert "\n" not in str(error)


def test_numbers_and_nesting_beyond_reason_do_not_stop_the_reading(tmp_path: Path) -> None:
    lines = ["7" * 5000, "[" * 100_000, json.dumps(record("a", "v.mp4", "What?", "that"))]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    rows = read(Recipe(datasets=[Source(json_path="x.jsonl")], annotation_root=str(tmp_path)), tmp_path)
    assert [row["problem"] for row in rows] == ["not_json", "not_json", None]


def test_half_a_surrogate_pair_does_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"id": "\\ud800", "video": "v.mp4", "conversations": []}]')
    (row,) = read(Recipe(datasets=[Source(json_path="x.json")], annotation_root=str(tmp_path)), tmp_path)
    assert row["problem"] == "malformed" and "surrogate" in row["detail"]


def test_paths_are_checked_up_front(tmp_path: Path) -> None:
    root = tmp_path / "media"
    (root / "frames").mkdir(parents=True)
    (root / "frames/1.jpg").write_bytes(b"x")
    (root / "empty").mkdir()
    (root / "zero.mp4").touch()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    import os

    import pyarrow as pa

    from vxl_lightning.curation.annotations import NAMED

    os.mkfifo(root / "pipe.mp4")
    (root / "outside").mkdir()
    (root / "outside/1.jpg").symlink_to(tmp_path / "secret.mp4")
    (root / "odd.mts").write_bytes(b"x")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    names = ["frames", "empty", "zero.mp4", "link.mp4", "pipe.mp4", "none.mp4", "outside", "odd.mts", "loop.mp4"]
    table, _ = check_paths(
        root, pa.Table.from_pylist([{"media": n, "kind": "video", "samples": 1} for n in names], NAMED)
    )
    found = {row["media"]: (row["kind"], row["problem"]) for row in table.to_pylist()}
    assert found == {
        "frames": ("frames", None),
        "empty": ("video", "not_a_file"),
        "zero.mp4": ("video", "empty"),
        "link.mp4": ("video", "outside_root"),
        "pipe.mp4": ("video", "not_a_file"),
        "none.mp4": ("video", "missing"),
        "outside": ("video", "outside_root"),
        "odd.mts": ("video", "unknown_suffix"),
        "loop.mp4": ("video", "unreadable"),
    }
