"""Answers on disk, a line each, so that a killed evaluation goes on where it was."""

import fcntl
import json
from pathlib import Path
from typing import Any


class Store:
    """Plain values by key, ``<folder>/<name>.jsonl``, appended under a lock.

    A line that was cut short when a process died does not count; what follows it begins a line of its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.jsonl"
        self.known: dict[str, Any] = {}
        if self.path.exists():
            for line in self.path.read_bytes().split(b"\n"):  # a line may be cut within a character
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and record.keys() >= {"key", "content"}:
                    self.known[record["key"]] = record["content"]

    def add(self, key: str, content: Any) -> Any:
        """Keep plain values; they come back as they are read from the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "content": content}, ensure_ascii=False)
        with self.path.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if handle.tell():
                handle.seek(-1, 2)
                if handle.read(1) != b"\n":
                    handle.write(b"\n")
            handle.write(line.encode() + b"\n")
        self.known[key] = json.loads(line)["content"]
        return self.known[key]
