"""The whole evaluation on a tiny road: tables that repeat, also after an interruption, and figures by hand."""

import math

import pytest
from PIL import Image
from tests.evaluation.needles import tiny_road

from vxl_lightning.evaluation.needles import grid, road, runner
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig

TABLES = ("questions.parquet", "grid.parquet", "needle.md", "needle.html", "needle.png")


@pytest.fixture(scope="module")
def hay(tmp_path_factory):
    return tiny_road.hay(tmp_path_factory.mktemp("hay"))


@pytest.fixture(scope="module")
def whole(hay, tmp_path_factory):
    return runner.run(config(hay, tmp_path_factory.mktemp("whole")), tiny_road.own())


def config(hay, out, **values):
    given = {"lengths": [32, 3], "depths": [0.0, 1.0], "per_cell": 2, "max_new_tokens": 3} | values
    return NeedleEvaluationConfig(model="somewhere", haystack=str(hay.path), out=str(out), **given)


def tables(result):
    return {name: (result.out / name).read_bytes() for name in TABLES}


def test_two_runs_give_identical_tables(hay, whole, tmp_path):
    again = runner.run(config(hay, tmp_path), tiny_road.own())
    assert tables(again) == tables(whole)
    assert (again.looked, again.known) == (8, 0)


def test_killed_and_resumed_it_gives_the_same_tables(hay, whole, tmp_path):
    def dies(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(config(hay, tmp_path), tiny_road.own(), dies)
    assert not (tmp_path / "grid.parquet").exists()
    for store in (tmp_path / "cache" / "needles").iterdir():  # killed while it wrote
        store.write_bytes(store.read_bytes()[:-40])
    resumed = runner.run(config(hay, tmp_path), tiny_road.own())
    assert tables(resumed) == tables(whole) and (resumed.looked, resumed.known) == (6, 2)
    known = runner.run(config(hay, tmp_path), tiny_road.own())
    assert tables(known) == tables(whole) and (known.looked, known.known) == (0, 8)


def test_a_new_row_is_asked_alone_and_an_edited_one_anew(hay, tmp_path, monkeypatch):
    small = config(hay, tmp_path, lengths=[8], depths=[0.5], per_cell=1)
    first = runner.run(small, tiny_road.own())
    watched = []
    watch = road.watch
    monkeypatch.setattr(
        road, "watch", lambda h, p, e, models: watched.append(len(models := list(models))) or watch(h, p, e, models)
    )
    more = tiny_road.own(further=tiny_road.model("uniform"))
    second = runner.run(small, more)
    assert watched == [1] and len(second.records) == len(first.records) * 3 // 2
    more.depends["reference"] = {"row": "edited"}
    runner.run(small, more)
    assert watched == [1, 1]


def test_every_cell_has_its_questions_and_its_costs(whole):
    assert {(r["row"], r["length"], r["depth"]) for r in whole.records} == {
        (row, length, depth) for row in ("reference", "uniform") for length in (3, 32) for depth in (0.0, 1.0)
    }
    assert len(whole.costs) == 16
    assert all(
        c["decode_ms"] > 0 and c["encode_ms"] > 0 and c["answer_ms"] > 0 and c["peak_mib"] > 0 for c in whole.costs
    )
    header, body = grid.costs(whole.costs)
    assert header[:3] == ["row", "frames", "decode s"] and len(body) == 4
    text = (whole.out / "needle.md").read_text()
    assert "## uniform" in text and "| n of retrieval |" in text and "**when, m_tIoU**" in text
    assert Image.open(whole.out / "needle.png").size[0] > 100
    assert "cdn" not in (whole.out / "needle.html").read_text().split("<body>")[1]


def test_a_row_that_cannot_take_a_length_is_told_and_does_not_stop_the_others(hay, tmp_path):
    own = tiny_road.own()
    own.models["uniform"].compressor = tiny_road.model("uniform").compressor
    type(own.models["uniform"].compressor).min_frames, before = 5, type(own.models["uniform"].compressor).min_frames
    try:
        found = runner.run(config(hay, tmp_path, lengths=[3, 8], depths=[0.5], per_cell=1), own)
    finally:
        type(own.models["uniform"].compressor).min_frames = before
    assert {(r["row"], r["length"]) for r in found.records if r["failed"]} == {("uniform", 3)}
    assert grid.why_not(found.records) == ["uniform, 3 frames: UniformFrames needs at least 5 frames"]
    assert "does not fit" in (tmp_path / "needle.md").read_text()


def record(row="a", length=8, depth=0.0, haystack="x", task="what", **values):
    given = {"row": row, "length": length, "depth": depth, "haystack": haystack, "task": task, "choices": ["u", "v"]}
    judged = {"exact": True, "generated": True, "chosen": True, "carried": True, "recalled": True, "read": None}
    return given | judged | {"lost": "", "failed": ""} | values


def test_the_figures_of_a_grid_are_as_counted_by_hand():
    records = [
        record(haystack="x"),
        record(haystack="x", task="colour", exact=False, lost="selector", recalled=False),
        record(haystack="y", exact=False, lost="language model"),
        record(haystack="y", task="colour", exact=False, lost="compressor", carried=False, recalled=False),
        record(haystack="z", depth=1.0),
        record(haystack="z", task="when", depth=1.0, iou=0.4, **{"r@0.3": True, "r@0.5": False, "r@0.7": False}),
        record(haystack="y", task="when", iou=0.8, **{"r@0.3": True, "r@0.5": True, "r@0.7": True}),
        record(haystack="w", length=99, failed="too long", lost=None),
    ]
    found = {(g["task"], g["score"], g["length"], g["depth"]): g for g in grid.grids(records)}
    cell = found["retrieval", "exact", 8, 0.0]
    # residuals from 1/4 summed in each haystack: 1/2 and -1/2; sqrt(2 / 1 * (1/4 + 1/4)) / 4
    assert (cell["mean"], cell["n"], cell["haystacks"], cell["se"]) == (0.25, 4, 2, 0.25)
    assert found["retrieval", "exact", 8, None]["mean"] == pytest.approx(0.4)
    assert found["retrieval", "exact", None, None]["failed"] == 1
    assert found["what", "recalled", 8, 0.0]["mean"] == 1.0
    for place in grid.PLACES:
        assert found["retrieval", f"lost: {place}", 8, 0.0]["mean"] == 0.25
    assert found["retrieval", "chance", 8, 0.0]["mean"] == 0.5
    assert found["when", "iou", 8, None]["mean"] == pytest.approx(0.6)
    assert [found["when", f"r@{x}", 8, None]["mean"] for x in (0.3, 0.5, 0.7)] == [1.0, 0.5, 0.5]
    unfit = found["what", "exact", 99, 0.0]
    assert math.isnan(unfit["mean"]) and (unfit["n"], unfit["failed"]) == (0, 1)
    assert ("what", "read", 8, 0.0) not in found
    header, body = grid.depth_by_length(list(found.values()), "a", "retrieval", "exact")
    assert header == ["depth", "8", "99"]
    assert body == [
        ["0", "0.25 ± 0.25 (4)", "does not fit"],
        ["1", "1.00 (1)", ""],
        ["all", "0.40 ± 0.25 (5)", "does not fit"],
    ]
