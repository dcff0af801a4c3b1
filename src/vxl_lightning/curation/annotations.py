"""From annotation files to two tables: ``samples``, a row for every record that was read, and ``media``.

Records are read as a stream, in LLaVA's layout and its kin: a JSON list, JSONL, or a mixture of such files with a
sampling strategy each (LLaVA-NeXT's YAML; its ``random`` is unseeded, ours is not). A record that cannot be used keeps
its row, with the reason: what was read can always be accounted for.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from vxl_lightning.curation.recipe import Recipe
from vxl_lightning.curation.schema import MEDIA, ROW_GROUP, SAMPLES, write_batches, write_table
from vxl_lightning.data.media import frame_files, kind_of
from vxl_lightning.data.schema import Sample, read_records
from vxl_lightning.errors import UserError

_STRATEGY = re.compile(r"all|(?P<how>first|end|random):(?P<count>\d+)(?P<percent>%?)")


NAMED = pa.schema([("media", pa.string()), ("kind", pa.string()), ("samples", pa.int64())])
"""Media that well-formed records point at, in the order of first use, before anybody looked whether they exist."""


def ingest(recipe: Recipe, samples: Path, named: Path) -> list[tuple[str, int]]:
    """Read the recipe's annotations into the tables ``samples`` and ``named``; memory holds a row group of records.

    Returns:
        For every annotation file its name and the number of records taken.

    Raises:
        UserError: no dataset, a missing file, a strategy that is none, or a file whose list is broken.
    """
    files = annotation_files(recipe)
    found: dict[str, list[Any]] = {}
    taken: list[tuple[str, int]] = []
    total = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal total
        rows: list[dict[str, Any]] = []
        seen: dict[int, int] = {}
        for file in files:
            before = total
            for number, record in file.taken(recipe.seed):
                row = {"row": total, "source": file.name, "record_number": number, **_row(record)}
                row["sample_id"] = _unique(_identity(file.name, number, row), seen)
                if row["problem"] is None:
                    found.setdefault(row["media"], [row["kind"], 0])[1] += 1
                rows.append(row)
                total += 1
                if len(rows) == ROW_GROUP:
                    yield pa.RecordBatch.from_pylist(rows, SAMPLES)
                    rows.clear()
            taken.append((file.name, total - before))
        if rows:
            yield pa.RecordBatch.from_pylist(rows, SAMPLES)

    write_batches(samples, SAMPLES, batches())
    if not total:
        samples.unlink()
        raise UserError(f"{', '.join(f.name for f in files)}: no record was read; a JSON list or JSONL is expected")
    rows = [{"media": m, "kind": kind, "samples": count} for m, (kind, count) in found.items()]
    write_table(named, pa.Table.from_pylist(rows, NAMED))
    return taken


def annotation_files(recipe: Recipe) -> list["AnnotationFile"]:
    """The files of the mixture, in its order; ``{a,b}.json`` is several.

    Raises:
        UserError: no dataset, a missing file, or a strategy that is none.
    """
    files = []
    for source in recipe.datasets:
        if not _STRATEGY.fullmatch(source.sampling_strategy):
            raise UserError(
                f"datasets: sampling_strategy={source.sampling_strategy!r} of {source.json_path} is not one of all, "
                "first:N, end:N, random:N, where N is a number or a percentage such as 50%"
            )
        braces = re.search(r"\{([^{}]*)\}", source.json_path)
        names = [source.json_path]
        if braces:
            head, tail = source.json_path[: braces.start()], source.json_path[braces.end() :]
            names = [head + option.strip() + tail for option in braces[1].split(",")]
        for name in names:
            path = Path(recipe.annotation_root) / name
            if not path.is_file():
                raise UserError(f"datasets: no annotation file {str(path)!r}; check json_path and annotation_root")
            files.append(AnnotationFile(name, path, source.sampling_strategy))
    if not files:
        raise UserError("datasets is empty; name annotation files, such as 'datasets=[{json_path: train.json}]'")
    return files


@dataclass(frozen=True)
class AnnotationFile:
    """One file of a mixture; ``name`` is what the recipe calls it."""

    name: str
    path: Path
    strategy: str

    def taken(self, seed: int) -> Iterator[tuple[int, object]]:
        """(number from 1, record) of the records that the strategy takes, in the order of the file."""
        match = _STRATEGY.fullmatch(self.strategy)
        assert match is not None
        records = enumerate((record for _, record in read_records(self.path)), 1)
        if match["how"] is None:
            yield from records
            return
        wanted, length = int(match["count"]), 0
        if match["percent"] or match["how"] != "first":  # else nobody needs to know how many there are
            length = sum(1 for _ in read_records(self.path))
            wanted = min(math.ceil(wanted * length / 100) if match["percent"] else wanted, length)
        if match["how"] == "first":
            for number, record in records:
                if number > wanted:
                    return
                yield number, record
        elif match["how"] == "end":
            yield from ((number, record) for number, record in records if number > length - wanted)
        else:
            generator = np.random.default_rng(list(hashlib.sha256(f"{seed}:{self.name}".encode()).digest()))
            keep = np.zeros(length, dtype=bool)
            keep[generator.permutation(length)[:wanted]] = True
            yield from ((number, record) for number, record in records if keep[number - 1])


def _row(record: object) -> dict[str, Any]:
    """The columns of a record that come from itself; `problem` says why it cannot be used."""
    empty = {"id": "", "media": "", "kind": "", "record": "", "questions": 0, "problem": None, "detail": None}
    if isinstance(record, UserError):
        return empty | {"problem": "not_json", "detail": _after_place(str(record))}
    given = {"record": canonical(record)}
    try:
        given["record"].encode()
    except UnicodeEncodeError:
        return empty | {"problem": "malformed", "detail": "holds half of a surrogate pair, which is no text"}
    if isinstance(record, dict):
        given["id"] = str(record.get("id", ""))
    try:
        sample, media, kind = normalise(record)
    except UserError as error:
        return empty | given | {"problem": "malformed", "detail": _after_place(str(error))}
    questions = len(sample.conversations) // 2
    return empty | given | {"media": media, "kind": kind, "questions": questions}


def normalise(record: object) -> tuple[Sample, str, str]:
    """A record as a sample, the path of its media under ``media_root`` and its kind (``video`` or ``image``).

    Raises:
        UserError: it cannot be used; the message says why.
    """
    where = "record"
    sample = Sample.from_record(record, where)
    if len(sample.conversations) % 2:
        raise UserError(f"{where}: the last of {len(sample.conversations)} turns is a question without an answer")
    scale = sample.meta.get("scale")
    if scale is not None and (
        isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf
    ):
        raise UserError(f"{where}: field 'scale' must be a positive number, got {scale!r}")
    if "\0" in sample.video:
        raise UserError(f"{where}: the path {sample.video!r} holds a NUL character")
    path = PurePosixPath(sample.video)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {sample.video!r} leaves media_root; give a path relative to it, without '..'")
    is_image = isinstance(record, dict) and "image" in record
    return sample, str(path), "image" if is_image else "video"


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _identity(source: str, number: int, row: dict[str, Any]) -> str:
    """Hash of source, id, media and conversations; of a record that has none of these, of its place and text."""
    if row["problem"] is None:
        turns = json.loads(row["record"])["conversations"]
        content: list[object] = [source, row["id"], row["media"], turns]
    else:
        content = [source, number, row["record"]]
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:32]


def _unique(identity: str, seen: dict[int, int]) -> str:
    """The same record twice in one source has two identities: the second ends in ``-2``."""
    short = int(identity[:16], 16)
    seen[short] = count = seen.get(short, 0) + 1
    return identity if count == 1 else f"{identity}-{count}"


def _after_place(message: str) -> str:
    """A message without its leading file and number, which have columns of their own."""
    return message.split(": ", 1)[1] if ": " in message else message


def check_paths(root: Path, named: pa.Table) -> tuple[pa.Table, str]:
    """Look for every media under ``media_root``.

    Returns:
        The `MEDIA` table, and a hash of the files' sizes and times of change: when it is the same, so are they.

    Raises:
        UserError: ``media_root`` is no folder.
    """
    if not root.is_dir():
        raise UserError(f"media_root={str(root)!r} is not a folder; name the folder that media paths are relative to")
    real, stamps, rows = root.resolve(), hashlib.sha256(), []
    for item in named.to_pylist():
        row = item | {"bytes": 0, "problem": None, "detail": None}
        try:
            row |= _found(real, item["media"])
            stamps.update(f"{row['media']}\0{row['bytes']}\0{row.pop('stamp', '')}\0".encode())
        except (OSError, ValueError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
            row |= {"problem": "unreadable", "detail": str(error)[:200]}
        rows.append(row)
    return pa.Table.from_pylist(rows, MEDIA), stamps.hexdigest()


def _found(root: Path, media: str) -> dict[str, Any]:
    """The columns that come from a look at the disk."""
    target = (root / media).resolve()
    if not target.is_relative_to(root):
        return {"problem": "outside_root", "detail": f"leads to {target.name!r} outside media_root"}
    if not target.exists():
        return {"problem": "missing", "detail": "no such file under media_root"}
    if target.is_dir():
        frames = frame_files(target)
        if not frames:
            return {"problem": "not_a_file", "detail": "a folder that holds no frames"}
        if any(not f.resolve().is_relative_to(root) for f in frames):
            return {"problem": "outside_root", "detail": "a frame of it leads outside media_root"}
        stats = [f.stat() for f in frames]
        return {"kind": "frames", "bytes": sum(s.st_size for s in stats), "stamp": max(s.st_mtime_ns for s in stats)}
    if not target.is_file():
        return {"problem": "not_a_file", "detail": "neither a regular file nor a folder of frames"}
    if kind_of(root / media) is None:
        return {"problem": "unknown_suffix", "detail": "neither a video's nor an image's; rename it by what it is"}
    size = target.stat().st_size
    if size == 0:
        return {"problem": "empty", "detail": "the file has no bytes"}
    return {"bytes": size, "stamp": target.stat().st_mtime_ns}
