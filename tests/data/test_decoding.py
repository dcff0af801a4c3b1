"""Decoding and writing: both backends agree, limits hold, every bad file is one line."""

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vxl_lightning.data import backends, decoding
from vxl_lightning.data.decoding import DecodeError, Limits, probe, stream_frames, write_video
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.errors import UserError

BACKENDS: tuple[backends.Backend, ...] = ("torchcodec", "pyav")


def moving_square(count: int = 32, height: int = 64, width: int = 96) -> Tensor:
    """Frames that tell their own number: the red level is 8 x index; a square moves."""
    frames = torch.full((count, 3, height, width), 64, dtype=torch.uint8)
    for i in range(count):
        frames[i, 0] = (i * 8) % 256
        frames[i, 1, 20:40, i : i + 20] = 255
    return frames


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    write_video(path, moving_square(), fps=2.0)
    return path


def decode(path: Path | bytes, times: list[float], **options: object) -> tuple[Tensor, Tensor]:
    chunks = list(stream_frames(path, times, **options))  # type: ignore[arg-type]
    return torch.cat([c for c, _ in chunks]), torch.cat([t for _, t in chunks])


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("backend", BACKENDS)
def test_probe_counts(video: Path, backend: backends.Backend) -> None:
    info = probe(video, backend=backend)
    assert (info.num_frames, info.width, info.height) == (32, 96, 64)
    assert info.duration == pytest.approx(16.0) and info.fps == pytest.approx(2.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_by_time(video: Path, backend: backends.Backend) -> None:
    frames, times = decode(video, [0.0, 0.49, 0.5, 7.3, 15.99], backend=backend)
    assert times.tolist() == [0.0, 0.0, 0.5, 7.0, 15.5]
    numbers = (frames[:, 0, 5, :10].float().mean(-1) / 8).round().tolist()
    assert numbers == [0, 0, 1, 14, 31]


def test_backends_agree_and_chunks_do_not_matter(video: Path) -> None:
    times = sample_times(16.0, 2.0, 32)
    whole, when = decode(video, times, size=(32, 48), chunk=32, backend="torchcodec")
    for chunk in (1, 5):
        again, _ = decode(video, times, size=(32, 48), chunk=chunk, backend="torchcodec")
        assert torch.equal(again, whole)
    other, when_other = decode(video, times, size=(32, 48), chunk=7, backend="pyav")
    assert torch.equal(when, when_other)
    assert (other.float() - whole.float()).abs().mean() < 3  # scalers differ, pictures do not
    assert whole.shape == (32, 3, 32, 48) and whole.dtype == torch.uint8


def test_pyav_seeks_to_the_same_frames(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, moving_square(60, 32, 32 + 64), fps=1.0)
    sparse, when = decode(path, [0.0, 30.0, 31.0, 55.0], backend="pyav")
    dense, _ = decode(path, [float(i) for i in range(60)], backend="pyav")
    assert when.tolist() == [0.0, 30.0, 31.0, 55.0]
    assert torch.equal(sparse, dense[[0, 30, 31, 55]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_and_path_agree(video: Path, backend: backends.Backend) -> None:
    a, _ = decode(video, [1.0, 2.0], backend=backend)
    b, _ = decode(video.read_bytes(), [1.0, 2.0], backend=backend)
    assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_writing_is_deterministic_and_faithful(tmp_path: Path, backend: backends.Backend) -> None:
    frames = moving_square()
    write_video(tmp_path / "a.mp4", frames, 2.0, backend=backend)
    write_video(tmp_path / "b.mp4", frames, 2.0, backend=backend)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    back, _ = decode(tmp_path / "a.mp4", sample_times(16.0, 2.0, 32))
    assert (back.float() - frames.float()).abs().mean() < 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_falls_back_to_pyav(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "torchcodec_problem", lambda: "libavutil.so not found")
    opened: list[str] = []
    original = backends.PyavReader

    def spy(*args: object) -> object:
        opened.append("pyav")
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backends, "PyavReader", spy)
    assert probe(video).num_frames == 32
    assert opened == ["pyav"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_files(video: Path, tmp_path: Path, backend: backends.Backend) -> None:
    data = video.read_bytes()
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 2 // 3])  # the header comes first, so this one opens
    audio = tmp_path / "audio.wav"
    audio.write_bytes(silence())
    with pytest.raises(DecodeError) as error:
        probe(tmp_path / "none.mp4", backend=backend)
    one_line(error, "none.mp4", "no such video file")
    with pytest.raises(DecodeError) as error:
        probe(text, backend=backend)
    one_line(error, "text.mp4", "cannot be decoded")
    with pytest.raises(DecodeError) as error:
        probe(audio, backend=backend)
    one_line(error, "audio.wav", "no video stream")
    with pytest.raises(DecodeError) as error:
        decode(cut, [0.0, 14.0], backend=backend)
    one_line(error, "cut.mp4")


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_frames(video: Path, tmp_path: Path, backend: backends.Backend) -> None:
    data = bytearray(video.read_bytes())
    start = data.find(b"mdat") + 4
    for i in range(start + (len(data) - start) // 3, len(data)):
        data[i] = (i * 7) % 251
    path = tmp_path / "damaged.mp4"
    path.write_bytes(bytes(data))
    with pytest.raises(DecodeError) as error:
        decode(path, sample_times(16.0, 2.0, 32), backend=backend)
    one_line(error, "damaged.mp4", "re-encode")


def silence() -> bytes:
    import io
    import wave

    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0" * 16000)
    return target.getvalue()


def test_limits(video: Path) -> None:
    with pytest.raises(DecodeError, match="max_duration"):
        probe(video, limits=Limits(max_duration=10))
    with pytest.raises(DecodeError, match="max_pixels"):
        probe(video, limits=Limits(max_pixels=96 * 63))
    with pytest.raises(DecodeError, match="max_frames"):
        decode(video, [0.0, 1.0, 2.0], limits=Limits(max_frames=2))
    with pytest.raises(DecodeError, match="covers 0 to 16 s"):
        decode(video, [16.0])
    with pytest.raises(ValueError, match="ascend"):
        decode(video, [1.0, 0.0])


def test_pipe_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(DecodeError, match="not a regular file"):
        probe(pipe)


def test_hung_decoder_is_abandoned(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(backends.TorchcodecReader, "frames", lambda self, times: release.wait())
    try:
        with pytest.raises(DecodeError) as error:
            decode(video, [0.0], limits=Limits(timeout=1.0), backend="torchcodec")
        one_line(error, "square.mp4", "over 1 s", "Limits.timeout")
    finally:
        release.set()


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="even height"):
        write_video(tmp_path / "odd.mp4", torch.zeros(2, 3, 15, 16, dtype=torch.uint8), 1.0)
    with pytest.raises(UserError, match="uint8"):
        write_video(tmp_path / "float.mp4", torch.zeros(2, 3, 16, 16), 1.0)
    assert list(tmp_path.iterdir()) == []
    assert decoding.DEFAULT_LIMITS.timeout > 0
