"""What a sample may show: a video file, an image, or a folder of frames; told apart by name, never by content."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MediaKind = Literal["video", "image", "frames"]

VIDEO_SUFFIXES = frozenset(
    {"mp4", "m4v", "mov", "webm", "mkv", "avi", "mpg", "mpeg", "ts", "m2ts", "flv", "wmv", "ogv", "3gp", "gif"}
)
"""Suffixes of video files, lower case and without the dot."""
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp"})
"""Suffixes of images, lower case and without the dot."""
_NUMBERS = re.compile(r"(\d+)", re.ASCII)


def suffix_of(path: str | Path) -> str:
    """The last suffix, lower case and without its dot."""
    return Path(path).suffix[1:].lower()


def kind_of(path: str | Path) -> MediaKind | None:
    """What lies at a path: a folder is ``frames``, a file is known by its suffix; None for any other suffix."""
    if Path(path).is_dir():
        return "frames"
    suffix = suffix_of(path)
    return "video" if suffix in VIDEO_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else None


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder in the order they are shown: by name, numbers in it by value (2 before 10)."""
    files = [p for p in folder.iterdir() if suffix_of(p) in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(files, key=lambda p: ([int(x) if i % 2 else x for i, x in enumerate(_NUMBERS.split(p.stem))], p.name))


@dataclass(frozen=True)
class Stills:
    """Encoded images in the order they are shown, one a second; a single image lasts a second."""

    images: tuple[bytes | Path, ...]


@dataclass(frozen=True)
class IndexedVideo:
    """A video whose frames need not be searched for: what `frame_index` says of it is known."""

    video: bytes | Path
    index: bytes


Media = bytes | Path | Stills | IndexedVideo
"""What decoding opens: a file by path or content, images, or a video with its frame index."""
