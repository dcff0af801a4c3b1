"""Carrying out the plan: one call writes one shard, whole and the same whoever calls it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vxl_lightning.curation.annotations import normalise
from vxl_lightning.curation.schema import ROW_GROUP, read_table
from vxl_lightning.data.entries import INDEX, REFERENCE, Entry, Shard
from vxl_lightning.data.files import published, sha256_of
from vxl_lightning.data.frame_index import frame_index
from vxl_lightning.data.schema import Sample
from vxl_lightning.data.tars import PackedEntry, members_of, write_shard
from vxl_lightning.errors import UserError


@dataclass(frozen=True)
class Writing:
    """What writing a shard needs to know.

    Attributes:
        plan: path of the `PLAN` table.
        samples: path of the `SAMPLES` table.
        media_root: folder of the media.
        out: folder of the shards.
        records: folder where every written shard leaves a note of what it holds.
        frame_index: store where every frame of a video lies.
    """

    plan: Path
    samples: Path
    media_root: Path
    out: Path
    records: Path
    frame_index: bool

    def record(self, number: int) -> Path:
        return self.records / f"{number:06d}.json"

    def done(self, number: int) -> bool:
        """Whether the shard is written."""
        if not self.record(number).exists():
            return False
        shard = read_record(self.record(number))
        path = self.out / shard.name
        return path.is_file() and path.stat().st_size == shard.size and sha256_of(path) == shard.sha256


def write_planned(writing: Writing, number: int) -> None:
    """Write shard ``number`` and then its record; what was there is replaced.

    Raises:
        UserError: a media file has changed since it was probed.
    """
    plan = read_table(writing.plan)
    mine = plan.filter(pc.equal(plan["shard"], number)).to_pylist()
    records = _records(writing.samples, sorted(row for item in mine for row in item["rows"]))
    shard = write_shard(writing.out / f"shard-{number:06d}.tar", (_entry(writing, item, records) for item in mine))
    entries = [[e.key, e.samples, e.members] for e in shard.entries]
    plain = {"name": shard.name, "sha256": shard.sha256, "size": shard.size, "entries": entries}
    with published(writing.record(number)) as temporary:
        temporary.write_text(json.dumps(plain))


def read_record(path: Path) -> Shard:
    """What `write_planned` noted of a shard."""
    plain = json.loads(path.read_text())
    entries = tuple(Entry(k, n, {m: (o, s) for m, (o, s) in members.items()}) for k, n, members in plain["entries"])
    return Shard(plain["name"], plain["sha256"], plain["size"], entries)


def _records(samples: Path, rows: list[int]) -> dict[int, tuple[str, str]]:
    """Row -> (sample_id, record) of some samples; only their row groups are read."""
    wanted = np.array(rows, dtype=np.int64)
    found: dict[int, tuple[str, str]] = {}
    with pq.ParquetFile(samples) as file:
        for group in np.unique(wanted // ROW_GROUP).tolist():
            table = file.read_row_group(group, columns=["row", "sample_id", "record"])
            chosen = table.take(wanted[wanted // ROW_GROUP == group] - group * ROW_GROUP)
            columns = (chosen[name].to_pylist() for name in ("row", "sample_id", "record"))
            found |= {row: (identity, record) for row, identity, record in zip(*columns, strict=True)}
    return found


def _entry(writing: Writing, item: dict[str, Any], records: dict[int, tuple[str, str]]) -> PackedEntry:
    samples = [_sample(*records[row]) for row in item["rows"]]
    path = writing.media_root / item["media"]
    members: dict[str, Any] = dict(members_of(path))
    size = sum(p.stat().st_size for p in members.values())
    if size != item["bytes"]:
        raise UserError(
            f"{item['media']}: has {size} bytes and had {item['bytes']} when it was probed; run the recipe again, and "
            "do not change media meanwhile"
        )
    index = {INDEX: frame_index(path)} if writing.frame_index and item["kind"] == "video" else {}
    if item["referenced"]:
        reference = {"path": item["media"], "sha256": item["sha256"], "size": item["bytes"]}
        members = {REFERENCE: json.dumps(reference, sort_keys=True).encode()}
    return PackedEntry(item["key"], samples, members | index)


def _sample(identity: str, record: str) -> Sample:
    """The sample as it is written: its record, and the identity by which decisions name it."""
    sample, _, _ = normalise(json.loads(record))
    return Sample(sample.id, sample.video, sample.conversations, sample.meta | {"sample_id": identity})
