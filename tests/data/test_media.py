"""Images and folders of frames are read wherever a video is, within the same limits."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.data.conftest import make_sample

from vxl_lightning.data.decoding import DecodeError, Limits, probe, stream_frames, write_video
from vxl_lightning.data.encode import EncodeConfig, encode_shards
from vxl_lightning.data.loader import ClipDataset
from vxl_lightning.data.media import Stills, frame_files, kind_of
from vxl_lightning.data.packing import pack_videos
from vxl_lightning.data.schema import Sample, write_annotations
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.verify import verify


def picture(path: Path, red: int, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 80, 40)).save(path)
    return path


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    for number in range(1, 13):
        picture(root / "frames" / f"frame{number}.png", number * 20)
    picture(root / "a.webp", 200)
    write_video(root / "v.mp4", torch.full((4, 3, 32, 32), 90, dtype=torch.uint8), 2.0)
    return root


def frames(source: object, times: list[float], **options: object) -> tuple[torch.Tensor, list[float]]:
    parts = list(stream_frames(source, times, **options))  # type: ignore[arg-type]
    return torch.cat([f for f, _ in parts]), torch.cat([t for _, t in parts]).tolist()


def test_kinds_go_by_name(media: Path) -> None:
    assert kind_of(media / "frames") == "frames"
    assert [kind_of(n) for n in ("a.MP4", "b.tar.webm", "c.JPeG", "d.png", "e.txt", "f", ".mp4")] == [
        "video", "video", "image", "image", None, None, None,
    ]  # fmt: skip
    assert [p.name for p in frame_files(media / "frames")] == [f"frame{i}.png" for i in range(1, 13)]


def test_a_folder_is_a_frame_a_second(media: Path) -> None:
    info = probe(media / "frames")
    assert (info.duration, info.fps, info.num_frames, info.width, info.height) == (12.0, 1.0, 12, 32, 24)
    got, at = frames(media / "frames", [0.0, 0.9, 1.0, 11.5, 11.5], chunk=2)
    assert at == [0.0, 0.0, 1.0, 11.0, 11.0] and got.shape == (5, 3, 24, 32) and got.dtype == torch.uint8
    assert got[:, 0, 0, 0].tolist() == [20, 20, 40, 240, 240]
    small, _ = frames(media / "frames", [3.0], size=(8, 16))
    assert small.shape == (1, 3, 8, 16) and small[0, 0].unique().tolist() == [80]


def test_an_image_lasts_a_second(media: Path) -> None:
    assert probe(media / "a.webp").duration == 1.0
    content = Stills(((media / "a.webp").read_bytes(),))
    for source in (media / "a.webp", str(media / "a.webp"), content):
        got, at = frames(source, [0.0, 0.5])
        assert at == [0.0, 0.0] and abs(int(got[0, 0, 0, 0]) - 200) < 6


def test_frames_of_several_sizes_and_modes(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "0.png", 10, (32, 24))
    picture(tmp_path / "f" / "1.png", 50, (64, 48))
    Image.new("L", (32, 24), 77).save(tmp_path / "f" / "2.bmp")
    Image.new("RGBA", (32, 24), (9, 9, 9, 100)).save(tmp_path / "f" / "3.png")
    got, _ = frames(tmp_path / "f", [0.0, 1.0, 2.0, 3.0])
    assert got.shape == (4, 3, 24, 32) and got[:, 0, 0, 0].tolist() == [10, 50, 77, 9]


def test_bad_images(media: Path, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:900])
    (tmp_path / "text.png").write_text("hello")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF")
    (tmp_path / "gif.png").write_bytes(buffer.getvalue())  # no format that its suffix may hold
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match=r"cut.jpg: cannot be decoded"):
        frames(tmp_path / "cut.jpg", [0.0])
    for name in ("text.png", "gif.png"):
        with pytest.raises(DecodeError, match=rf"{name}: cannot be decoded"):
            probe(tmp_path / name)
    with pytest.raises(DecodeError, match=r"empty: damaged: .*no frame"):
        probe(tmp_path / "empty")
    picture(media / "frames" / "frame2.png", 0, (640, 480))
    with pytest.raises(DecodeError, match=r"640x480; allowed are 1000 pixels"):
        frames(media / "frames", [0.0, 1.0], limits=Limits(max_pixels=1000))
    with pytest.raises(DecodeError, match="max_pixels"):
        probe(media / "frames", limits=Limits(max_pixels=100))
    with pytest.raises(DecodeError, match="max_duration"):
        probe(media / "frames", limits=Limits(max_duration=10))


def test_packed_encoded_loaded_and_verified(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.data.test_encode import Corners

    from vxl_lightning import registry

    turns = make_sample(0).conversations
    shown = ["v.mp4", "frames", "a.webp", "v.mp4", "frames"]
    samples = [Sample(str(i), path, turns) for i, path in enumerate(shown)]
    assert samples[2].to_record()["image"] == "a.webp" and "video" not in samples[2].to_record()
    write_annotations(tmp_path / "a.jsonl", samples)
    manifest = pack_videos(tmp_path / "a.jsonl", media, tmp_path / "set")
    assert (manifest.num_samples, manifest.num_media) == (5, 3)
    reader = ShardReader(tmp_path / "set")
    assert [reader.sample(i) for i in range(5)] == [samples[i] for i in (0, 3, 1, 4, 2)]
    assert [reader.key(i) for i in range(5)] == ["0", "0", "1", "1", "2"]
    assert reader.video(0) == (media / "v.mp4").read_bytes()
    clip = ClipDataset(reader, fps=1.0, max_frames=64)[3]
    assert clip.video.shape == (12, 3, 24, 32) and clip.times.tolist() == [float(i) for i in range(12)]
    assert [p for _, p in verify(tmp_path / "set")] == [None]

    monkeypatch.setattr(registry, "build", lambda kind, spec: Corners())
    told: list[tuple[int, int]] = []
    config = EncodeConfig(encoder={"name": "corners"}, fps=1.0)
    encode_shards(tmp_path / "set", tmp_path / "features", config, lambda *x: told.append(x))
    assert told == [(1, 3), (2, 3), (3, 3)]
    features = ShardReader(tmp_path / "features")
    assert len(features) == 5 and features.num_media == 3
    assert [features.sample(i) for i in range(5)] == [reader.sample(i) for i in range(5)]
    assert [features.key(i) for i in range(5)] == [reader.key(i) for i in range(5)]
    assert [len(features.features(i)[1]) for i in range(5)] == [2, 2, 12, 12, 1]
