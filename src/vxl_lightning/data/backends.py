"""The two libraries that open videos, behind one small interface.

torchcodec is the first choice. Its wheels are tied to one build of torch and load FFmpeg's shared libraries at
import, so it cannot load everywhere; PyAV brings its own FFmpeg and serves then. Both sample by time: the frame
returned for a time is the one on screen at it.
"""

import functools
import io
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vxl_lightning.data.frame_index import extent, unpacked

Backend = Literal["torchcodec", "pyav"]
# A time asked for as k / fps may fall a rounding error before the frame that starts there.
_ROUNDING = 1e-6
# Seconds of video that PyAV decodes through rather than seeking.
_SEEK_BEYOND = 4.0


@dataclass(frozen=True)
class VideoInfo:
    """What a video stream holds, from its content; ``width`` and ``height`` in pixels, ``duration`` in seconds."""

    duration: float
    fps: float
    num_frames: int
    width: int
    height: int


class NoVideo(Exception):
    """The file opens and has no video stream."""


class Reader(ABC):
    """An open video. Times count from its first frame."""

    info: VideoInfo
    header_frames: int | None
    """Frames the container promises, where it does."""
    header_duration: float | None

    @abstractmethod
    def frames(self, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Frames on screen at ascending ``times``: uint8 RGB ``[t, 3, h, w]`` and when each began ``[t]`` float32."""

    @abstractmethod
    def close(self) -> None: ...


@functools.cache
def torchcodec_problem() -> str | None:
    """Why torchcodec cannot load here, or None where it can."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


def default_backend() -> Backend:
    """torchcodec where it loads, PyAV elsewhere."""
    return "pyav" if torchcodec_problem() else "torchcodec"


def open_reader(
    source: Path | bytes, size: tuple[int, int] | None, backend: Backend, index: bytes | None = None
) -> Reader:
    """Open a video for frames of ``size`` (h, w), its own size if None; raises whatever the library raises.

    With the video's `frame_index`, torchcodec does not scan it first; PyAV does all the same.
    """
    return TorchcodecReader(source, size, index) if backend == "torchcodec" else PyavReader(source, size)


class TorchcodecReader(Reader):
    """One FFmpeg thread; many videos at once use the cores better than many threads on one video."""

    def __init__(self, source: Path | bytes, size: tuple[int, int] | None, index: bytes | None = None) -> None:
        mappings = None if index is None else unpacked(index)
        self._decoder: Any = _decoder(source, size, mappings)
        if mappings is not None:
            self._begin, end, count = extent(mappings)
            meta = self._decoder.metadata
            # Given an index, torchcodec refuses times outside what the header promises; a header that promises less
            # than there is would lose frames.
            if meta.begin_stream_seconds > self._begin + _ROUNDING or meta.end_stream_seconds < end - _ROUNDING:
                self._decoder = _decoder(source, size, None)
        else:
            meta = self._decoder.metadata
            self._begin, end, count = float(meta.begin_stream_seconds), float(meta.end_stream_seconds), meta.num_frames
        duration = end - self._begin
        self.info = VideoInfo(duration, count / duration if duration else 0.0, count, int(meta.width), int(meta.height))
        self.header_frames = meta.num_frames_from_header
        self.header_duration = meta.duration_seconds_from_header

    def frames(self, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        last = self.info.duration - 2 * _ROUNDING
        batch = self._decoder.get_frames_played_at([self._begin + min(t + _ROUNDING, last) for t in times])
        return batch.data.contiguous(), (batch.pts_seconds - self._begin).float()

    def close(self) -> None:
        del self._decoder


def _decoder(source: Path | bytes, size: tuple[int, int] | None, mappings: bytes | None) -> Any:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    try:
        return VideoDecoder(
            source,
            num_ffmpeg_threads=1,
            seek_mode="exact",
            transforms=[Resize(size)] if size else None,
            custom_frame_mappings=mappings,
        )
    except ValueError as error:
        if "video stream" in str(error):
            raise NoVideo from None
        raise


class PyavReader(Reader):
    """Scans the packets once for exact counts, as torchcodec's exact mode does, then decodes forward."""

    def __init__(self, source: Path | bytes, size: tuple[int, int] | None) -> None:
        import av

        self._container: Any = av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source))
        if not self._container.streams.video:
            self._container.close()
            raise NoVideo
        self._stream = self._container.streams.video[0]
        self._stream.thread_count = 1
        self._size = size
        base = self._stream.time_base
        stamps = []
        for packet in self._container.demux(self._stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None and packet.size:
                stamps.append((stamp, packet.duration or 0))
        if not stamps:
            raise NoVideo
        begin = min(s for s, _ in stamps)
        end = max(s + d for s, d in stamps)
        self._begin = float(begin * base)
        duration = float((end - begin) * base)
        count = len(stamps)
        codec = self._stream.codec_context
        self.info = VideoInfo(duration, count / duration if duration else 0.0, count, codec.width, codec.height)
        self.header_frames = self._stream.frames or None
        self.header_duration = float(self._stream.duration * base) if self._stream.duration else None
        self._restart(0.0)

    def _restart(self, time: float) -> None:
        """Seek to the key frame at or before ``time``."""
        offset = int((time + self._begin) / self._stream.time_base)
        self._container.seek(offset, stream=self._stream, backward=True)
        self._decoded: Iterator[Any] = self._container.decode(self._stream)
        self._shown: Any = None
        self._next: Any = next(self._decoded, None)

    def _time(self, frame: Any) -> float:
        stamp = frame.pts if frame.pts is not None else frame.dts
        return float(stamp * self._stream.time_base) - self._begin

    def frames(self, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        images, stamps = [], []
        for time in times:
            if self._next is not None and time - self._time(self._next) > _SEEK_BEYOND:
                self._restart(time)
            while self._next is not None and (self._shown is None or self._time(self._next) <= time + _ROUNDING):
                self._shown, self._next = self._next, next(self._decoded, None)
            if self._shown is None:
                raise RuntimeError(f"no frame could be decoded at {time:.3f} s")
            height, width = self._size or (self.info.height, self.info.width)
            image = self._shown.reformat(
                width=width, height=height, format="rgb24", interpolation="BILINEAR"
            ).to_ndarray()
            images.append(torch.from_numpy(image))
            stamps.append(self._time(self._shown))
        return torch.stack(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(stamps, dtype=torch.float32)

    def close(self) -> None:
        self._container.close()


# What makes the same frames the same bytes: one thread, because x264's output depends on how many share the work, and
# no AVX-512, with which 60 writes of one clip of 112 px gave up to 9 different files, and without it one.
X264 = {"threads": "1"} | ({"x264-params": "asm=avx2"} if platform.machine().lower() in ("x86_64", "amd64") else {})
_FASTSTART = {"movflags": "+faststart"}


def write_torchcodec(path: Path, frames: Tensor, fps: float, crf: int) -> None:
    """H.264 by torchcodec."""
    from torchcodec.encoders import VideoEncoder

    encoder = VideoEncoder(frames, frame_rate=fps)
    encoder.to_file(
        path, codec="libx264", pixel_format="yuv420p", crf=crf, preset="medium", extra_options=X264 | _FASTSTART
    )


def write_pyav(path: Path, frames: Iterable[Tensor], fps: float, crf: int) -> None:
    """H.264 by PyAV, of frames ``[3, h, w]`` one after another."""
    import av

    with av.open(str(path), "w", options=_FASTSTART) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.options = X264 | {"crf": str(crf), "preset": "medium"}
        for number, image in enumerate(frames):
            if number == 0:
                stream.height, stream.width = image.shape[1:]
            pixels = image.permute(1, 2, 0).contiguous().numpy()
            # Converted here: what the encoder converts by itself now and then differs in a bit, under load.
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
