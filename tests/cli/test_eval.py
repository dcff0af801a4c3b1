"""vxl eval from the command line, with a tiny model of ours on a benchmark's miniature."""

import json
from importlib import metadata

import pyarrow.parquet as pq
import pytest
import torch
from tests.ablation import tiny

from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.encoders.efficientnet_lite0 import WEIGHTS_PACKAGE
from vxl_lightning.evaluation.benchmarks.mv_bench import MVBench
from vxl_lightning.evaluation.benchmarks.vnbench import VNBench
from vxl_lightning.models.build import AdapterConfig, VideoLMConfig, build_video_lm
from vxl_lightning.models.pretrained import save_pretrained

ENCODER = {"name": "efficientnet_lite0"}
REPEATS = ("results.parquet", "groups.parquet", "questions.parquet", "table.md")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    try:
        metadata.distribution(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip("needs the demo's packages: make demo-packages")
    from vxl_lightning import registry

    root = tmp_path_factory.mktemp("eval")
    dim = registry.build("encoder", ENCODER).dim
    tiny.language_model(root / "lm")
    config = VideoLMConfig(
        dim=dim, language_model=str(root / "lm"), compressor={"name": "none"}, adapter=AdapterConfig(rank=0)
    )
    save_pretrained(root / "model", build_video_lm(config), config, encoder=ENCODER)
    for cls in (VNBench, MVBench):
        folder = root / "data" / cls.folder_name
        folder.mkdir(parents=True)
        cls.miniature(folder)
    benchmark = VNBench(VNBench.Config(), root / "data" / VNBench.folder_name)
    for i, problem in enumerate(benchmark.missing(benchmark.read().questions)):
        frames = torch.randint(0, 256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(i)).to(torch.uint8)
        (benchmark.folder / problem.where).parent.mkdir(parents=True, exist_ok=True)
        write_video(benchmark.folder / problem.where, frames, 2.0)
    (root / "eval.yaml").write_text("benchmarks: [vnbench]\nanswering: likelihood\nmax_frames: 2\n")
    return root


def evaluate(world, out, *overrides):
    given = [f"model={world / 'model'}", f"out={out}", *overrides]
    return main(["eval", str(world / "eval.yaml"), *given, "--data-root", str(world / "data")])


def test_every_row_is_in_the_table_and_the_second_run_asks_nothing_and_gives_the_same(world, tmp_path, capsys):
    rows = "variants={half: {compressor: {name: uniform, retention: 0.5}}, chosen: {selector: similarity, select: 1}}"
    assert evaluate(world, tmp_path / "out", rows) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("reference", "half", "chosen", "inside the model"))
    before = {name: (tmp_path / "out" / name).read_bytes() for name in REPEATS}
    assert evaluate(world, tmp_path / "out", rows) == 0
    assert "\n0 replies asked" in capsys.readouterr().out
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in REPEATS}
    tokens = {r["row"]: r["visual_tokens"] for r in pq.read_table(tmp_path / "out" / "questions.parquet").to_pylist()}
    assert tokens["half"] == tokens["reference"] / 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["plugins"][0]["name"] == "vnbench"


def test_what_is_missing_is_listed_before_anything_runs(world, tmp_path, capsys):
    assert evaluate(world, tmp_path / "out", "benchmarks=[mv_bench]") == 2
    caught = capsys.readouterr()
    assert "no such file" in caught.out and "allow_missing=true" in caught.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_and_stops(world, tmp_path, capsys):
    arguments = ["eval", str(world / "eval.yaml"), f"model={world / 'model'}", "--data-root", str(world / "data")]
    assert main([*arguments, f"out={tmp_path / 'out'}", "--dry-run"]) == 0
    assert "vnbench" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("benchmarks=[]", "benchmarks is empty"),
        ("benchmarks=[vnbensch]", "did you mean 'vnbench'"),
        ("benchmarks=[vnbench, vnbench]", "twice"),
        ("benchmarks=[lvbench]", "no such folder"),
        ("variants={a: {compressor: dts}}", "has to be trained"),
        ("variants={a: {selector: query_aware, select: 1}}", "has to be trained"),
        ("variants={a: {cache: vst}}", "has to be trained"),
        ("model=hf:nowhere", "no config.json"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(world, tmp_path, capsys, override, says):
    assert evaluate(world, tmp_path / "out", override) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
