"""The folder of finished stages: what is there depends on exactly what its name says, and is never computed twice."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.config import to_plain
from vxl_lightning.curation.annotations import canonical
from vxl_lightning.curation.engine import Part, Runner, StageFunction, parts_of
from vxl_lightning.curation.index import Index
from vxl_lightning.curation.schema import ROW_GROUP, write_table
from vxl_lightning.curation.verdicts import Flags
from vxl_lightning.data.files import sha256_of

_PACKAGES = ("curation", "data", "models", "compressors", "selectors", "encoders")


class Work:
    """Finished stages, by name and key.

    Args:
        folder: where they lie.
        runner: the engine that makes what is missing.

    Attributes:
        spent: stage -> (items, seconds), of what was made now.
    """

    def __init__(self, folder: Path, runner: Runner) -> None:
        self.folder = folder
        self.runner = runner
        self.spent: dict[str, tuple[int, float]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, *inputs: Any) -> Path:
        """Where the result of ``inputs`` lies, without its suffix; code is an input too."""
        content = canonical([name, _code(), [to_plain(i) for i in inputs]])
        return self.folder / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def table(self, name: str, make: Callable[[Path], Any], *inputs: Any) -> Path:
        """A table that ``make`` writes to the path it is given, unless it is there."""
        path = self.path(name, *inputs).with_suffix(".parquet")
        if not path.exists():
            self.runner.watcher.stage(name, 1, 0)
            start = time.monotonic()
            make(path)
            self.spent[name] = (1, time.monotonic() - start)
            self.runner.watcher.advance(name, 1)
        return path

    def put(self, name: str, table: pa.Table) -> Path:
        """Write a table that a stage is to read, under a name that follows from its content."""
        path = self.folder / f"{name}-new.parquet"
        write_table(path, table)
        return self.keep(name, path)

    def rows(self, name: str, index: Index, kept: Flags) -> Path:
        """The kept samples as a table of their own."""
        path = self.folder / f"{name}-new.parquet"
        index.write(path, kept)
        return self.keep(name, path)

    def keep(self, name: str, path: Path) -> Path:
        """Give a file of this folder a name that follows from its content."""
        return path.replace(self.folder / f"{name}-{sha256_of(path)[:16]}.parquet")

    def stage(
        self,
        name: str,
        function: StageFunction,
        table: Path,
        schema: pa.Schema,
        inputs: Sequence[Any],
        costs: Sequence[float] | None = None,
        most_rows: int = ROW_GROUP,
    ) -> Path:
        """Run a stage over a table in parts; gives the path of its result.

        Args:
            function: rows to rows.
            inputs: what the result depends on besides the table.
            costs: of every row, to begin with the costliest; alike by default.
            most_rows: of a part.
        """
        folder = self.path(name, sha256_of(table), *inputs)
        rows = costs if costs is not None else [1.0] * pq.read_metadata(table).num_rows
        parts: list[Part] = parts_of(rows, most_rows)
        fresh = not folder.with_name(folder.name + ".parquet").exists()
        start = time.monotonic()
        path = self.runner.map(name, function, table, parts, folder, schema)
        if fresh:
            self.spent[name] = (len(rows), time.monotonic() - start)
        return path


@cache
def _code() -> str:
    """Hash of the code that results depend on, so that an edited stage is run again."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((root / package).glob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
