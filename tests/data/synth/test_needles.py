"""Needle and pretraining shards: what is annotated is what is in the pixels; the same seed, the same bytes."""

from pathlib import Path

import pytest
import torch

from vxl_lightning.data.decoding import stream_frames
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.synth.build import SynthConfig, build
from vxl_lightning.data.synth.needles import NeedleConfig, make_needles
from vxl_lightning.data.synth.pretraining import ClipConfig, make_pretraining
from vxl_lightning.data.synth.shapes import COLOURS
from vxl_lightning.errors import UserError

SMALL = {"num_frames": 16, "size": 64}


@pytest.mark.usefixtures("footage")
def test_needles_are_in_the_pixels(tmp_path: Path) -> None:
    made = make_needles(NeedleConfig(train=9, val=0, test=9, **SMALL), tmp_path)
    assert set(made) == {"train", "test"} and made["test"]["clips"] == 9 and made["train"]["what"] == 14
    reader = ShardReader(tmp_path / "test")
    assert len(reader) == 9
    found = 0
    for index in range(len(reader)):
        sample = reader.sample(index)
        assert sample.meta["footage"].startswith("test_film")
        assert len(sample.conversations) == 2 * len(sample.meta["task"]) == 2 * len(sample.meta["choices"])
        assert sample.conversations[0].text.startswith("<image>\n")
        times = [i / 4 for i in range(16)]
        frames = torch.cat([f for f, _ in stream_frames(reader.video(index), times)]).float()
        colourful = (frames.amax(1) - frames.amin(1)).flatten(1).amax(1) > 60
        needles = [n for n in sample.meta["needles"] if n["colour"] != "white"]
        assert set(colourful.nonzero()[:, 0].tolist()) == {n["frame"] for n in needles}
        for n in needles:
            reach = n["radius"] * 64 / 2
            y, x = n["y"] * 64, n["x"] * 64
            patch = frames[n["frame"], :, int(y - reach) : int(y + reach) + 1, int(x - reach) : int(x + reach) + 1]
            want = torch.tensor(COLOURS[n["colour"]])[:, None, None]
            assert float((patch - want).abs().sum(0).min()) < 120  # H.264 halves the resolution of colour
            found += 1
    assert found > 5


@pytest.mark.usefixtures("footage")
def test_workers_do_not_change_the_bytes(tmp_path: Path) -> None:
    for workers in (1, 3):
        make_needles(NeedleConfig(train=5, val=0, test=0, workers=workers, **SMALL), tmp_path / f"n{workers}")
        make_pretraining(ClipConfig(train=5, val=0, test=0, workers=workers, **SMALL), tmp_path / f"c{workers}")
    make_needles(NeedleConfig(train=5, val=0, test=0, seed=1, **SMALL), tmp_path / "other")
    hashes = {p.parent.parent.name: p.read_bytes() for p in tmp_path.glob("*/train/dataset.json")}
    assert hashes["n1"] == hashes["n3"] != hashes["other"]
    assert hashes["c1"] == hashes["c3"]


@pytest.mark.usefixtures("footage")
def test_build_leaves_videos_projection_and_features(tmp_path: Path) -> None:
    config = SynthConfig(
        clips=ClipConfig(train=3, val=0, test=2, num_frames=8, size=64),
        needles=NeedleConfig(train=3, val=0, test=2, **SMALL),
        encoder={"name": "efficientnet_lite0", "image_size": 64, "pretrained": False},
        components=4,
    )
    stages: dict[str, tuple[int, int]] = {}
    made = build(config, tmp_path, lambda stage, done, total: stages.__setitem__(stage, (done, total)))
    assert made["clips"] == {"train": {"clips": 3}, "test": {"clips": 2}}
    for kind, frames in (("clips", 8), ("needles", 16)):
        reader = ShardReader(tmp_path / "features" / kind / "test")
        features, times, _ = reader.features(0)
        assert features.shape == (frames, 2, 2, 4) and len(times) == frames
        assert reader.sample(0) == ShardReader(tmp_path / "videos" / kind / "test").sample(0)
    assert all(done == total for done, total in stages.values()) and len(stages) == 6
    with pytest.raises(UserError, match="already holds a dataset"):
        build(config, tmp_path)


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_frames=12"):
        NeedleConfig(num_frames=12)
    with pytest.raises(ValueError, match="size=63"):
        NeedleConfig(size=63)
    with pytest.raises(ValueError, match="size=63"):
        ClipConfig(size=63)
    with pytest.raises(UserError, match="set encoder=efficientnet_lite0 or components=0"):
        build(SynthConfig(components=8), tmp_path)
