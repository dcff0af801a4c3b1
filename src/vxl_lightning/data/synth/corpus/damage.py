"""Files that cannot be used, one maker a kind of damage; all that is random in them comes from the generator given."""

import math
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vxl_lightning.data.synth.corpus.copies import ORIGINAL, encode

Maker = Callable[[Path, bytes, random.Random], None]
GIANT = 16_000  # px of both sides; FFmpeg refuses to open much more, and then nobody sees the size
HOURS = 36  # more would overflow an mp4 track's clock
_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested video is no longer here.</p></body></html>
"""
_SUBTITLES = b"1\n00:00:00,000 --> 00:00:02,000\nA street.\n\n2\n00:00:02,000 --> 00:00:04,000\nA shape appears.\n\n"


def boxes(video: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of an mp4's outermost boxes."""
    start = 0
    while start < len(video):
        size, name = struct.unpack_from(">I4s", video, start)
        yield name, start, start + size
        start += size


def _truncated(target: Path, video: bytes, _: random.Random) -> None:
    """The header comes first, so the file opens and promises all its frames."""
    target.write_bytes(video[: len(video) * 6 // 10])


def _zero_bytes(target: Path, _: bytes, __: random.Random) -> None:
    target.write_bytes(b"")


def _page_as_video(target: Path, _: bytes, __: random.Random) -> None:
    """What a failed download leaves."""
    target.write_bytes(_PAGE)


def _picture_as_video(target: Path, _: bytes, __: random.Random) -> None:
    target.write_bytes(png(64, 64))


def _damaged_middle(target: Path, video: bytes, chance: random.Random) -> None:
    """Chance bytes over two fifths of the media data: the header is whole, the packets in the middle are not."""
    start, end = next((s + 8, e) for name, s, e in boxes(video) if name == b"mdat")
    first, last = start + (end - start) * 3 // 10, start + (end - start) * 7 // 10
    target.write_bytes(video[:first] + chance.randbytes(last - first) + video[last:])


def _no_video_stream(target: Path, _: bytes, __: random.Random) -> None:
    """Subtitles: they open, as a stream of text."""
    target.write_bytes(_SUBTITLES)


def _audio_only(target: Path, _: bytes, chance: random.Random) -> None:
    rate, pitch = 16_000, chance.uniform(200, 400)
    tone = (np.sin(np.arange(2 * rate) * (math.tau * pitch / rate)) * 8000).astype(np.int16)
    with av.open(str(target), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.sample_rate = rate
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def _missing(_: Path, __: bytes, ___: random.Random) -> None:
    """No file at all."""


def _directory(target: Path, _: bytes, __: random.Random) -> None:
    target.mkdir()


def _pipe(target: Path, _: bytes, __: random.Random) -> None:
    """Whoever opens it to read waits for ever."""
    os.mkfifo(target)


def _dangling_link(target: Path, _: bytes, __: random.Random) -> None:
    target.symlink_to(f"{target.stem}-gone.mp4")


def _giant_dimensions(target: Path, _: bytes, __: random.Random) -> None:
    """Valid, and tiny on disk: two black PNG frames of a bit a pixel."""
    picture = png(GIANT, GIANT)
    with av.open(str(target), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = GIANT, GIANT, "monob"
        for second in range(2):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1)
            packet.pts = packet.dts = second
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)


def _absurd_duration(target: Path, _: bytes, __: random.Random) -> None:
    """Two frames, a day and a half apart."""
    frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24") for grey in (60, 190)]
    stamps = (Fraction(0), Fraction(HOURS * 3600))
    encode(target, frames, ORIGINAL, Fraction(1), stamps, base=Fraction(1, 1000))


def _no_index(target: Path, video: bytes, _: random.Random) -> None:
    """A recording that was broken off: the box that says where the frames are was never written."""
    target.write_bytes(b"".join(video[s:e] for name, s, e in boxes(video) if name != b"moov"))


def _noise(target: Path, _: bytes, chance: random.Random) -> None:
    target.write_bytes(chance.randbytes(50_000))


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


DAMAGES: dict[str, Maker] = {
    "truncated": _truncated,
    "zero_bytes": _zero_bytes,
    "page_as_video": _page_as_video,
    "picture_as_video": _picture_as_video,
    "damaged_middle": _damaged_middle,
    "no_video_stream": _no_video_stream,
    "audio_only": _audio_only,
    "missing": _missing,
    "directory": _directory,
    "pipe": _pipe,
    "dangling_link": _dangling_link,
    "giant_dimensions": _giant_dimensions,
    "absurd_duration": _absurd_duration,
    "no_index": _no_index,
    "noise": _noise,
}
"""All must be quarantined."""
