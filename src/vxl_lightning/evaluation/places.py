"""Where a video lies: the same benchmark circulates with its videos in folders of several names."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["below", "first_there"]


def first_there(folder: Path, *places: str) -> str:
    """The first of ``places``, relative to ``folder``, that is there; the first of all where none is."""
    return next((place for place in places if (folder / place).exists()), places[0])


def below(folders: Iterable[str], name: str) -> list[str]:
    """``name`` in each of ``folders``; an empty folder is the benchmark's own."""
    return [f"{folder}/{name}" if folder else name for folder in folders]
