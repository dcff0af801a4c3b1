"""Entries of shards, and `shards.parquet`: where every member of every entry lies.

An entry is one media with the samples that show it. Its members are told apart by extension: ``json`` (a list of
records), then one media: a video under its own suffix, an image, frames ``000000.jpg``, ``000001.jpg``, ..., or
``ref.json``, which names a file that stays where it is; or ``safetensors``, cached features. ``idx`` beside a video
says where its frames are.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vxl_lightning.data.files import published
from vxl_lightning.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vxl_lightning.errors import UserError

Kind = Literal["video", "features"]
"""What the entries of a dataset hold: media of any kind, or features cached from them."""
JSON, FEATURES, REFERENCE, INDEX = "json", "safetensors", "ref.json", "idx"
TABLE = "shards.parquet"

SHARD = re.compile(r"shard-[0-9]{6}\.tar")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,160}")
_FRAME = re.compile(r"[0-9]{6}\.([a-z]+)")
_COLUMNS = pa.schema(
    [
        ("shard", pa.string()),
        ("sha256", pa.string()),  # of the shard
        ("key", pa.string()),
        ("samples", pa.int64()),  # records in the entry's json
        ("member", pa.string()),  # extension
        ("offset", pa.int64()),  # bytes
        ("length", pa.int64()),
    ]
)


def safe_key(name: str) -> str:
    """A WebDataset key for a sample's id: the id itself where it is plain, else a readable part and a hash.

    WebDataset splits names at the first dot and a path may hide in an id, so letters, digits, ``_`` and ``-`` pass
    and nothing else does.
    """
    if _KEY.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-")
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One media of a shard.

    Attributes:
        key: unique in the dataset.
        samples: how many records show it.
        members: by extension, where each lies: (offset, length) in bytes.
    """

    key: str
    samples: int
    members: dict[str, tuple[int, int]]

    @property
    def frames(self) -> list[str]:
        """Members that are frames of a folder, in order."""
        return sorted(m for m in self.members if _FRAME.fullmatch(m))


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    sha256: str
    size: int
    entries: tuple[Entry, ...]

    @property
    def num_samples(self) -> int:
        return sum(e.samples for e in self.entries)


def members_problem(members: Iterable[str], kind: Kind) -> str | None:
    """Why these are not the members of an entry, or None."""
    names = set(members)
    if JSON not in names:
        return "has no json member"
    names -= {JSON}
    if kind == "features":
        return None if names == {FEATURES} else "needs a json and a safetensors member, and nothing else"
    if names >= {INDEX} and names & {REFERENCE, *VIDEO_SUFFIXES}:
        names -= {INDEX}
    if len(names) == 1 and names <= {REFERENCE} | VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        return None
    frames = sorted(names)
    for number, name in enumerate(frames):
        found = _FRAME.fullmatch(name)
        if not found or found[1] not in IMAGE_SUFFIXES or not name.startswith(f"{number:06d}."):
            return f"member {name!r} does not fit: beside json stands one video, image or ref.json, or frames in order"
    return None if frames else "has no media member"


def check_shard(shard: Shard, kind: Kind, keys: set[str], where: str) -> None:
    """Refuse a shard that no writer of ours wrote; ``keys`` are those of the shards before it, and grows.

    Raises:
        UserError: a name that could leave the folder, a key twice, wrong members, or one that is not inside the shard.
    """
    if not SHARD.fullmatch(shard.name):
        raise UserError(
            f"{where}: shard name {shard.name!r} is not of the form shard-000000.tar and could leave its folder"
        )
    if not shard.entries:
        raise UserError(f"{where}: has no entry of {shard.name!r}; write the dataset again")
    for entry in shard.entries:
        here = f"{where}: entry {entry.key!r} of {shard.name}"
        if not _KEY.fullmatch(entry.key):
            raise UserError(f"{here}: a key may hold letters, digits, '_' and '-' alone")
        if entry.key in keys:
            raise UserError(f"{here}: another entry has that key; keys must be unique in a dataset")
        keys.add(entry.key)
        if (problem := members_problem(entry.members, kind)) is not None:
            raise UserError(f"{here}: {problem}")
        if any(o < 0 or n < 0 or o + n > shard.size for o, n in entry.members.values()):
            raise UserError(f"{here}: its members must lie inside the shard; write the dataset again")
        if entry.samples < 1:
            raise UserError(f"{here}: has {entry.samples} samples, at least one is needed; write the dataset again")


def write_table(root: Path, shards: Iterable[Shard]) -> None:
    """Publish ``root/shards.parquet``, one row a member; the same shards give the same bytes."""
    rows = [
        (s.name, s.sha256, e.key, e.samples, member, offset, length)
        for s in shards
        for e in s.entries
        for member, (offset, length) in sorted(e.members.items())
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_COLUMNS)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _COLUMNS, strict=True)], schema=_COLUMNS)
    with published(root / TABLE) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> dict[str, tuple[Entry, ...]]:
    """The entries of every shard.

    Raises:
        UserError: not the table that `write_table` wrote.
    """
    try:
        table = pq.read_table(path, columns=_COLUMNS.names).cast(_COLUMNS)
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: damaged ({reason}); copy it again or write the dataset again") from None
    shards: dict[str, dict[str, Entry]] = {}
    columns = (table[n].to_pylist() for n in ("shard", "key", "samples", "member", "offset", "length"))
    for shard, key, samples, member, offset, length in zip(*columns, strict=True):
        entry = shards.setdefault(shard, {}).setdefault(key, Entry(key, samples, {}))
        entry.members[member] = (offset, length)
    return {name: tuple(entries.values()) for name, entries in shards.items()}
