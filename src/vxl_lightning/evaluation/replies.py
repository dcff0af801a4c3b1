"""Replies on disk: each is stored, as soon as it is there, under the hash of what it depends on."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vxl_lightning.ablation.cells import canonical
from vxl_lightning.evaluation.answerer import Asked, Reply

EDGE = 1 << 20
"""Bytes of a video's beginning, middle and end that tell it from others."""


def key_of(answerer: str, video: str, times: Mapping[str, Any], asked: Asked) -> str:
    """Of a reply.

    Args:
        answerer: hash of an `Answerer.identity`.
        video: its `fingerprint`.
        times: how its frames are chosen, plain.
        asked: the question as it is asked.
    """
    content = {"answerer": answerer, "video": video, "times": dict(times)} | asdict(asked)
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
    """The replies of one answerer, ``<folder>/<answerer>.jsonl``: one line each, appended under a lock.

    A line that was cut short when a process died does not count; what follows it begins a line of its own.
    """

    def __init__(self, folder: Path, answerer: str) -> None:
        self.path = folder / f"{answerer}.jsonl"
        self.known: dict[str, Reply] = {}
        if self.path.exists():
            for line in self.path.read_text().split("\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                key = record.pop("key")
                self.known[key] = Reply(**record)

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __getitem__(self, key: str) -> Reply:
        return self.known[key]

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n"
        with self.path.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if handle.tell():
                handle.seek(-1, 2)
                if handle.read(1) != b"\n":
                    handle.write(b"\n")
            handle.write(line.encode())
        self.known[key] = reply
