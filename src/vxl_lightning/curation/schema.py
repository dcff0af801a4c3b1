"""The tables of a recipe: their columns, and how they reach the disk.

One row of ``samples`` is one record that was read, well-formed or not; ``row`` counts them and joins the tables. One
row of ``media`` is one file (or folder of frames) that records point at. Tables are Parquet; the same rows give the
same bytes, and a table appears under its name complete or not at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.data.files import published

ROW_GROUP = 8192
"""Rows of a row group: row ``r`` of a table that is sorted by ``row`` is in group ``r // ROW_GROUP``."""

SAMPLES = pa.schema(
    [
        ("row", pa.int64()),
        ("sample_id", pa.string()),  # hash of source, id, media and conversations
        ("source", pa.string()),  # the annotation file, as the recipe names it
        ("record_number", pa.int64()),  # in that file, from 1
        ("id", pa.string()),
        ("media", pa.string()),  # path under media_root; empty where the record names none
        ("kind", pa.string()),  # video, image, frames, or empty
        ("record", pa.string()),  # JSON, keys sorted; empty where the record could not be parsed
        ("questions", pa.int32()),  # question-answer pairs
        ("problem", pa.string()),  # null, or why the record cannot be used
        ("detail", pa.string()),
    ]
)

MEDIA = pa.schema(
    [
        ("media", pa.string()),
        ("kind", pa.string()),
        ("samples", pa.int64()),  # well-formed records that point at it
        ("bytes", pa.int64()),
        ("problem", pa.string()),  # null, or missing, outside_root, not_a_file, unreadable
        ("detail", pa.string()),
    ]
)

PROBE = pa.schema(
    [
        ("media", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("pixel_format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duration", pa.float64()),  # seconds, from the content
        ("fps", pa.float64()),
        ("variable_rate", pa.bool_()),
        ("header_frames", pa.int64()),
        ("frames", pa.int64()),  # counted in the content
        ("keyframe_times", pa.list_(pa.float64())),  # seconds from the first frame
        ("longest_gop", pa.int32()),  # frames
        ("audio", pa.bool_()),
        ("problem", pa.string()),  # null, or why the file is quarantined
        ("detail", pa.string()),
    ]
)

FRAMES = pa.schema(
    [
        ("media", pa.string()),
        ("times", pa.list_(pa.float32())),  # seconds of the frames that were looked at
        ("descriptors", pa.binary()),  # float16 [n, d], unit length, or zero where a frame is flat
        ("motion", pa.float32()),  # mean absolute change of luma between neighbours, 0 to 1
        ("unique_ratio", pa.float32()),  # frames that differ from the one kept before them, of all
        ("problem", pa.string()),
        ("detail", pa.string()),
    ]
)

DECISIONS = pa.schema(
    [
        ("row", pa.int64()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("record_number", pa.int64()),
        ("id", pa.string()),
        ("media", pa.string()),
        ("decision", pa.string()),  # keep, drop or quarantine
        ("rule", pa.string()),  # the first that it failed; null where it is kept
        ("score", pa.float64()),  # what that rule looked at, where it is a number
        ("threshold", pa.float64()),
        ("duplicate_of", pa.string()),  # sample_id of the kept twin (exact_qa), or path of the kept video
        ("detail", pa.string()),
        ("overridden", pa.bool_()),
        ("tokens", pa.int64()),  # what its video costs in grid tokens; 0 where unknown
    ]
)

ERRORS = pa.schema(
    [
        ("row", pa.int64()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("record_number", pa.int64()),
        ("media", pa.string()),
        ("stage", pa.string()),
        ("problem", pa.string()),
        ("detail", pa.string()),
    ]
)


def write_table(path: Path, table: pa.Table) -> None:
    """Publish a table; the same rows give the same bytes."""
    write_batches(path, table.schema, table.to_batches(max_chunksize=ROW_GROUP))


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Publish a table that is never whole in memory, in row groups of `ROW_GROUP`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in _regrouped(schema, batches):
            writer.write_batch(batch, row_group_size=ROW_GROUP)


def _regrouped(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `ROW_GROUP`, so that the bytes do not depend on how the rows arrived."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            whole = pa.Table.from_batches(held, schema).combine_chunks()
            yield whole.slice(0, ROW_GROUP).combine_chunks().to_batches()[0]
            held = whole.slice(ROW_GROUP).combine_chunks().to_batches()
            rows -= ROW_GROUP
    if rows:
        yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns."""
    return pq.read_table(path, columns=None if columns is None else list(columns))


def iterate(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A table's row groups, one after the other."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=None if columns is None else list(columns)).to_batches()
