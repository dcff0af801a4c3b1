"""``vxl data``: users' mistakes are one line on stderr and exit code 2."""

from importlib import metadata
from pathlib import Path

import pytest
import torch

from vxl_lightning.cli.main import main
from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.schema import Sample, Turn
from vxl_lightning.data.shards import ShardWriter
from vxl_lightning.encoders.efficientnet_lite0 import WEIGHTS_PACKAGE


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_video(tmp_path / "v.mp4", torch.full((4, 3, 128, 128), 90, dtype=torch.uint8), 2.0)
    with ShardWriter(tmp_path / "videos", "video") as writer:
        writer.add_video(Sample("a", "a.mp4", (Turn("human", "What?"), Turn("gpt", "Grey."))), tmp_path / "v.mp4")
    return tmp_path / "videos"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err


def test_verify(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(videos)]) == 0
    assert "1 shard(s)" in capsys.readouterr().out
    shard = videos / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[520] ^= 255
    shard.write_bytes(bytes(data))
    refused(["data", "verify", str(videos)], capsys, "1 of 1 files", "shard-000000.tar", "SHA-256")
    refused(["data", "verify", str(videos.parent)], capsys, "not a dataset")


def test_encode(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        metadata.distribution(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip("needs the demo's packages: make demo-packages")
    command = ["data", "encode", str(videos), str(tmp_path / "out"), "--encoder", "efficientnet_lite0"]
    assert main(command) == 0
    assert "features of 1 videos" in capsys.readouterr().out
    refused(command, capsys, "already holds a dataset")
    other = ["data", "encode", str(videos), str(tmp_path / "other")]
    refused([*other, "--encoder", "efficientnet"], capsys, "efficientnet_lite0")
    refused([*other, "--encoder", "efficientnet_lite0", "fsp=1"], capsys, "fps")
    assert main(["data", "verify", str(tmp_path / "out")]) == 0
    assert main(["data", "encode", str(videos), str(tmp_path / "two"), "fps=1", "--encoder", "efficientnet_lite0"]) == 0


def test_synth_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "small.yaml"
    conf.write_text("train: 3\n")
    assert main(["data", "synth", "needles", str(tmp_path), str(conf), "seed=4", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "train: 3" in out and "seed: 4" in out
    refused(["data", "synth", "clips", str(tmp_path), "trian=3"], capsys, "trian", "train")
    refused(["data", "synth", "needles", str(tmp_path), "size=31"], capsys, "size=31", "even")
    refused(["data", "synth", "needles", str(tmp_path), "train=-1"], capsys, "train=-1 must be at least 0")
    refused(["data", "synth", "needles", str(tmp_path), "group_frames=0"], capsys, "group_frames=0")


def test_synth_dry_run_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vxl_lightning.data.synth.build.check_footage", lambda: 0)
    assert main(["data", "synth", "needles", str(tmp_path / "n"), "train=5", "val=0", "test=2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 2 and "train: 5 clips of 32 frames" in out and "test: 2 clips" in out
    assert not (tmp_path / "n").exists()
    (tmp_path / "n/test").mkdir(parents=True)
    (tmp_path / "n/test/dataset.json").write_text("{}")
    refused(
        ["data", "synth", "needles", str(tmp_path / "n"), "train=5", "--dry-run"], capsys, "already holds a dataset"
    )
