"""`dataset.json`: what a folder of shards holds, with a hash of each shard and of each table beside it.

Where every member lies stands in one of those tables, `shards.parquet`. `dataset.json` is published last and at once,
so a folder with one is complete and one without is not a dataset.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from vxl_lightning.data.entries import (
    TABLE,
    Entry,
    Kind,
    Shard,
    check_shard,
    read_table,
    safe_key,
    write_table,
)
from vxl_lightning.data.files import published, sha256_of
from vxl_lightning.errors import UserError

__all__ = ["FORMAT", "NAME", "TABLE", "Encoding", "Entry", "Kind", "Manifest", "Shard", "safe_key"]

FORMAT = "vxl-shards/2"
NAME = "dataset.json"
_TABLE = re.compile(r"[a-z0-9_]{1,64}\.parquet")


@dataclass(frozen=True)
class Encoding:
    """How cached features were made; with another encoder or another sampling they are stale.

    Attributes:
        encoder: the component's configuration, ``{"name": ..., ...}``.
        fingerprint: of the encoder's class, configuration and weights.
        fps: frames sampled a second.
        max_frames: most frames sampled of one video.
        grid: (H, W) cells of a frame.
        dim: channels of a cell.
    """

    encoder: dict[str, Any]
    fingerprint: str
    fps: float
    max_frames: int
    grid: tuple[int, int]
    dim: int


@dataclass(frozen=True)
class Manifest:
    """All shards of a dataset, in order.

    Attributes:
        kind: ``video`` (media of any kind) or ``features``.
        encoding: how features were made; for features alone.
        shards: the tars.
        tables: SHA-256 of every table beside `dataset.json`, by name; `save` adds that of `shards.parquet`.
        recipe: what a pruned dataset came from, plain JSON; None elsewhere.
    """

    kind: Kind
    encoding: Encoding | None
    shards: tuple[Shard, ...]
    tables: Mapping[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None

    @property
    def num_samples(self) -> int:
        return sum(s.num_samples for s in self.shards)

    @property
    def num_media(self) -> int:
        return sum(len(s.entries) for s in self.shards)

    def save(self, root: Path) -> None:
        """Publish as ``root/shards.parquet`` and, last, ``root/dataset.json``; the same content gives the same bytes.

        Raises:
            UserError: two entries share a key, or an entry's members do not fit together.
        """
        self._check(root)
        write_table(root, self.shards)
        plain = {
            "format": FORMAT,
            "kind": self.kind,
            "encoding": None if self.encoding is None else asdict(self.encoding),
            "num_samples": self.num_samples,
            "num_media": self.num_media,
            "shards": [{"name": s.name, "sha256": s.sha256, "size": s.size} for s in self.shards],
            "tables": {**self.tables, TABLE: sha256_of(root / TABLE)},
            "recipe": self.recipe,
        }
        with published(root / NAME) as temporary:
            temporary.write_text(json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, root: Path) -> tuple["Manifest", str]:
        """The manifest of a folder and its SHA-256.

        Raises:
            UserError: no manifest, another format, or a manifest or `shards.parquet` that was tampered with.
        """
        path = root / NAME
        if not path.is_file():
            raise UserError(f"{root}: not a dataset (no {NAME}); write one with 'vxl data synth' or 'vxl data encode'")
        content = path.read_bytes()
        try:
            manifest = cls._parsed(path, json.loads(content))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); write the dataset again") from None
        return manifest, hashlib.sha256(content).hexdigest()

    @classmethod
    def _parsed(cls, path: Path, plain: dict[str, Any]) -> "Manifest":
        if plain["format"] != FORMAT:
            raise UserError(f"{path}: format is {plain['format']!r}, this version reads {FORMAT!r}; write it again")
        if plain["kind"] not in get_args(Kind):
            raise UserError(f"{path}: kind is {plain['kind']!r}, allowed are {', '.join(get_args(Kind))}")
        encoding = plain["encoding"]
        if encoding is not None:
            encoding = Encoding(**{**encoding, "grid": tuple(encoding["grid"])})
        for name in plain["tables"]:
            if not _TABLE.fullmatch(name):
                raise UserError(
                    f"{path}: table name {name!r} is not of the form name.parquet and could leave its folder"
                )
        table = path.with_name(TABLE)
        if not table.is_file() or sha256_of(table) != plain["tables"][TABLE]:
            raise UserError(f"{table}: missing or not the one that {NAME} records; copy it again, or write it again")
        entries = read_table(table)
        shards = tuple(
            Shard(str(s["name"]), str(s["sha256"]), int(s["size"]), entries.pop(s["name"], ())) for s in plain["shards"]
        )
        if not shards:
            raise UserError(f"{path}: lists no shards, so there is nothing to read; write the dataset again")
        manifest = cls(plain["kind"], encoding, shards, plain["tables"], plain["recipe"])
        manifest._check(path.parent)
        if entries:
            raise UserError(
                f"{path}: does not list {next(iter(entries))!r}, which {TABLE} has; write the dataset again"
            )
        return manifest

    def _check(self, root: Path) -> None:
        keys: set[str] = set()
        for shard in self.shards:
            check_shard(shard, self.kind, keys, str(root / TABLE))
