"""Files that are either the old ones or the new ones, whatever happens in between."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vxl_lightning.errors import UserError


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success flush it to disk and rename it into place.

    The suffix is kept, because FFmpeg picks the container by it. After an error nothing is left behind
    and ``path`` is what it was; a temporary file survives only a killed process, under a name that starts with a dot.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inside(root: Path, name: str, what: str) -> Path:
    """The path of ``name`` under ``root``.

    Raises:
        UserError: ``name`` is absolute or leads out of ``root``; ``what`` says whose path it was.
    """
    path = (root / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(root.resolve()):
        raise UserError(f"{what}: {name!r} leaves {str(root)!r}; give a path relative to that folder, without '..'")
    return path
