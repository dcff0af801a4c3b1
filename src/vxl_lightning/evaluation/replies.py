"""Replies on disk: each is stored, as soon as it is there, under the hash of what it depends on."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vxl_lightning.ablation.cells import canonical
from vxl_lightning.evaluation.answerer import Asked, Reply
from vxl_lightning.evaluation.store import Store

EDGE = 1 << 20
"""Bytes of a video's beginning, middle and end that tell it from others."""


def key_of(answerer: str, video: str, times: Sequence[float], asked: Asked) -> str:
    """Of a reply.

    Args:
        answerer: hash of an `Answerer.identity`.
        video: its `fingerprint`.
        times: seconds of its frames that are shown.
        asked: the question as it is asked.
    """
    content = {"answerer": answerer, "video": video, "times": list(times)} | asdict(asked)
    return hashed(content)


def hashed(content: Any) -> str:
    """Of plain values."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:32]


def fingerprint(path: Path) -> str:
    """What tells a video from another: its size, and a hash of its beginning, middle and end; a folder's files all.

    Not the whole of it, which would take as long as reading the videos once more.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)} {size}".encode())
        with file.open("rb") as handle:
            for begin in sorted({0, max(0, size // 2 - EDGE // 2), max(0, size - EDGE)}):
                handle.seek(begin)
                digest.update(handle.read(EDGE))
    return digest.hexdigest()[:32]


class Replies:
    """The replies of one answerer, ``<folder>/<answerer>.jsonl``; a `Store` of them."""

    def __init__(self, folder: Path, answerer: str) -> None:
        self._store = Store(folder, answerer)

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._store.path

    def __len__(self) -> int:
        return len(self._store.known)

    def __contains__(self, key: str) -> bool:
        return key in self._store.known

    def __getitem__(self, key: str) -> Reply:
        return Reply(**self._store.known[key])

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        self._store.add(key, asdict(reply))
