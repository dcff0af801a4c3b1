"""Facts about a media file, counted from its packets; nothing is decoded.

A demuxer stops silently at the first damage and then reports a shorter video: so what the header promises is compared
with what the content holds, and the packets of H.264 and HEVC are checked for the lengths of their parts, which damage
in the middle of a file leaves wrong. Every file is read in a process that is killed when it takes too long.
"""

import hashlib
import stat
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from vxl_lightning.curation.recipe import ProbeSettings
from vxl_lightning.curation.schema import PROBE
from vxl_lightning.data.media import frame_files
from vxl_lightning.parallel import CallFailed, Killable

COMMON_PIXELS = ("yuv420p", "yuvj420p", "nv12")


def probe(media: pa.Table, settings: ProbeSettings, media_root: str) -> pa.Table:
    """The `PROBE` row of every row of a `MEDIA` table."""
    rows = []
    for item in media.select(["media", "kind", "bytes"]).to_pylist():
        row = {name: None for name in PROBE.names} | {"media": item["media"]}
        try:
            row |= _child()(
                Path(media_root) / item["media"], item["kind"], settings, timeout=_patience(item["bytes"], settings)
            )
        except CallFailed as error:
            row |= {"problem": "timeout" if "took over" in str(error) else "crash", "detail": f"probing {error}"}
        rows.append(row)
    return pa.Table.from_pylist(rows, PROBE)


def _patience(size: int, settings: ProbeSettings) -> float:
    """Seconds for a file: hashing it takes as long as a slow disk that many share gives its bytes."""
    return settings.timeout + size / (4 << 20)


@cache
def _child() -> Killable:
    return Killable(facts)


def facts(path: Path, kind: str, settings: ProbeSettings) -> dict[str, Any]:
    """The columns of one file that could be learnt; ``problem`` where it is of no use."""
    try:
        if kind == "frames":
            return _frames_folder(path, settings)
        found: dict[str, Any] = _digest(path)
        return found | (_image(path, settings) if kind == "image" else _video(path, settings))
    except _Fault as fault:
        return {"problem": fault.problem, "detail": fault.detail}
    except Exception as error:  # whatever a damaged file makes a library raise
        # Where the file lies on this machine is nothing that a table should hold.
        reason = " ".join(str(error).replace(str(path), path.name).split())[:160]
        return {"problem": "unreadable", "detail": f"{type(error).__name__}: {reason}"}


class _Fault(Exception):
    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(problem)
        self.problem, self.detail = problem, detail


def _digest(*paths: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    for path in paths:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise _Fault("not_a_file", "neither a regular file nor a folder of frames")
        with path.open("rb") as handle:
            while piece := handle.read(1 << 20):
                digest.update(piece)
                size += len(piece)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _image(path: Path, settings: ProbeSettings) -> dict[str, Any]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the recipe's own limit is checked below, before a pixel is decoded
    with Image.open(path) as image:
        width, height = image.size
        _check_size(width, height, settings)
        image.load()
        found = {"container": (image.format or "").lower(), "codec": (image.format or "").lower()}
        found |= {"pixel_format": image.mode}
    return found | {
        "width": width, "height": height, "duration": 1.0, "fps": 1.0, "variable_rate": False, "header_frames": 1,
        "frames": 1, "keyframe_times": [0.0], "longest_gop": 1, "audio": False,
    }  # fmt: skip


def _frames_folder(path: Path, settings: ProbeSettings) -> dict[str, Any]:
    """A folder of pictures, read at one frame a second as Video-XL-2 does."""
    pictures = frame_files(path)
    found = _digest(*pictures) | _image(pictures[0], settings)
    count = len(pictures)
    times = [float(i) for i in range(count)]
    return found | {
        "container": "frames", "duration": float(count), "header_frames": count, "frames": count,
        "keyframe_times": times,
    }  # fmt: skip


def _check_size(width: int, height: int, settings: ProbeSettings) -> None:
    if width * height > settings.max_pixels:
        raise _Fault("too_large", f"frames of {width}x{height}, allowed are {settings.max_pixels} pixels")
    if width < 1 or height < 1:
        raise _Fault("no_video", f"frames of {width}x{height}")


def _video(path: Path, settings: ProbeSettings) -> dict[str, Any]:
    import av

    with av.open(str(path)) as container:
        name = container.format.name
        if name.endswith("_pipe") or name in ("image2", "tty"):  # a picture or a text under a video's name
            raise _Fault("not_a_video", f"its content is {name.removesuffix('_pipe')}, not a video")
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise _Fault("no_video", f"no video stream; it holds {_listed(container)}")
        stream = streams[0]
        codec = stream.codec_context
        _check_size(codec.width, codec.height, settings)
        found: dict[str, Any] = {
            "container": name, "codec": codec.name, "pixel_format": codec.pix_fmt, "width": codec.width,
            "height": codec.height, "audio": bool(container.streams.audio), "header_frames": stream.frames or None,
        }  # fmt: skip
        base = float(stream.time_base or 0)
        lengths = _lengths(codec)
        packets, damaged = [], 0
        for packet in container.demux(stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not packet.size or stamp is None:
                continue
            packets.append((stamp, packet.duration or 0, packet.is_keyframe))
            damaged += packet.is_corrupt or (lengths > 0 and not _whole(memoryview(packet), lengths))
    return found | _counted(packets, base, found["header_frames"], damaged, settings)


def _listed(container: Any) -> str:
    return ", ".join(s.type for s in container.streams) or "nothing"


def _lengths(codec: Any) -> int:
    """Bytes of the length before each unit of an H.264 or HEVC packet in mp4 or Matroska; 0 where there is none."""
    extra = codec.extradata or b""
    if codec.name == "h264" and len(extra) > 6 and extra[0] == 1:
        return (extra[4] & 3) + 1
    if codec.name == "hevc" and len(extra) > 22 and extra[0] == 1:
        return (extra[21] & 3) + 1
    return 0


def _whole(packet: memoryview, size: int) -> bool:
    """Whether the lengths of a packet's units add up to it (ISO/IEC 14496-15, section 5.3)."""
    place, end = 0, len(packet)
    while place + size <= end:
        place += size + int.from_bytes(packet[place : place + size], "big")
    return place == end


def _counted(
    packets: list[tuple[int, int, bool]], base: float, header: int | None, damaged: int, settings: ProbeSettings
) -> dict[str, Any]:
    """What follows from the packets (time stamp, duration, whether a keyframe)."""
    if not packets:
        raise _Fault("no_frames", "its video stream holds no frame")
    if header and len(packets) < settings.min_complete * header:
        raise _Fault("truncated", f"{len(packets)} of the {header} frames in its header can be read")
    if damaged:
        raise _Fault("damaged", f"{damaged} of {len(packets)} frames are damaged")
    packets.sort()
    begin = packets[0][0]
    duration = max(stamp + length for stamp, length, _ in packets) - begin
    steps = sorted(b[0] - a[0] for a, b in pairwise(packets))
    seconds = duration * base
    if (len(packets) > 1 and steps[-1] * base > settings.max_duration) or seconds > settings.max_duration:
        raise _Fault("too_long", f"lasts {seconds:.0f} s, allowed are {settings.max_duration:.0f} s")
    if seconds <= 0:
        seconds = len(packets) / 25  # a stream without durations: a single picture, or raw frames
    keys = [i for i, (_, _, key) in enumerate(packets) if key]
    middle = steps[len(steps) // 2] if steps else 0
    return {
        "duration": seconds,
        "fps": len(packets) / seconds,
        # Containers round time stamps to their ticks; beyond that and half a frame, the spacing is uneven.
        "variable_rate": any(abs(step - middle) > max(2, 0.5 * middle) for step in steps),
        "frames": len(packets),
        "keyframe_times": [(packets[i][0] - begin) * base for i in keys],
        "longest_gop": max((b - a for a, b in pairwise([*keys, len(packets)])), default=len(packets)),
    }
