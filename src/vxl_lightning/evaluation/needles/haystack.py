"""Haystacks: real video files, long enough, read in windows as if each were the whole video."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import Tensor

from vxl_lightning.data.decoding import probe, write_stream
from vxl_lightning.data.synth import clips, footage, needles
from vxl_lightning.data.synth.clips import cut_clip, integer
from vxl_lightning.data.synth.footage import SOURCES, Footage, Split, locate
from vxl_lightning.data.synth.writing import generator_for
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.evaluation.replies import fingerprint, hashed

SHORTEST_CUT, LONGEST_CUT = 8, 48
SPARE = 512
"""Frames that a made haystack has beyond the longest cell, so that its windows differ."""
SIZE = 128

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Haystack:
    """A video file and how its frames are chosen.

    Attributes:
        path: of the file.
        fps: frames looked at each second.
        frames: how many there are.
        fingerprint: what tells it from others.
    """

    path: Path
    fps: float
    frames: int
    fingerprint: str

    def times(self, begin: int, count: int) -> list[float]:
        """Seconds, in the file, of ``count`` frames from frame ``begin`` on."""
        return [(begin + i) / self.fps for i in range(count)]


def check(config: NeedleEvaluationConfig, fps: float) -> None:
    """Refuse what `given` and `made` would refuse, before anything is made.

    Raises:
        UserError: see `given`; a footage package is missing.
    """
    if config.haystack:
        given(Path(config.haystack), fps, max(config.lengths))
        return
    for source in SOURCES:
        if source.split == config.footage:
            locate(source)


def given(path: Path, fps: float, longest: int) -> Haystack:
    """A user's own video.

    Raises:
        UserError: no such video, a rate above its own, or fewer frames than the longest cell has.
    """
    info = probe(path)
    if fps > info.fps * (1 + 1e-6):
        raise UserError(f"haystack={path} has {info.fps:g} frames a second, fps={fps:g} are asked; lower fps")
    frames = int(info.duration * fps + 1e-3)
    if frames < longest:
        raise UserError(
            f"haystack={path} has {frames:,} frames at fps={fps:g}, lengths asks for {longest:,}; give a longer video, "
            "raise fps, or drop lengths"
        )
    return Haystack(path, fps, frames, fingerprint(path))


def made(
    folder: Path, split: Split, frames: int, fps: float, seed: int, tell: Progress = lambda done, total: None
) -> Haystack:
    """A haystack of many varied cuts of the footage that packages ship, made once and kept under what it depends on.

    Args:
        folder: where haystacks are kept.
        split: side of the footage.
        frames: at least so many.
        fps: frames a second.
        seed: of everything drawn.
        tell: told (frames written, frames in all).

    Raises:
        UserError: a footage package is missing, or there is no H.264 encoder.
    """
    frames += SPARE
    sources = {s.name: metadata.version(s.package) for s in SOURCES if s.split == split and _installed(s.package)}
    depends = {"split": split, "frames": frames, "fps": fps, "seed": seed, "sources": sources, "code": _code()}
    path = folder / f"{hashed(depends)}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_stream(path, _frames(split, frames, seed, tell), fps)
    return Haystack(path, fps, frames, fingerprint(path))


def _frames(split: Split, frames: int, seed: int, tell: Progress) -> Iterator[Tensor]:
    films, done, cut = Footage.load(split), 0, 0
    while done < frames:
        generator = generator_for("haystack", seed, split, cut)
        _, film = films.draw(cut, generator)
        length = integer(SHORTEST_CUT, LONGEST_CUT + 1, generator)
        clip = cut_clip(film, length, SIZE, needles.HELD_OUT_FOOTAGE, generator)[: frames - done]
        yield from clip
        done, cut = done + len(clip), cut + 1
        tell(done, frames)


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _code() -> str:
    modules = (clips, footage, needles, sys.modules[__name__])
    content = b"".join(Path(inspect.getfile(m)).read_bytes() for m in modules)
    return hashlib.sha256(content).hexdigest()[:16]
