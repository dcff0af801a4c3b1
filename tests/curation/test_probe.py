import wave
from fractions import Fraction
from pathlib import Path

import av
import pyarrow as pa
import pytest
import torch
from PIL import Image

from vxl_lightning.curation.probe import facts, probe
from vxl_lightning.curation.recipe import ProbeSettings
from vxl_lightning.data.decoding import write_video

from .conftest import moving

SETTINGS = ProbeSettings()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe") / "v.mp4"
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 60, (24, 3, 64, 64), generator=generator)
    write_video(path, (moving(0, 24).int() * 3 // 4 + noise).clamp(0, 255).byte(), 8)
    return path


def test_facts_of_a_sound_video(video: Path) -> None:
    found = facts(video, "video", SETTINGS)
    assert found.get("problem") is None
    assert (found["frames"], found["header_frames"], found["width"], found["codec"]) == (24, 24, 64, "h264")
    assert found["duration"] == pytest.approx(3.0) and found["fps"] == pytest.approx(8.0)
    assert not found["variable_rate"] and not found["audio"] and found["keyframe_times"][0] == 0.0


def problem(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(facts(path, "video", SETTINGS)["problem"])


def test_damage_is_found(video: Path, tmp_path: Path) -> None:
    whole = video.read_bytes()
    path = tmp_path / "x.mp4"
    assert problem(path, whole[: int(len(whole) * 0.6)]) == "truncated"
    torn = bytearray(whole)
    middle = len(whole) // 2
    torn[middle : middle + len(whole) // 8] = bytes(len(whole) // 8)
    assert problem(path, bytes(torn)) == "damaged"
    assert problem(path, b"a text, not a video\n" * 50) == "unreadable"
    assert problem(path, whole[-200:]) == "unreadable"
    assert str(tmp_path) not in facts(path, "video", SETTINGS)["detail"]


def test_a_picture_or_a_sound_under_a_videos_name(tmp_path: Path) -> None:
    picture = tmp_path / "p.mp4"
    Image.new("RGB", (32, 32)).save(picture, format="PNG")
    assert facts(picture, "video", SETTINGS)["problem"] == "not_a_video"
    sound = tmp_path / "s.mp4"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    assert facts(sound, "video", SETTINGS)["problem"] == "no_video"


def test_limits(video: Path) -> None:
    assert facts(video, "video", ProbeSettings(max_pixels=100))["problem"] == "too_large"
    assert facts(video, "video", ProbeSettings(max_duration=1))["problem"] == "too_long"


def test_uneven_spacing_is_a_variable_rate(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for stamp in (0, 100, 200, 700, 800, 1500):
            frame = av.VideoFrame.from_ndarray(
                moving(stamp, 1)[0].permute(1, 2, 0).contiguous().numpy(), format="rgb24"
            )
            frame.pts = stamp
            frame.time_base = stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = facts(path, "video", SETTINGS)
    assert found.get("problem") is None and found["variable_rate"]


def test_pictures_and_folders_of_frames(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (32, 16), (i, 0, 0)).save(tmp_path / f"{i}.png")
    found = facts(tmp_path, "frames", SETTINGS)
    assert (found["frames"], found["duration"], found["height"]) == (3, 3.0, 16)
    assert facts(tmp_path / "0.png", "image", SETTINGS)["frames"] == 1
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    assert facts(tmp_path / "0.png", "image", SETTINGS)["problem"] == "unreadable"


def test_a_file_that_takes_too_long_is_quarantined_and_the_next_one_is_read(video: Path) -> None:
    media = pa.table({"media": ["/dev/zero", video.name], "kind": ["image", "video"], "bytes": [1, 1]})
    rows = probe(media, ProbeSettings(timeout=5.0), str(video.parent)).to_pylist()
    assert rows[0]["problem"] is not None and rows[1]["problem"] is None and rows[1]["frames"] == 24
