"""Where the frames of a video are: found once, so that opening it again needs no scan to seek exactly."""

import gzip
import io
import json
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

# Uncompressed; a day at 30 frames a second is half of it.
_LARGEST = 256 << 20


def frame_index(source: Path | bytes) -> bytes:
    """Begin, duration (in the stream's time base) and key flag of every frame, in the order they are shown.

    Packets are read and none is decoded. The result is what torchcodec takes as ``custom_frame_mappings``, with the
    time base, gzipped; the same file gives the same bytes.

    Raises:
        ValueError: no video stream, or no packet in it. Whatever PyAV raises for a file it cannot open.
    """
    import av

    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise ValueError("has no video stream")
        base = stream.time_base
        frames = []
        for packet in container.demux(stream):
            begin = packet.pts if packet.pts is not None else packet.dts
            # Discarded packets are decoded for those after them (an edit list cuts inside a group), never shown.
            if begin is not None and packet.size and not packet.is_discard:
                frames.append((begin, packet.duration or 0, packet.is_keyframe))
    if not frames:
        raise ValueError("its video stream holds no frame")
    frames.sort(key=lambda f: f[0])
    # A frame is on screen until the next one begins, whatever the container says of its length.
    ends = [after[0] for _, after in pairwise(frames)] + [max(begin + length for begin, length, _ in frames)]
    listed = [
        {"pts": begin, "duration": end - begin, "key_frame": int(key)}
        for (begin, _, key), end in zip(frames, ends, strict=True)
    ]
    plain = {"time_base": [base.numerator, base.denominator], "frames": listed}
    return gzip.compress(json.dumps(plain, separators=(",", ":")).encode(), mtime=0)


def extent(index: bytes) -> tuple[float, float, int]:
    """Begin and end in seconds, and the number of frames, of an unpacked index."""
    plain = json.loads(index)
    frames, (numerator, denominator) = plain["frames"], plain["time_base"]
    base = numerator / denominator
    return frames[0]["pts"] * base, (frames[-1]["pts"] + frames[-1]["duration"]) * base, len(frames)


def unpacked(index: bytes) -> bytes:
    """The JSON of a frame index.

    Raises:
        ValueError: damaged, or larger than any video needs.
    """
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(index, _LARGEST)
    except zlib.error as error:
        raise ValueError(f"frame index is damaged: {error}") from None
    if not inflate.eof:
        raise ValueError("frame index is damaged: cut off, or too large")
    return plain
