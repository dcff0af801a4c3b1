"""`dataset.json`: what a folder of shards holds, where every member lies, and a hash of each shard.

It is published last and at once, so a folder with a manifest is complete and one without is not a dataset.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vxl_lightning.data.files import published
from vxl_lightning.errors import UserError

Kind = Literal["video", "features"]
FORMAT = "vxl-shards/1"
NAME = "dataset.json"
MEDIA: dict[str, str] = {"video": "mp4", "features": "safetensors"}
_KEY = re.compile(r"[A-Za-z0-9_-]{1,160}")
_SHARD = re.compile(r"shard-[0-9]{6}\.tar")


def safe_key(name: str) -> str:
    """A WebDataset key for a sample's id: the id itself where it is plain, else a readable part and a hash.

    WebDataset splits names at the first dot and a path may hide in an id, so letters, digits, ``_`` and ``-`` pass
    and nothing else does.
    """
    if _KEY.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-")
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


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
class Entry:
    """One sample of a shard: its key and, by extension, where each member lies: (offset, length) in bytes."""

    key: str
    members: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    sha256: str
    size: int
    samples: tuple[Entry, ...]


@dataclass(frozen=True)
class Manifest:
    """All shards of a dataset, in order; ``encoding`` for features alone."""

    kind: Kind
    encoding: Encoding | None
    shards: tuple[Shard, ...]

    @property
    def num_samples(self) -> int:
        return sum(len(s.samples) for s in self.shards)

    def save(self, root: Path) -> None:
        """Publish as ``root/dataset.json``; the same content gives the same bytes."""
        plain = {"format": FORMAT, "num_samples": self.num_samples, **asdict(self)}
        with published(root / NAME) as temporary:
            temporary.write_text(json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, root: Path) -> tuple["Manifest", str]:
        """The manifest of a folder and its SHA-256.

        Raises:
            UserError: no manifest, another format, or a manifest that was tampered with.
        """
        path = root / NAME
        if not path.is_file():
            raise UserError(f"{root}: not a dataset (no {NAME}); write one with 'vxl data synth' or 'vxl data encode'")
        content = path.read_bytes()
        try:
            plain = json.loads(content)
            if plain["format"] != FORMAT:
                raise UserError(f"{path}: format is {plain['format']!r}, this version reads {FORMAT!r}; write it again")
            if plain["kind"] not in get_args(Kind):
                raise UserError(f"{path}: kind is {plain['kind']!r}, allowed are {', '.join(get_args(Kind))}")
            encoding = plain["encoding"]
            if encoding is not None:
                encoding = Encoding(**{**encoding, "grid": tuple(encoding["grid"])})
            shards = tuple(_shard(path, s, MEDIA[plain["kind"]]) for s in plain["shards"])
            if not shards:
                raise UserError(f"{path}: lists no shards, so there is nothing to read; write the dataset again")
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); write the dataset again") from None
        return cls(plain["kind"], encoding, shards), hashlib.sha256(content).hexdigest()


def _shard(path: Path, plain: dict[str, Any], media: str) -> Shard:
    if not _SHARD.fullmatch(plain["name"]):
        raise UserError(
            f"{path}: shard name {plain['name']!r} is not of the form shard-000000.tar and could leave its folder"
        )
    entries = []
    for sample in plain["samples"]:
        key, members = sample["key"], {e: (int(o), int(n)) for e, (o, n) in sample["members"].items()}
        if not _KEY.fullmatch(key):
            raise UserError(f"{path}: key {key!r} of {plain['name']} may hold letters, digits, '_' and '-' alone")
        if set(members) != {"json", media} or any(o < 0 or n < 0 or o + n > plain["size"] for o, n in members.values()):
            raise UserError(
                f"{path}: sample {key!r} of {plain['name']} needs a json and a {media} member inside the shard"
            )
        entries.append(Entry(key, members))
    return Shard(plain["name"], str(plain["sha256"]), int(plain["size"]), tuple(entries))
