"""How a method's original is called, so that ours can be held against it. None of its code is part of this project.

A file of ``benchmarks/originals/`` describes one repository, ``REPOSITORY``, and what is compared, ``COMPARISONS``.
Its functions import the original from a folder that its user has checked out; ``parity.py`` and ``compressors.py`` are
given that folder's parent with ``--originals``.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Repository:
    """Where an original is.

    Attributes:
        name: ``owner/name`` on GitHub; its checkout is the folder ``owner+name``.
        commit: that was compared.
        licence: of its code.
    """

    name: str
    commit: str
    licence: str

    @property
    def folder(self) -> str:
        return self.name.replace("/", "+")


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
    """

    kind: str
    method: str
    what: str
    shapes: Sequence[tuple[int, ...]]
    make: Callable[[tuple[int, ...], int], Any]
    ours: Callable[[Any], Tensor]
    theirs: Callable[[Path, Any], Tensor]
    differs: str = ""


@contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Modules of a checkout can be imported; afterwards the path is as it was."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
