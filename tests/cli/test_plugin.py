"""``vxl plugin``: what it prints and returns, and a stranger's distribution from scaffold to check."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.ablation import tiny

from vxl_lightning import registry
from vxl_lightning.cli.main import main
from vxl_lightning.testing.scaffolding import KINDS


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plugin", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("vxl plugin: ") and message.count("\n") == 1
    return message


def test_list_names_every_plugin_with_its_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "list", "--kind", "compressor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pool = next(line for line in lines if "vxl_lightning.compressors.pool:Pool" in line)
    assert pool.split()[:3] == ["compressor", "pool", "vxl-lightning"]
    assert not any("maskers" in line for line in lines)


def test_list_says_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "vxl_sunk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vxl-sunk\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vxl_lightning.maskers]\nsunk = vxl_sunk:Sunk\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.clear()
    try:
        assert main(["plugin", "list", "--kind", "masker"]) == 0
        out = capsys.readouterr().out
        assert "masker sunk cannot be used: vxl_sunk:Sunk does not import" in out and "TubeMasker" in out
        assert main(["plugin", "check", "--all", "--kind", "masker"]) == 1
    finally:
        registry.clear()


def test_show_prints_origin_traits_and_parameters_with_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "show", "pool"]) == 0
    out = capsys.readouterr().out
    assert "causal=True" in out and "origin" in out
    row = next(line for line in out.splitlines() if line.startswith("frames_per_group"))
    assert "int" in row and "4" in row and "Frames that are pooled together." in row


def test_caches_are_a_kind_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "list", "--kind", "cache"]) == 0
    names = {line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert {"chunked", "full", "quantized", "vst"} <= names
    assert main(["plugin", "show", "chunked"]) == 0
    out = capsys.readouterr().out
    assert "chunked (cache)" in out and "exact_at_one=False" in out and "Blocks before its own" in out


def test_show_says_where_the_files_of_a_benchmark_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "show", "mlvu_dev"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("files in data_root/mlvu_dev:")
    assert lines[at + 1].strip().startswith("json/1_plotQA.json ... json/7_topic_reasoning.json")


def test_show_covers_every_kind_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "show", "uniform"]) == 0
    out = capsys.readouterr().out
    assert "uniform (compressor)" in out and "uniform (selector)" in out


def test_check_prints_every_law_and_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", "uniform", "--kind", "selector"]) == 0
    out = capsys.readouterr().out
    assert "0 laws broken" in out
    assert {"contract", "exact_budget", "side_inputs_required"} <= {
        line.split()[0] for line in out.splitlines() if line
    }


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'uniform'" in failure(capsys, "show", "unifrom")
    assert "no selector 'pool'" in failure(capsys, "check", "pool", "--kind", "selector")
    assert "takes the NAME of one plugin, or --all" in failure(capsys, "check")
    assert "takes the NAME of one plugin, or --all" in failure(capsys, "check", "pool", "--all")
    assert "kinds: compressor, masker, selector, cache, encoder" in failure(capsys, "list", "--kind", "compresors")
    assert "lower-case letters" in failure(capsys, "new", "My-Method", "--kind", "masker", "--dir", str(tmp_path))
    for kind in ("cache", "encoder"):
        message = failure(capsys, "new", "mine", "--kind", kind)
        assert f"no scaffold for kind '{kind}'" in message and "compressor, masker, selector" in message
    assert "a word of Python's own" in failure(capsys, "new", "none", "--kind", "masker", "--dir", str(tmp_path))
    (tmp_path / "vxl-mine").mkdir()
    assert "exists already" in failure(capsys, "new", "mine", "--kind", "masker", "--dir", str(tmp_path))


def test_new_warns_of_a_name_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "new", "pool", "--kind", "compressor", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "has a compressor of that name too" in out and "vxl-pool:pool" in out


@pytest.mark.slow
def test_strangers_plugin_from_scaffold_to_a_row_of_an_ablation(tmp_path: Path) -> None:
    for kind in KINDS:
        assert main(["plugin", "new", f"strange_{kind}", "--kind", kind, "--dir", str(tmp_path)]) == 0
    made = sorted(str(p) for p in tmp_path.glob("vxl-strange-*"))
    assert len(made) == len(KINDS)
    site = tmp_path / "site"

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
           "--no-index", "--target", str(site), *made)  # fmt: skip
    assert " failed" not in python("-m", "pytest", "-q", "-p", "no:cacheprovider", *made)
    checked = python("-m", "vxl_lightning.cli.main", "plugin", "check", "strange_compressor")
    assert "vxl-strange-compressor 0.1.0: 0 laws broken" in checked

    tiny.language_model(tmp_path / "lm")
    tiny.shards(tmp_path / "train", 8, seed=1)
    tiny.shards(tmp_path / "test", 4, seed=2)
    conf = tmp_path / "ablation.yaml"
    stage = {"batch_size": 4, "optim": {"steps": 1}}
    stages = {"align": stage, "answer": stage}
    conf.write_text(
        json.dumps(
            {
                "out": "run",
                "language_model": "lm",
                "data": {"train": "train", "test": "test"},
                "variants": {"mine": "vxl-strange-compressor:strange_compressor"},
                "adapter": {"rank": 2},
                "warmup": stages,
                "tune": stages,
                "threads": 1,
            }
        )
    )
    python("-m", "vxl_lightning.cli.main", "ablate", "ablation.yaml")
    rows = {r["variant"]: r for r in pq.read_table(tmp_path / "run/results.parquet").to_pylist() if r["task"] == "all"}
    assert rows["mine"]["lm_tokens"] == rows["pool"]["lm_tokens"] == 8
    assert '"distribution": "vxl-strange-compressor"' in (tmp_path / "run/manifest.json").read_text()
