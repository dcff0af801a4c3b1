"""From a configuration to what is asked and what the tables say of it."""

import json
from collections import Counter

import pytest
import torch
from tests.evaluation.toy import Sayer

from vxl_lightning.data.decoding import write_video
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.benchmarks.video_mme import VideoMME
from vxl_lightning.evaluation.benchmarks.vnbench import TRIES, VNBench
from vxl_lightning.evaluation.config import EvaluationConfig
from vxl_lightning.evaluation.runner import choose, run


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / VNBench.folder_name
    folder.mkdir(parents=True)
    VNBench.miniature(folder)
    for problem in VNBench(VNBench.Config(), folder).missing(VNBench(VNBench.Config(), folder).read().questions):
        (folder / problem.where).parent.mkdir(exist_ok=True)
        write_video(folder / problem.where, torch.zeros(4, 3, 32, 32, dtype=torch.uint8), 2.0)
    return tmp_path / "data"


def config(data, **settings):
    given = {"model": "m", "out": str(data.parent / "out"), "benchmarks": ["vnbench"], "data_root": str(data)}
    return EvaluationConfig(**given | settings)


@pytest.mark.parametrize(("limit", "asked"), [(0, 12), (1, 4), (4, 4), (5, 8), (100, 12)])
def test_a_limit_cuts_no_bundle(data, limit, asked):
    """A needle of which two tries were asked would count as wrong, whatever was replied."""
    (chosen,) = choose(config(data, limit=limit))
    assert len(chosen.questions) == asked
    assert set(Counter(q.bundle for q in chosen.questions).values()) == {TRIES}


def test_the_table_says_what_was_not_asked(data):
    next((data / VNBench.folder_name).rglob("*.mp4")).unlink()
    out, _ = run(config(data), rows={"reference": Sayer("A")})
    assert "vnbench: 4 questions could not be asked and are left out" in (out / "table.md").read_text()
    out, _ = run(config(data, limit=1, out=str(data / "o")), rows={"reference": Sayer("A")})
    assert "Only the first 1 questions of each benchmark" in (out / "table.md").read_text()


def test_the_manifest_tells_changed_annotations(data):
    """Ids of many benchmarks are places in a file: they stay the same when an answer is mended."""
    told = []
    annotations = data / VNBench.folder_name / "VNBench-main-4try.json"
    for out in "ab":
        folder, _ = run(config(data, out=str(data / out)), rows={"reference": Sayer("A")})
        told.append(json.loads((folder / "manifest.json").read_text())["data"]["vnbench"])
        annotations.write_text(annotations.read_text().replace("Which order?", "Which order now?"))
    assert told[0] != told[1]


def test_the_manifest_names_the_plugins_of_benchmarks_and_rows(data):
    variants = {"a": "uniform", "b": {"compressor": {"name": "uniform", "retention": 0.5}, "selector": "none"}}
    out, _ = run(config(data, variants=variants), rows={"reference": Sayer("A")})
    plugins = json.loads((out / "manifest.json").read_text())["plugins"]
    assert [(p["kind"], p["name"]) for p in plugins] == [("benchmark", "vnbench"), ("compressor", "uniform")]


def test_subtitles_that_nobody_would_be_told_are_refused(data):
    """Likelihood asks the question alone; its figure would say "w subs" all the same."""
    folder = data / VideoMME.folder_name
    folder.mkdir()
    VideoMME.miniature(folder)
    for name in ("0", "1", "2"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"invented_{name}.mp4").touch()
    with_them = [{"name": "video_mme", "subtitles": True}]
    with pytest.raises(UserError, match="video_mme subtitles=True: answering=likelihood asks questions alone"):
        choose(config(data, benchmarks=with_them, answering="likelihood"))
    assert choose(config(data, benchmarks=with_them)) and choose(
        config(data, benchmarks=["video_mme"], answering="likelihood")
    )
