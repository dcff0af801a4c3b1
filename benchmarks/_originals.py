"""How a method's original is called, so that ours can be held against it. None of its code is part of this project.

A file of ``benchmarks/originals/`` describes one repository, ``REPOSITORY``, and what is compared, ``COMPARISONS``.
Its functions import the original from a folder that its user has checked out; ``parity.py`` and ``compressors.py`` are
given that folder's parent with ``--originals``.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

FILES = Path(__file__).parent / "originals"


@dataclass(frozen=True)
class Repository:
    """Where an original is.

    Attributes:
        name: ``owner/name`` on GitHub; its checkout is the folder ``owner+name``.
        commit: that was compared.
        licence: of its code.
        python: environment variable that names the interpreter in which it can be imported; empty where this one can.
        packages: that are installed there.
    """

    name: str
    commit: str
    licence: str
    python: str = ""
    packages: str = ""

    @property
    def folder(self) -> str:
        return self.name.replace("/", "+")

    def wanting(self, parent: Path) -> list[str]:
        """Commands that put the checkout into ``parent``, and make an interpreter for it where it needs one of its own;
        none where both are there, the checkout at the commit that was compared.

        A folder that git does not know is taken as it is.
        """
        return self._checkout(parent) + self._interpreter(parent)

    def _interpreter(self, parent: Path) -> list[str]:
        if not self.python or os.environ.get(self.python):
            return []
        place = parent / f"{self.folder}.venv"
        return [
            f"python3.11 -m venv {place}",
            f"{place}/bin/pip install {self.packages}",
            f"export {self.python}={place}/bin/python",
        ]

    def _checkout(self, parent: Path) -> list[str]:
        place = parent / self.folder
        checkout = f"git -C {place} checkout {self.commit}"
        if not place.is_dir():
            return [f"git clone https://github.com/{self.name} {place}", checkout]
        head = ["git", "-C", str(place), "rev-parse", "HEAD"]
        git = (place / ".git").exists()
        if git and subprocess.run(head, capture_output=True, text=True).stdout.strip() != self.commit:
            return [f"git -C {place} fetch origin {self.commit}", checkout]
        return []


@dataclass(frozen=True)
class Comparison:
    """Ours and theirs on the same random input.

    Attributes:
        kind: compressor, masker or selector; other words for parts of a model.
        method: our plugin's name.
        what: which part of the method, in a few words.
        shapes: of the inputs, such as (T, H, W, D); each is tried.
        make: (shape, seed) -> the input, which ``ours`` and ``theirs`` are given.
        ours: -> what is compared.
        theirs: (folder of the checkout, input) -> the same of the original.
        differs: why the definitions differ on purpose; empty where they are the same.
        timed: shapes at which `compressors.py` times one against the other; none unless both compute all of the method
            at every call. What ``ours`` and ``theirs`` read or prepare they keep (`functools.cache`), so that called
            again with the same input they do the method's work alone.
    """

    kind: str
    method: str
    what: str
    shapes: Sequence[tuple[int, ...]]
    make: Callable[[tuple[int, ...], int], Any]
    ours: Callable[[Any], Tensor]
    theirs: Callable[[Path, Any], Tensor]
    differs: str = ""
    timed: Sequence[tuple[int, ...]] = ()


@dataclass(frozen=True)
class Original:
    """A file of ``benchmarks/originals/``, read.

    Attributes:
        file: its name without ``.py``.
        repository: where the original is.
        comparisons: ours and theirs.
    """

    file: str
    repository: Repository
    comparisons: Sequence[Comparison]

    def named(self, only: str | None) -> bool:
        """Whether it is the one that ``only`` names: by its file, its repository, or a method it compares."""
        return only in (None, self.file, self.repository.name, *(c.method for c in self.comparisons))


def originals() -> list[Original]:
    """All of them, by file."""
    found = []
    for path in sorted(FILES.glob("*.py")):
        module = import_module(f"originals.{path.stem}")
        found.append(Original(path.stem, module.REPOSITORY, module.COMPARISONS))
    return found


@contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Modules of a checkout can be imported; afterwards the path is as it was, and their names are free for another."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        # Found while the path still holds the folder: packages without __init__ look there for where they are.
        theirs = [name for name in set(sys.modules) - before if _within(sys.modules[name], folder)]
        sys.path.remove(str(folder))
        for name in theirs:
            del sys.modules[name]


def _within(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(Path(place).is_relative_to(folder) for place in places if place)
