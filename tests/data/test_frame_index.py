"""A frame index gives the frames that a scan gives; media by reference are found, and only under their folder."""

import gzip
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tests.data.conftest import make_sample

from vxl_lightning.data.backends import Backend
from vxl_lightning.data.decoding import DecodeError, probe, stream_frames, write_video
from vxl_lightning.data.files import sha256_of
from vxl_lightning.data.frame_index import frame_index
from vxl_lightning.data.manifest import Manifest
from vxl_lightning.data.media import IndexedVideo
from vxl_lightning.data.references import Reference
from vxl_lightning.data.shards import ShardReader
from vxl_lightning.data.tars import PackedEntry, write_shard
from vxl_lightning.data.verify import verify
from vxl_lightning.errors import UserError


def numbered(path: Path, codec: str = "libx264", variable: bool = False, **options: str) -> Path:
    """60 frames whose red tells their number; at 10 a second or at odd moments."""
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", options
        stream.codec_context.time_base = base
        for number in range(60):
            image = np.full((48, 64, 3), 60, np.uint8)
            image[..., 0] = number * 4
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number * 100 + (number * 37 % 80 if variable else 0), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("plain.mp4", {"g": "12", "bf": "0"}),
        ("b-frames.mp4", {"g": "12", "bf": "3", "b-pyramid": "normal"}),
        ("b-frames.mkv", {"g": "24", "bf": "3"}),
        ("variable.mkv", {"g": "12", "bf": "2", "variable": True}),
        ("variable.mp4", {"g": "12", "bf": "2", "variable": True}),
        ("old.avi", {"codec": "mpeg4"}),
    ],
)
@pytest.mark.parametrize("backend", ["torchcodec", "pyav"])
def test_the_same_frames_with_and_without(
    tmp_path: Path, name: str, settings: dict[str, str], backend: Backend
) -> None:
    path = numbered(tmp_path / name, **settings)  # type: ignore[arg-type]
    index = frame_index(path)
    assert index == frame_index(path.read_bytes()) and index[4:8] == bytes(4)
    listed = json.loads(gzip.decompress(index))["frames"]
    assert len(listed) == 60 and [f["pts"] for f in listed] == sorted(f["pts"] for f in listed)
    plain, known = (probe(s, backend=backend) for s in (path, IndexedVideo(path, index)))
    assert plain.num_frames == known.num_frames == 60 and abs(plain.duration - known.duration) < 0.11
    last = min(plain.duration, known.duration)
    times = [last * i / 97 for i in range(97)]
    for wanted in (times, times[::13], times[-1:]):
        scanned = list(stream_frames(path, wanted, backend=backend))
        indexed = list(stream_frames(IndexedVideo(path.read_bytes(), index), wanted, backend=backend))
        for (frames, at), (others, when) in zip(scanned, indexed, strict=True):
            assert torch.equal(frames, others) and torch.equal(at, when)
    red = torch.cat([f for f, _ in stream_frames(IndexedVideo(path, index), times)])[:, 0].float().mean((1, 2))
    assert red[-1] - red[0] > 200  # frames were told apart, or nothing was compared


def test_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    path = numbered(tmp_path / "v.mp4")
    index = frame_index(path)
    for bad in (b"", b"junk", index[:-20], gzip.compress(b"{}"), gzip.compress(b'{"frames": []}'), gzip.compress(b"[")):
        with pytest.raises(DecodeError, match=r"v.mp4: cannot be decoded") as error:
            probe(IndexedVideo(path, bad), backend="torchcodec")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="video"):
        frame_index(silence(tmp_path / "a.wav"))


def silence(path: Path) -> Path:
    import wave

    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 16000)
    return path


def referring(root: Path, path: str, video: Path, index: bytes | None = None) -> Path:
    root.mkdir()
    reference = Reference(path, sha256_of(video), video.stat().st_size)
    members = {"ref.json": reference.to_bytes()} | ({} if index is None else {"idx": index})
    shard = write_shard(root / "shard-000000.tar", [PackedEntry("hour", [make_sample(0)], members)])
    Manifest("video", None, (shard,)).save(root)
    return root


def test_references(tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "deep").mkdir(parents=True)
    video = numbered(media / "deep" / "hour.mp4", bf="2")
    root = referring(tmp_path / "set", "deep/hour.mp4", video, frame_index(video))
    reader = ShardReader(root, media)
    shown = reader.video(0)
    assert isinstance(shown, IndexedVideo) and shown.video == video and probe(shown).num_frames == 60
    assert [p for _, p in verify(root, media)] == [None]
    without = ShardReader(root)
    assert without.sample(0) == make_sample(0)
    for refused in (lambda: without.video(0), without.require_media_root):
        with pytest.raises(UserError, match="media_root"):
            refused()

    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    [(_, problem)] = verify(root, media)
    assert problem is not None and "whose content was changed" in problem
    video.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"hour: refers to .*hour.mp4, which had \d+ bytes and now has"):
        reader.video(0)
    video.unlink()
    with pytest.raises(UserError, match="does not exist"):
        reader.video(0)


def test_a_reference_cannot_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    video = tmp_path / "secret.mp4"
    write_video(video, torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 2.0)
    (tmp_path / "media" / "link.mp4").symlink_to(video)
    for number, path in enumerate(("../secret.mp4", str(video), "link.mp4")):
        root = referring(tmp_path / f"set{number}", path, video)
        with pytest.raises(UserError, match="leaves"):
            ShardReader(root, tmp_path / "media").video(0)
    for number, content in enumerate((b"", b"[]", b'{"path": 1, "sha256": "", "size": 1}', b'{"path": "a.pkl"}')):
        root = tmp_path / f"bad{number}"
        root.mkdir()
        entry = PackedEntry("hour", [make_sample(0)], {"ref.json": content})
        Manifest("video", None, (write_shard(root / "shard-000000.tar", [entry]),)).save(root)
        with pytest.raises(UserError, match="not the path, sha256 and size of a video"):
            ShardReader(root, tmp_path).video(0)


def test_verify_makes_every_index_again(tmp_path: Path) -> None:
    one, other = numbered(tmp_path / "a.mp4"), numbered(tmp_path / "b.mp4", variable=True)
    entry = PackedEntry("a", [make_sample(0)], {"mp4": one, "idx": frame_index(other)})
    Manifest("video", None, (write_shard(tmp_path / "shard-000000.tar", [entry]),)).save(tmp_path)
    [(_, problem)] = verify(tmp_path)
    assert problem is not None and "a.idx: not the frame index of its video" in problem
