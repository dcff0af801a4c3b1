"""Annotations: both layouts, streaming, and one-line errors that name the record."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vxl_lightning.data import schema
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.data.schema import Sample, Turn, read_annotations, write_annotations
from vxl_lightning.errors import UserError

GOOD = {
    "id": "a",
    "video": "a.mp4",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A star."}],
    "split": "test",
}


@pytest.mark.parametrize("layout", ["list", "lines", "pretty"])
def test_both_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_CHUNK", 7)  # records then straddle every read
    records = [{**GOOD, "id": f"ä{i}", "score": [1.5, None]} for i in range(5)]
    path = tmp_path / "a.json"
    text = {
        "list": json.dumps(records),
        "pretty": json.dumps(records, indent=2, ensure_ascii=False) + "\n",
        "lines": "\n\n".join(json.dumps(r) for r in records),
    }[layout]
    path.write_text(text, encoding="utf-8")
    samples = list(read_annotations(path))
    assert [s.id for s in samples] == [f"ä{i}" for i in range(5)]
    assert samples[0].conversations[1] == Turn("gpt", "A star.")
    assert samples[0].meta == {"split": "test", "score": [1.5, None]}
    write_annotations(tmp_path / "b.jsonl", samples)
    assert list(read_annotations(tmp_path / "b.jsonl")) == samples


def test_reads_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + json.dumps(GOOD) + ", " + json.dumps(GOOD) + ", oops]")
    stream = read_annotations(path)
    assert next(stream).id == "a" and next(stream).id == "a"
    with pytest.raises(UserError, match="record 3: not JSON"):
        next(stream)


def broken(**change: object) -> dict[str, object]:
    return {k: v for k, v in {**GOOD, **change}.items() if v != "REMOVE"}


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ([1], ["record 2", "a record must be an object", "a list"]),
        (broken(id="REMOVE"), ["record 2", "'id'", "missing"]),
        (broken(id=True), ["record 2", "'id'", "true"]),
        (broken(video="REMOVE"), ["record 2", "(id 'a')", "'video'", "missing"]),
        (broken(video=3), ["'video'", "path of a video file", "3"]),
        (broken(conversations=[]), ["'conversations'", "non-empty list"]),
        (broken(conversations=["hi"]), ["conversations[0]", "'from' and 'value'", "a string"]),
        (broken(conversations=[{"from": "robot", "value": "x"}]), ["conversations[0]", "'from'", "'human'", '"robot"']),
        (broken(conversations=[{"from": "human", "value": 1}]), ["conversations[0]", "'value'", "string", "1"]),
        (broken(conversations=[{"from": "human", "value": "x"}] * 2), ["conversations[1]", "'gpt'"]),
    ],
)
def test_wrong_records(tmp_path: Path, record: object, parts: list[str]) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps([GOOD, record]))
    with pytest.raises(UserError) as error:
        list(read_annotations(path))
    message = str(error.value)
    assert "\n" not in message
    for part in ["wrong.json", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "holds no record"),
        (b"[]", "holds no record"),
        (b"[{]", "record 1: not JSON"),
        (b'[{"id": 1}', "record 1"),
        (b'{"id": \n', "line 1: not JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[] x", "after the closing"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_annotations(path))
    assert "wrong.json" in str(error.value) and part in str(error.value) and "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such annotation file"):
        list(read_annotations(tmp_path / "none.json"))


texts = st.text(max_size=20)


@settings(max_examples=30, deadline=None)
@given(
    st.text(min_size=1, max_size=20),
    st.text(min_size=1, max_size=20),
    st.lists(texts, min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["task", "split", "needles"]), st.none() | st.integers() | texts | st.lists(texts)),
)
def test_round_trip(name: str, video: str, turns: list[str], meta: dict[str, object]) -> None:
    roles = (schema.ROLES * len(turns))[: len(turns)]
    sample = Sample(name, video, tuple(Turn(r, t) for r, t in zip(roles, turns, strict=True)), meta)
    assert Sample.from_record(json.loads(json.dumps(sample.to_record())), "test") == sample


@given(st.floats(0.01, 5000), st.floats(0.1, 60), st.integers(1, 500))
def test_sample_times_law(duration: float, fps: float, max_frames: int) -> None:
    times = sample_times(duration, fps, max_frames)
    assert 1 <= len(times) <= max_frames
    assert times[0] == 0.0 and times[-1] < duration
    if len(times) > 1:
        step = times[1] - times[0]
        assert step >= 1 / fps - 1e-9
        assert all(abs(b - a - step) < 1e-6 for a, b in pairwise(times))
        assert duration - times[-1] <= step + 2e-3 / fps  # the whole video is covered


def test_sample_times_refuses() -> None:
    assert sample_times(16.0, 2.0, 32) == [i / 2 for i in range(32)]
    assert sample_times(16.0004, 2.0, 64) == [i / 2 for i in range(32)]
    with pytest.raises(UserError, match="fps=0"):
        sample_times(1.0, 0, 1)
