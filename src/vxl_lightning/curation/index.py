"""What later steps need of all samples at once, as arrays; their texts stay on disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vxl_lightning.curation.schema import SAMPLES, iterate, read_table, write_batches
from vxl_lightning.curation.verdicts import Flags

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Index:
    """Samples and the media they point at.

    Attributes:
        samples: path of the `SAMPLES` table.
        paths: ``[M]`` media paths, in the order of the `MEDIA` table.
        media: ``[N]`` index into ``paths`` for every sample, -1 where it has none; exact copies of a file are one.
        source: ``[N]`` index into ``sources``.
        questions: ``[N]`` question-answer pairs.
        usable: ``[N]`` records that are well-formed.
    """

    def __init__(self, samples: Path, media: Path) -> None:
        self.samples = samples
        self.table = read_table(media)
        self.paths: list[str] = self.table["media"].to_pylist()
        columns = read_table(samples, ["media", "source", "questions", "problem"])
        self.media = _filled(pc.index_in(columns["media"], pa.array(self.paths, pa.string())), -1)
        self.sources: list[str] = pc.unique(columns["source"]).to_pylist()
        self.source = _filled(pc.index_in(columns["source"], pa.array(self.sources, pa.string())), -1)
        self.questions = _filled(columns["questions"], 0)
        self.usable: Flags = columns["problem"].is_null().to_numpy()
        self.media[~self.usable] = -1
        self.original = self.media

    def __len__(self) -> int:
        return len(self.media)

    def merge(self, twin: Ints) -> None:
        """From here on the samples of every media belong to its ``twin [M]``."""
        self.media = np.append(twin, -1)[self.media]

    def of_media(self, flags: Flags) -> Flags:
        """``[M]`` flags of media as ``[N]`` flags of their samples."""
        return np.where(self.media >= 0, np.append(flags, False)[self.media], False)

    def spread(self, values: Floats) -> Floats:
        """``[M]`` values of media as ``[N]`` values of their samples; NaN where there is none."""
        return np.where(self.media >= 0, np.append(values, np.nan)[self.media], np.nan)

    def used(self, kept: Flags) -> Flags:
        """``[M]`` media that a kept sample points at."""
        flags = np.zeros(len(self.paths), dtype=bool)
        flags[self.media[kept & (self.media >= 0)]] = True
        return flags

    def aligned(self, table: pa.Table, column: str) -> Floats:
        """A number column of a table with a ``media`` column, as ``[M]``; NaN where it has no row."""
        values = np.full(len(self.paths), np.nan)
        where = self.places(table)
        values[where] = pc.cast(table[column], pa.float64()).to_numpy()
        return values

    def places(self, table: pa.Table) -> Ints:
        """Index into ``paths`` of every row of a table with a ``media`` column."""
        return _filled(pc.index_in(table["media"], pa.array(self.paths, pa.string())), -1)

    def ids(self, rows: Ints) -> list[str]:
        """Identities of some samples."""
        column = read_table(self.samples, ["sample_id"])["sample_id"]
        found: list[str] = column.take(pa.array(rows)).to_pylist()
        return found

    def write(self, path: Path, kept: Flags) -> None:
        """The kept samples' rows of the `SAMPLES` table, with their media as merged, as a table of their own."""

        def batches() -> Iterator[pa.RecordBatch]:
            begin = 0
            for batch in iterate(self.samples):
                end = begin + batch.num_rows
                chosen = kept[begin:end]
                if chosen.any():
                    media = pa.array([self.paths[m] for m in self.media[begin:end][chosen]], pa.string())
                    part = batch.filter(pa.array(chosen))
                    yield part.set_column(SAMPLES.get_field_index("media"), SAMPLES.field("media"), media)
                begin = end

        write_batches(path, SAMPLES, batches())


def _filled(column: pa.ChunkedArray, missing: int) -> Ints:
    filled: Ints = pc.cast(pc.fill_null(column, missing), pa.int64()).to_numpy().copy()
    return filled
