"""Whole recipes on a tiny corpus: what is decided, and that the bytes are the same whoever and however often."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import webdataset

from vxl_lightning.config import to_plain
from vxl_lightning.curation.estimate import estimate
from vxl_lightning.curation.prune import prune
from vxl_lightning.curation.recipe import DuplicateRules, OutputSettings, Recipe, SelectSettings, Source
from vxl_lightning.curation.why import why
from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.verify import verify
from vxl_lightning.errors import UserError

DETERMINISTIC = ("*.tar", "*.parquet", "dataset.json")


def digests(out: Path) -> dict[str, str]:
    """Every file of a dataset but the report, which says how long things took."""
    files = sorted(f for pattern in DETERMINISTIC for f in out.glob(pattern))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def decisions(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(out / "decisions.parquet").to_pylist()}


@pytest.fixture(scope="module")
def pruned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    recipe = Recipe(
        datasets=[Source(json_path="a.json"), Source(json_path="b.jsonl")], annotation_root=str(corpus),
        media_root=str(corpus / "media"), out=str(tmp_path_factory.mktemp("pruned") / "out"), workers=2,
        output=OutputSettings(shard_bytes=20_000),
    )  # fmt: skip
    return recipe, prune(recipe)


def test_every_sample_has_a_decision_and_a_reason(pruned: tuple[Recipe, Path]) -> None:
    _, out = pruned
    rows = pq.read_table(out / "decisions.parquet").to_pylist()
    assert [row["row"] for row in rows] == list(range(27))
    found = {row["id"]: (row["decision"], row["rule"]) for row in rows if row["decision"] != "keep" and row["id"]}
    assert found == {
        "copied": ("drop", "exact_qa"),
        "still": ("drop", "static"),
        "short": ("quarantine", "probe"),
        "missing": ("quarantine", "media"),
        "outside": ("quarantine", "record"),
    }
    counts = (Manifest.load(out)[0].recipe or {})["counts"]
    assert counts["keep"] + counts["drop"] + counts["quarantine"] == counts["read"] == 27
    errors = pq.read_table(out / "errors.parquet").to_pylist()
    assert len(errors) == counts["quarantine"] and all(error["problem"] and error["detail"] for error in errors)


def test_exact_copies_are_stored_once_and_keep_their_other_questions(pruned: tuple[Recipe, Path]) -> None:
    _, out = pruned
    kept = decisions(out)["other question"]
    assert kept["decision"] == "keep" and kept["duplicate_of"] == "v0.mp4"
    reader = ShardReader(out)
    of_v0 = [reader.sample(i).id for i in range(len(reader)) if reader.key(i).startswith("v0-mp4")]
    assert of_v0 == ["s0-0", "s0-1", "s0-2", "other question"]
    twin = decisions(out)["copied"]["duplicate_of"]
    assert twin == decisions(out)["s0-0"]["sample_id"]


def test_shards_hold_what_was_kept_and_nothing_else(pruned: tuple[Recipe, Path], corpus: Path) -> None:
    _, out = pruned
    assert all(problem is None for _, problem in verify(out))
    assert len(list(out.glob("*.tar"))) > 1
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    plain = list(webdataset.WebDataset(urls, shardshuffle=False))
    videos = {item["__key__"].split("-mp4")[0]: item["mp4"] for item in plain}
    assert videos == {f"v{i}": (corpus / f"media/v{i}.mp4").read_bytes() for i in range(6)}
    listed = [sample["sample_id"] for item in plain for sample in json.loads(item["json"])]
    assert sorted(listed) == sorted(r["sample_id"] for r in decisions(out).values() if r["decision"] == "keep")


def test_asked_again_it_is_done_and_another_recipe_is_refused(pruned: tuple[Recipe, Path]) -> None:
    recipe, out = pruned
    before = digests(out)
    assert prune(recipe) == out and digests(out) == before
    with pytest.raises(UserError, match="another recipe"):
        prune(replace(recipe, seed=1))


def test_the_same_bytes_from_scratch_and_with_other_workers(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = pruned
    again = prune(replace(recipe, out=str(tmp_path / "again"), workers=1))
    assert digests(again) == digests(out)


def test_why(pruned: tuple[Recipe, Path]) -> None:
    _, out = pruned
    (report,) = why(out, "still")
    assert report["decision"]["rule"] == "static" and report["media"]["frames"] == 12
    assert [s["score"] < s["threshold"] for s in report["scores"] if s["rule"] == "static"] == [True]
    assert report["record"]["id"] == "still"
    assert why(out, report["decision"]["sample_id"][:12])[0]["decision"]["id"] == "still"
    assert {r["decision"]["id"] for r in why(out, "v2.mp4")} == {"s2-0", "s2-1", "s2-2", "line"}
    with pytest.raises(UserError, match="no sample"):
        why(out, "nobody")


def test_overrides_outrank_rules(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = pruned
    first = decisions(out)
    path = tmp_path / "overrides.txt"
    path.write_text(f"keep {first['still']['sample_id']}  # I want it\ndrop {first['s1-0']['sample_id']}\n")
    changed = decisions(
        prune(replace(recipe, out=str(tmp_path / "out"), overrides=str(path), work=recipe.out + ".work"))
    )
    assert (changed["still"]["decision"], changed["still"]["overridden"]) == ("keep", True)
    assert (changed["s1-0"]["decision"], changed["s1-0"]["rule"], changed["s1-0"]["overridden"]) == (
        "drop", "override", True,
    )  # fmt: skip
    path.write_text("keep nobody\n")
    with pytest.raises(UserError, match="no sample nobody"):
        prune(replace(recipe, out=str(tmp_path / "other"), overrides=str(path), work=recipe.out + ".work"))


@pytest.mark.parametrize("strategy", ["random", "stratified"])
def test_half_the_budget(pruned: tuple[Recipe, Path], tmp_path: Path, strategy: Any) -> None:
    recipe, _ = pruned
    select = SelectSettings(strategy=strategy, budget=0.5, clusters=2)
    out = prune(replace(recipe, out=str(tmp_path / "out"), select=select, work=recipe.out + ".work"))
    tokens = (Manifest.load(out)[0].recipe or {})["tokens"]
    assert 0.4 < tokens["kept"] / tokens["read"] <= 0.5
    assert {r["rule"] for r in decisions(out).values() if r["decision"] == "drop"} >= {"budget"}


def test_long_videos_by_reference_and_frame_indices(pruned: tuple[Recipe, Path], corpus: Path, tmp_path: Path) -> None:
    recipe, _ = pruned
    output = OutputSettings(frame_index=True, reference_seconds=1.0)
    out = prune(replace(recipe, out=str(tmp_path / "out"), output=output, work=recipe.out + ".work"))
    members = {name for shard in Manifest.load(out)[0].shards for entry in shard.entries for name in entry.members}
    assert members == {"json", "ref.json", "idx"}
    video = ShardReader(out, media_root=corpus / "media").video(0)
    assert len(torch.cat([frames for frames, _ in stream_frames(video, [0.0, 1.0])])) == 2
    with pytest.raises(UserError, match="media_root"):
        ShardReader(out).video(0)


def test_a_rule_that_is_off_is_not_there(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    from vxl_lightning.curation.recipe import Limit, Rule

    recipe, _ = pruned
    rules = DuplicateRules(
        exact_video=Rule(mode="off"), exact_qa=Rule(mode="off"), near_video=Limit(mode="score", threshold=0.7)
    )
    out = prune(replace(recipe, out=str(tmp_path / "out"), duplicates=rules, work=recipe.out + ".work"))
    found = decisions(out)
    assert found["copied"]["decision"] == "keep" and found["copied"]["duplicate_of"] is None
    names = {r["rule"]: r for r in pq.read_table(out / "rules.parquet").to_pylist()}
    assert "exact_qa" not in names and names["near_video"]["failed"] > 0  # the copy, and it stays


def test_a_dry_run_counts_and_leaves_nothing(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rows = {cost.stage: cost for cost in estimate(recipe())}
    assert rows["annotations"].items.startswith("27 records") and "3 malformed" in rows["annotations"].work
    assert {"probe", "frames", "write"} <= set(rows) and all(
        rows[name].seconds is not None and rows[name].seconds > 0 for name in ("probe", "frames", "write")
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": ""}, "out is empty"),
        ({"media_root": ""}, "media_root is empty"),
        ({"media_root": "nowhere"}, "not a folder"),
        ({"datasets": []}, "datasets is empty"),
        ({"overrides": "nowhere.txt"}, "no such file"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    recipe: Callable[..., Recipe], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prune(recipe(**changes))


def test_records_that_are_all_malformed_are_an_error_and_no_traceback(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text('[{"data": 1}, 3]')
    with pytest.raises(UserError, match="record: 2"):
        prune(recipe(datasets=[Source(json_path="bad.json")], annotation_root=str(tmp_path)))


def test_shards_of_something_else_are_not_touched(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/shard-000000.tar").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds shards that this recipe did not write"):
        prune(recipe())
    assert (tmp_path / "out/shard-000000.tar").read_bytes() == b"mine"


def test_another_list_of_overrides_is_another_recipe(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = pruned
    path = tmp_path / "overrides.txt"
    path.write_text(f"drop {decisions(out)['s1-0']['sample_id']}\n")
    mine = replace(recipe, out=str(tmp_path / "out"), overrides=str(path), work=recipe.out + ".work")
    prune(mine)
    path.write_text(f"drop {decisions(out)['s1-1']['sample_id']}\n")
    with pytest.raises(UserError, match="another recipe"):
        prune(mine)


def test_nothing_left_is_an_error_that_says_what_took_it(recipe: Callable[..., Recipe]) -> None:
    from vxl_lightning.curation.recipe import Limit, RedundancyRules

    with pytest.raises(UserError, match="static: "):
        prune(recipe(redundancy=RedundancyRules(static=Limit(threshold=2.0))))


RUN = """
import json, sys
from vxl_lightning.config import load
from vxl_lightning.curation.prune import prune
from vxl_lightning.curation.recipe import Recipe
if __name__ == "__main__":
    prune(load(Recipe, [sys.argv[1]]))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = pruned
    script, settings = tmp_path / "run.py", tmp_path / "recipe.yaml"
    script.write_text(RUN)
    target = tmp_path / "killed"
    settings.write_text(json.dumps(to_plain(replace(recipe, out=str(target), workers=1))))
    command = [sys.executable, str(script), str(settings)]
    for patience in (2.0, 3.5, 5.0, 6.5, 8.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(patience)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (target / "dataset.json").exists():
            break
        with pytest.raises(UserError, match="not a dataset"):
            ShardReader(target)
    subprocess.run(command, check=True)
    assert digests(target) == digests(out)


@pytest.mark.slow
def test_two_ray_nodes_give_the_same_bytes(pruned: tuple[Recipe, Path], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    recipe, out = pruned
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 * 2**20})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        other = prune(replace(recipe, out=str(tmp_path / "ray"), engine="ray"))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert digests(other) == digests(out)
