"""Steps and their cache: what is computed is stored under the hash of exactly what it depends on.

A step that has been published is never computed again, one that was interrupted leaves nothing
behind that counts, and two ablations that share a step (the warm-up, a pretrained compressor)
share its result.
"""

import fcntl
import hashlib
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

RECORD = "step.json"


@dataclass(frozen=True)
class Step:
    """One unit of work.

    Attributes:
        kind: ``pretrain``, ``warmup``, ``tune``, ``evaluate`` or ``measure``.
        inputs: plain values, everything the result depends on besides the steps it needs.
        needs: role -> the step whose result it reads.
    """

    kind: str
    inputs: Mapping[str, Any]
    needs: Mapping[str, "Step"]

    @cached_property
    def key(self) -> str:
        """Hash of the inputs and, through their keys, of everything upstream."""
        content = {"kind": self.kind, "inputs": self.inputs, "needs": {r: s.key for r, s in self.needs.items()}}
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:24]

    def upstream(self) -> Iterator["Step"]:
        """This step and all it needs, what is needed first."""
        for step in self.needs.values():
            yield from step.upstream()
        yield self


def unique(steps: Sequence[Step]) -> list[Step]:
    """Each step once, in order of first appearance."""
    return list({s.key: s for s in steps}.values())


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces; anything but plain values is refused."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Store:
    """The cache directory: ``<root>/<kind>/<key>/``, published by one rename.

    A lock per step, which the system releases when its holder dies, keeps two workers from doing the
    same work and makes a leftover of a killed one recognisable. On a file system without locks
    between machines the work may be done twice, with the same result.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, step: Step) -> Path:
        return self.root / step.kind / step.key

    def done(self, step: Step) -> bool:
        return (self.path(step) / RECORD).is_file()

    def seconds(self, kind: str) -> float | None:
        """Median seconds that finished steps of a kind took, or None where there is none."""
        records = (json.loads(p.read_text()) for p in self.root.glob(f"{kind}/*/{RECORD}"))
        taken = [float(r["seconds"]) for r in records]
        return statistics.median(taken) if taken else None

    def run(self, step: Step, work: Callable[[Step, Path], None]) -> bool:
        """Do ``work(step, empty directory)`` and publish the directory, unless that has been done.

        Returns:
            True when the work was done here and now.
        """
        if self.done(step):
            return False
        final = self.path(step)
        partial = final.with_name(final.name + ".partial")
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final.with_name(final.name + ".lock")):
            if self.done(step):  # another worker did it while this one waited
                return False
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            start = time.monotonic()
            work(step, partial)
            needs = {r: s.key for r, s in step.needs.items()}
            record = {"kind": step.kind, "inputs": step.inputs, "needs": needs, "seconds": time.monotonic() - start}
            (partial / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
            shutil.rmtree(final, ignore_errors=True)  # without a record: a copy someone interrupted
            os.replace(partial, final)
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
