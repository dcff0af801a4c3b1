"""Caching features: what is written is what the encoder says of the decoded frames, twice the same."""

from pathlib import Path

import pytest
import torch
from tests.data.conftest import make_sample
from torch import Tensor

from vxl_lightning import registry
from vxl_lightning.data.decoding import write_video
from vxl_lightning.data.encode import EncodeConfig, encode_shards
from vxl_lightning.data.shards import ShardReader, ShardWriter
from vxl_lightning.encoders.base import EncodedFrames, Encoder
from vxl_lightning.errors import UserError


class Corners(Encoder):
    """The red of each corner of a frame."""

    def __init__(self) -> None:
        super().__init__(Encoder.Config(batch_frames=3))
        self.dim, self.grid, self.frame_size = 1, (2, 2), (32, 32)

    def encode(self, frames: Tensor) -> EncodedFrames:
        assert len(frames) <= 3
        cells = frames[:, :1, 4::24, 4::24].permute(0, 2, 3, 1).float()
        return EncodedFrames(cells, cells[..., 0] / 255)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "videos", "video") as writer:
        for i, count in enumerate((7, 2)):
            frames = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
            frames[:, 0] = (torch.arange(count) * 30 + i).to(torch.uint8)[:, None, None]
            write_video(tmp_path / "v.mp4", frames, 2.0)
            writer.add_video(make_sample(i), tmp_path / "v.mp4")
    return tmp_path / "videos"


def test_encode(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "build", lambda kind, spec: Corners())
    seen: list[tuple[int, int]] = []
    config = EncodeConfig(encoder={"name": "corners"}, fps=2.0, max_frames=16)
    manifest = encode_shards(videos, tmp_path / "a", config, progress=lambda *x: seen.append(x))
    encode_shards(videos, tmp_path / "b", config)
    assert seen == [(1, 2), (2, 2)]
    reader = ShardReader(tmp_path / "a")
    features, times, importance = reader.features(0)
    assert features.shape == (7, 2, 2, 1) and times.tolist() == [i / 2 for i in range(7)]
    assert (features.float().mean((1, 2, 3)) - torch.arange(7) * 30).abs().max() < 6
    assert importance is not None and importance.shape == (7, 2, 2)
    assert reader.sample(1) == make_sample(1) and reader.features(1)[0].shape == (2, 2, 2, 1)
    assert manifest.encoding is not None
    assert manifest.encoding.encoder == {"name": "corners", "batch_frames": 3}
    reader.require(Corners().fingerprint())
    for name in ("dataset.json", "shard-000000.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(UserError, match="holds features, not videos"):
        encode_shards(tmp_path / "a", tmp_path / "c", config)


def test_a_damaged_video_stops_it_and_leaves_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "build", lambda kind, spec: Corners())
    with ShardWriter(tmp_path / "videos", "video") as writer:
        writer.add_video(make_sample(0), b"nothing")
    with pytest.raises(UserError, match=r"clip-000: cannot be decoded"):
        encode_shards(tmp_path / "videos", tmp_path / "out", EncodeConfig(encoder={"name": "corners"}))
    assert list((tmp_path / "out").iterdir()) == []
