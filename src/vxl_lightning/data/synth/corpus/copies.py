"""Copies of a video as the web holds them: encoded anew in other codecs, containers and sizes, and trimmed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from torch import Tensor

from vxl_lightning.data.backends import X264


@dataclass(frozen=True)
class Encoding:
    """How a copy is encoded; ``scale`` is of both sides, ``options`` are the codec's."""

    codec: str
    suffix: str
    options: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    pixel_format: str = "yuv420p"
    bit_rate: int | None = None


# x265 gives other bytes from run to run, so HEVC is not among them.
COPIES = (
    Encoding("libx264", ".mp4", {"crf": "30", "preset": "veryfast", **X264}),
    Encoding("libx264", ".mkv", {"crf": "26", **X264}, scale=0.75),
    Encoding("mpeg4", ".avi", bit_rate=600_000),
    Encoding("libvpx-vp9", ".webm", {"crf": "34", "b": "0", "cpu-used": "5"}, scale=1.5),
    Encoding("libvpx", ".mkv", {"cpu-used": "5"}, bit_rate=400_000),
)
"""How copies are encoded, in turn."""
ORIGINAL = Encoding("libx264", ".mp4", {"crf": "18", "preset": "fast", **X264})
"""How clips are encoded that are no copies."""
ODD_PIXELS = (replace(ORIGINAL, pixel_format="yuv444p10le"), replace(ORIGINAL, pixel_format="yuv422p"))
"""Pixels that are not 8-bit 4:2:0, in turn."""


def encode(
    target: Path,
    frames: Iterable[av.VideoFrame],
    encoding: Encoding,
    rate: Fraction,
    stamps: Iterable[Fraction],
    base: Fraction | None = None,
) -> None:
    """Write a video; the same arguments give the same bytes on one FFmpeg.

    Args:
        target: where to; its suffix decides the container.
        frames: what to encode.
        encoding: how.
        rate: nominal frames a second.
        stamps: when each frame begins, in seconds.
        base: seconds of a tick of time; by default one frame.
    """
    base = base or 1 / rate
    flags = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if encoding.suffix == ".mp4" else {})
    with av.open(str(target), "w", options=flags) as container:
        stream = container.add_stream(encoding.codec, rate=rate, options={"threads": "1", **encoding.options})
        stream.pix_fmt = encoding.pixel_format
        stream.codec_context.time_base = base
        if encoding.bit_rate:
            stream.bit_rate = encoding.bit_rate
        for frame, stamp in zip(frames, stamps, strict=False):
            width, height = (round(side * encoding.scale / 2) * 2 for side in (frame.width, frame.height))
            if not stream.codec_context.is_open:
                stream.width, stream.height = width, height
            image = frame.reformat(width=width, height=height, format=encoding.pixel_format)
            image.pts, image.time_base = round(stamp / base), base
            image.pict_type = av.video.frame.PictureType.NONE  # the copy chooses its own key frames
            _mux(container, stream.encode(image), round(1 / rate / base))
        _mux(container, stream.encode(None), round(1 / rate / base))


def _mux(container: av.container.OutputContainer, packets: Iterable[av.Packet], ticks: int) -> None:
    """Write packets; those without a duration, as where frames are uneven, get one, or the last would never be seen."""
    for packet in packets:
        packet.duration = packet.duration or ticks
        container.mux(packet)


def transcode(source: Path, target: Path, encoding: Encoding, first: int, last: int) -> None:
    """Decode frames ``first`` to ``last`` (not included) of a video and encode them anew."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate = Fraction(stream.average_rate)
        kept = [frame for i, frame in enumerate(container.decode(stream)) if first <= i < last]
    encode(target, kept, encoding, rate, (i / rate for i in range(len(kept))))


def pictures(frames: Tensor) -> list[av.VideoFrame]:
    """Frames ``[T, 3, h, w]`` uint8 as the encoder takes them."""
    return [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format="rgb24") for f in frames.permute(0, 2, 3, 1).numpy()
    ]
