"""Small pictures of media files for a page: a strip of frames, or the reason why there is none.

Files are untrusted. What the probe found damaged is not opened again (it was opened in a process that could be
killed; this one must live), no path leaves ``media_root``, and whatever still fails to decode becomes a reason.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vxl_lightning.data import decoding
from vxl_lightning.data.files import inside
from vxl_lightning.errors import UserError

FRAMES = 3
"""Frames of a strip."""
WIDTH, HEIGHT = 160, 120
"""Pixels that a frame fits into."""
_LIMITS = decoding.Limits(timeout=20.0)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


@dataclass(frozen=True)
class Strip:
    """What a page shows of a media file."""

    media: str
    caption: str
    """Length and size, where they are known."""
    picture: str
    """A WebP file in base64; empty where there is none."""
    reason: str
    """Why there is no picture."""


class Thumbnails:
    """Strips of frames, decoded once a file.

    Args:
        media_root: folder that all media paths are relative to.
        facts: media path -> kind, duration, width, height, problem and detail, as the probe left them; any may be None.
    """

    def __init__(self, media_root: Path, facts: Mapping[str, Mapping[str, Any]]) -> None:
        self._root = media_root
        self._facts = facts
        self._strips: dict[tuple[str, tuple[float, ...]], Strip] = {}

    def strip(self, media: str, times: Sequence[float] = ()) -> Strip:
        """The strip of ``media``: the frames on screen at ascending ``times``, or `FRAMES` evenly spaced ones.

        It never raises for what a file holds.
        """
        key = media, tuple(times)
        if key not in self._strips:
            self._strips[key] = self._make(media, times)
        return self._strips[key]

    def _make(self, media: str, times: Sequence[float]) -> Strip:
        facts = self._facts.get(media, {})
        caption = _caption(facts)
        if not media:
            return Strip(media, caption, "", "the record names no media")
        if facts.get("problem"):
            return Strip(media, caption, "", ": ".join(filter(None, (facts["problem"], facts.get("detail")))))
        try:
            path = inside(self._root, media, "media")
            picture = _webp(_joined(self._frames(path, media, facts, times)))
        except Exception as error:
            # Decoders of untrusted bytes raise whatever they like; the page must come out all the same.
            return Strip(media, caption, "", self._reason(error))
        return Strip(media, caption, picture, "")

    def _frames(self, path: Path, media: str, facts: Mapping[str, Any], times: Sequence[float]) -> list[Image.Image]:
        if path.is_dir() and not times:
            names = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
            if not names:
                raise UserError("a folder without images")
            chosen = dict.fromkeys(names[(2 * i + 1) * len(names) // (2 * FRAMES)] for i in range(FRAMES))
            return [_image(inside(self._root, f"{media}/{name}", "frame")) for name in chosen]
        if facts.get("kind") == "image" or path.suffix.lower() in _SUFFIXES:
            return [_image(path)]
        duration, width, height = (facts.get(k) for k in ("duration", "width", "height"))
        if not (duration and width and height):
            info = decoding.probe(path, limits=_LIMITS, name=media)
            duration, width, height = info.duration, info.width, info.height
        times = times or [(i + 0.5) / FRAMES * duration for i in range(FRAMES)]
        across, down = _fit(width, height)
        pieces = decoding.stream_frames(path, times, (down, across), limits=_LIMITS, name=media)
        return [
            Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frames, _ in pieces for frame in frames
        ]

    def _reason(self, error: Exception) -> str:
        """One line that does not say where the files lie here."""
        if isinstance(error, OSError):
            return error.strerror or "not an image that can be read"
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(str(self._root.resolve()), "media_root").replace(str(self._root), "media_root")


def _fit(width: int, height: int) -> tuple[int, int]:
    """The largest size of this shape within `WIDTH` x `HEIGHT`."""
    scale = min(WIDTH / width, HEIGHT / height)
    return max(2, round(width * scale)), max(2, round(height * scale))


def _image(path: Path) -> Image.Image:
    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > _LIMITS.max_pixels:
            raise UserError(f"an image of {image.width}x{image.height}")
        image.draft("RGB", (WIDTH, HEIGHT))
        return image.convert("RGB").resize(_fit(image.width, image.height))


def _joined(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames side by side, a white line between them."""
    strip = Image.new("RGB", (sum(f.width + 2 for f in frames) - 2, max(f.height for f in frames)), "white")
    x = 0
    for frame in frames:
        strip.paste(frame, (x, 0))
        x += frame.width + 2
    return strip


def _webp(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return base64.b64encode(buffer.getvalue()).decode()


def _caption(facts: Mapping[str, Any]) -> str:
    seconds = facts.get("duration")
    parts = []
    if seconds is not None:
        whole = round(seconds)
        parts.append(f"{seconds:.1f} s" if seconds < 60 else f"{whole // 60}:{whole % 60:02d} min")
    if facts.get("width") and facts.get("height"):
        parts.append(f"{facts['width']}×{facts['height']}")
    return " · ".join(parts)
