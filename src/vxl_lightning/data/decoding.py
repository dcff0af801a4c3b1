"""Decode and write videos: by time, resized while decoding, in chunks, within limits.

What the limits cover: size, length and frame count are checked before a frame is decoded; only regular files (or
bytes) are opened, so no pipe or address can block. ``Limits.timeout`` bounds the seconds spent inside the decoder for
one video, even if native code never returns: each call runs on its own thread and is abandoned at the deadline. An
abandoned thread ends with its process; nothing in-process can stop it sooner.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from vxl_lightning.data.backends import (
    Backend,
    NoVideo,
    Reader,
    VideoInfo,
    default_backend,
    open_reader,
    write_pyav,
    write_torchcodec,
)
from vxl_lightning.data.files import published
from vxl_lightning.data.media import IndexedVideo, Media, Stills, frame_files, kind_of
from vxl_lightning.data.stills import StillsReader
from vxl_lightning.errors import UserError

__all__ = ["DecodeError", "Limits", "VideoInfo", "probe", "stream_frames", "write_stream", "write_video"]

_R = TypeVar("_R")


class DecodeError(UserError):
    """A video cannot be used; one line with its path, the reason and the fix."""


@dataclass(frozen=True)
class Limits:
    """What one video may cost."""

    max_duration: float = 24 * 3600.0
    """Seconds of video."""
    max_pixels: int = 8192 * 4352
    """Pixels of one source frame."""
    max_frames: int = 100_000
    """Frames asked of one video."""
    timeout: float = 600.0
    """Seconds spent decoding one video; the consumer's own time does not count."""


DEFAULT_LIMITS = Limits()


class _Clock:
    """Runs calls on a thread each, within one shared allowance of seconds."""

    def __init__(self, seconds: float, name: str) -> None:
        self.left = seconds
        self._seconds = seconds
        self._name = name

    def run(self, call: Callable[[], _R]) -> _R:
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome.append((True, call()))
            except BaseException as error:
                outcome.append((False, error))

        # A daemon thread, because an executor would wait for a hung call when the process ends.
        worker = threading.Thread(target=work, daemon=True, name="vxl-decode")
        began = time.monotonic()
        worker.start()
        worker.join(max(self.left, 0.0))
        self.left -= time.monotonic() - began
        if not outcome:
            raise DecodeError(
                f"{self._name}: decoding took over {self._seconds:g} s; re-encode the video or raise Limits.timeout"
            )
        good, value = outcome[0]
        if not good:
            raise value
        return value  # type: ignore[no-any-return]


def _open(
    source: str | Media, size: tuple[int, int] | None, limits: Limits, backend: Backend | None, name: str | None
) -> tuple[Reader, _Clock, str]:
    media, index = (source.video, source.index) if isinstance(source, IndexedVideo) else (source, None)
    if isinstance(media, str | Path):
        name = name or str(media)
        media = _at(Path(media), name)
    name = name or ("images" if isinstance(media, Stills) else "video bytes")

    def opened() -> Reader:
        if isinstance(media, Stills):
            return StillsReader(media, size, limits.max_pixels)
        return open_reader(media, size, backend or default_backend(), index)

    clock = _Clock(limits.timeout, name)
    try:
        reader = clock.run(opened)
    except NoVideo:
        raise DecodeError(f"{name}: has no video stream; give a file that holds video, or drop the record") from None
    except DecodeError:
        raise
    except Exception as error:
        raise _damaged(name, error) from None
    info = reader.info
    if reader.header_frames and reader.header_duration:
        # Both, because an edit list shortens one of them in healthy files.
        frames, seconds = info.num_frames / reader.header_frames, info.duration / reader.header_duration
        if max(frames, seconds) < 0.98:
            raise DecodeError(
                f"{name}: damaged: {info.num_frames} of the {reader.header_frames} frames in its header can be read; "
                "fetch it again or re-encode it"
            )
    if info.num_frames == 0 or info.duration <= 0:
        raise DecodeError(f"{name}: damaged: its video stream holds no frame; fetch it again or drop the record")
    if info.duration > limits.max_duration:
        raise DecodeError(
            f"{name}: lasts {info.duration:.0f} s, allowed are {limits.max_duration:.0f} s; "
            "cut it or raise Limits.max_duration"
        )
    if info.width * info.height > limits.max_pixels:
        raise DecodeError(
            f"{name}: frames of {info.width}x{info.height}, allowed are {limits.max_pixels} pixels; "
            "scale it down or raise Limits.max_pixels"
        )
    return reader, clock, name


def _at(path: Path, name: str) -> Path | Stills:
    """A path as what lies there: a video file, or the images that a file or folder is."""
    if not path.exists():
        raise DecodeError(f"{name}: no such video file; check the path and the folder it is relative to")
    kind = kind_of(path)
    if kind == "frames":
        return Stills(tuple(frame_files(path)))
    if not path.is_file():
        raise DecodeError(f"{name}: not a regular file; give the path of a video file")
    return Stills((path,)) if kind == "image" else path


def _damaged(name: str, error: Exception) -> DecodeError:
    # torchcodec prefixes the place in its C++ source; what FFmpeg says comes last.
    reason = " ".join(str(error).split()).rsplit(".cpp:", 1)[-1].split(", ", 1)[-1]
    return DecodeError(f"{name}: cannot be decoded ({reason[:160]}); fetch it again, re-encode it or drop the record")


def probe(
    source: str | Media,
    *,
    limits: Limits = DEFAULT_LIMITS,
    backend: Backend | None = None,
    name: str | None = None,
) -> VideoInfo:
    """Length, rate and size of a video, counted from its packets; no frame is decoded.

    Args:
        source: path of a video, an image or a folder of frames; or the content of one (`data.media.Media`).
        limits: what the video may cost.
        backend: torchcodec or pyav; by default torchcodec where it loads.
        name: what errors call it; the path by default.

    Raises:
        DecodeError: missing, damaged, no video stream, or over a limit.
    """
    reader, _, _ = _open(source, None, limits, backend, name)
    reader.close()
    return reader.info


def stream_frames(
    source: str | Media,
    times: Sequence[float],
    size: tuple[int, int] | None = None,
    chunk: int = 32,
    *,
    limits: Limits = DEFAULT_LIMITS,
    backend: Backend | None = None,
    name: str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode the frames on screen at ``times``, a chunk at a time.

    Args:
        source: path of a video, an image or a folder of frames; or the content of one (`data.media.Media`).
        times: ascending seconds from the video's first frame.
        size: (h, w) in pixels to resize to while decoding; None keeps the video's own.
        chunk: most frames held at once.
        limits: what the video may cost.
        backend: torchcodec or pyav; by default torchcodec where it loads.
        name: what errors call it; the path by default.

    Yields:
        uint8 RGB ``[t, 3, h, w]`` and the time ``[t]`` each frame began, float32 seconds.

    Raises:
        DecodeError: missing, damaged, no video stream, over a limit, or a time outside the video.
        ValueError: times not ascending, or a chunk below one.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: at least one frame is decoded at a time")
    if any(b < a for a, b in pairwise(times)):
        raise ValueError("times must ascend; sort them")
    reader, clock, label = _open(source, size, limits, backend, name)
    try:
        if len(times) > limits.max_frames:
            raise DecodeError(
                f"{label}: {len(times)} frames asked, allowed are {limits.max_frames}; "
                "sample more sparsely or raise Limits.max_frames"
            )
        if times and (times[0] < 0 or times[-1] >= reader.info.duration):
            raise DecodeError(
                f"{label}: a frame at {(times[0] if times[0] < 0 else times[-1]):g} s was asked, the video covers 0 to "
                f"{reader.info.duration:g} s; sample with sample_times(probe(path).duration, ...)"
            )
        for start in range(0, len(times), chunk):
            part = list(times[start : start + chunk])
            try:
                piece = clock.run(lambda part=part: reader.frames(part))  # type: ignore[misc]
            except DecodeError:
                raise
            except Exception as error:
                raise _damaged(label, error) from None
            yield piece
    finally:
        # A reader that hangs is in use by its abandoned thread: closing it would hang here too.
        if clock.left > 0:
            reader.close()


def write_video(path: str | Path, frames: Tensor, fps: float, *, crf: int = 18, backend: Backend | None = None) -> None:
    """Write an H.264 mp4; the same frames give the same bytes on the same FFmpeg.

    Args:
        path: where to; the file appears complete or not at all.
        frames: uint8 RGB ``[T, 3, h, w]`` with even h and w.
        fps: frames a second.
        crf: quality, lower is better (x264's constant rate factor).
        backend: torchcodec or pyav; by default torchcodec where it loads.

    Raises:
        UserError: frames of another shape or type, or no H.264 encoder here.
    """
    import torch

    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or frames.shape[0] == 0:
        raise UserError(f"write_video takes uint8 frames [T,3,h,w], got {frames.dtype} {tuple(frames.shape)}")
    if frames.shape[2] % 2 or frames.shape[3] % 2:
        raise UserError(f"write_video: H.264 needs even height and width, got {tuple(frames.shape[2:])}; crop it")
    write = write_torchcodec if (backend or default_backend()) == "torchcodec" else write_pyav
    with _writing(Path(path)) as temporary:
        write(temporary, frames.cpu(), fps, crf)


def write_stream(path: str | Path, frames: Iterable[Tensor], fps: float, *, crf: int = 18) -> None:
    """As `write_video`, frame by frame through PyAV, so that a long video is never held.

    Args:
        path: where to; the file appears complete or not at all.
        frames: uint8 RGB ``[3, h, w]``, at least one, all of one even h and w.
        fps: frames a second.
        crf: quality, lower is better (x264's constant rate factor).

    Raises:
        UserError: no H.264 encoder here.
    """
    with _writing(Path(path)) as temporary:
        write_pyav(temporary, frames, fps, crf)


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        with published(path) as temporary:
            yield temporary
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: cannot write H.264 ({reason}); install an FFmpeg that has libx264") from None
