"""`vxl train` end to end on tiny features: what a run leaves, resuming exactly, and refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vxl_lightning import config, load_pretrained
from vxl_lightning.cli.main import main
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.data.manifest import Encoding
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.shards import ShardWriter
from vxl_lightning.errors import UserError
from vxl_lightning.modules.train import TrainConfig, train

ENCODING = Encoding({"name": "toy"}, "0123456789abcdef", fps=2.0, max_frames=8, grid=(4, 4), dim=16)
STEPS = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "train"
    g = torch.Generator().manual_seed(0)
    with ShardWriter(root, "features", ENCODING) as writer:
        for i in range(7):
            turns = (Turn("human", "<image>\nWhich?"), Turn("gpt", "this"))
            features = torch.randn(8, 4, 4, 16, generator=g)
            writer.add_features(Sample(f"c{i}", f"c{i}.mp4", turns, {}), features, torch.arange(8) / 2.0)
    return root


@pytest.fixture
def conf(tmp_path: Path, shards: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"module: pretraining\nout: {tmp_path / 'run'}\n"
        f"data: {{train: {shards}, val: {shards}, batch_size: 2}}\n"
        "trainer: {accelerator: cpu, checkpoint_every: 2, log_every: 1}\n"
        "pretraining:\n  compressor: {name: dts, reduction: saliency, depth: 1}\n"
        f"  decoder: {{width: 16, heads: 2}}\n  optim: {{steps: {STEPS}}}\n"
    )
    return file


def run(conf: Path, *overrides: str, resume: bool = False) -> dict[str, torch.Tensor]:
    settings = config.load(TrainConfig, [conf], overrides)
    return load_file(train(settings, resume) / "model.safetensors")


def test_a_run_leaves_manifest_metrics_checkpoint_and_a_model_that_loads(conf: Path, tmp_path: Path) -> None:
    assert main(["train", str(conf)]) == 0
    out = tmp_path / "run"
    about = json.loads((out / "manifest.json").read_text())
    assert about["config"]["pretraining"]["dim"] == 16, "the channels of the data are filled in"
    assert {p["name"] for p in about["plugins"]} == {"dts", "semantic"}
    assert set(about["data"]) == {"train", "val"}
    assert "val/gain" in (out / "metrics" / "version_0" / "metrics.csv").read_text()
    loaded = load_pretrained(out / "model")
    assert isinstance(loaded.model, Compressor)
    assert loaded.encoder == {"name": "toy"}


def test_the_same_configuration_twice_gives_the_same_weights(conf: Path, tmp_path: Path) -> None:
    first = run(conf, f"out={tmp_path / 'a'}")
    second = run(conf, f"out={tmp_path / 'b'}")
    other = run(conf, f"out={tmp_path / 'c'}", "seed=1")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_run_stopped_midway_resumes_to_the_same_weights(conf: Path, tmp_path: Path) -> None:
    whole = run(conf, f"out={tmp_path / 'whole'}")
    run(conf, f"out={tmp_path / 'part'}")
    # The state after the last checkpoint is lost: go back to the one before and train on from there.
    for file in (tmp_path / "part" / "checkpoints").glob("*"):
        file.unlink()
    with pytest.raises(UserError, match="does not exist"):
        run(conf, f"out={tmp_path / 'part'}", resume=True)
    # A checkpoint of step 4 comes from a run that is cut there; its schedule is that of the whole run.
    killed = config.load(TrainConfig, [conf], [f"out={tmp_path / 'killed'}", "trainer.checkpoint_every=4"])
    train(killed)
    resumed = load_file(train(killed, resume=True) / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_without_checkpoint_starts_anew_and_another_run_is_not_resumed(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")  # what a run leaves that ended before its first checkpoint
    run(conf)
    with pytest.raises(UserError, match=r"optim\.lr=0\.5, but the run .* began with 0\.002"):
        run(conf, "pretraining.optim.lr=0.5", resume=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        run(conf, resume=True)


def test_refusals_are_one_line(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(conf)
    cases = {
        "already holds a run": [str(conf)],
        "nothing to train": [str(conf), f"out={tmp_path / 'x'}", "pretraining.compressor=pool"],
        "not a dataset": [str(conf), f"out={tmp_path / 'x'}", f"data.train={tmp_path / 'none'}"],
        "trainer.devices=0 must be at least 1": [str(conf), "trainer.devices=0"],
        "lr=nan must be a finite number": [str(conf), f"out={tmp_path / 'x'}", "pretraining.optim.lr=nan"],
        "Not a directory": [str(conf), f"out={conf}/x"],
        "did you mean 'batch_size'": [str(conf), "data.batchsize=3"],
        "module='tunning'": [str(conf), "module=tunning"],
        "nearest that do": [str(conf), f"out={tmp_path / 'y'}", "pretraining.compressor.retention=0.17"],
    }
    for expected, arguments in cases.items():
        assert main(["train", *arguments]) == 2, expected
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, error


def test_print_config_and_dry_run_train_nothing(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(conf), "--print-config"]) == 0
    printed = capsys.readouterr().out
    again = tmp_path / "printed.yaml"
    again.write_text(printed)
    assert config.to_plain(config.load(TrainConfig, [again])) == config.to_plain(config.load(TrainConfig, [conf]))
    assert main(["train", str(conf), "--dry-run", f"pretraining.optim.steps={STEPS}"]) == 0, (
        "overrides may follow options"
    )
    assert f"{STEPS} steps of 2 clips" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
