"""What a recipe would cost, from a few files of its own: counted, timed and scaled up; nothing is left behind."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vxl_lightning.curation.annotations import check_paths, ingest
from vxl_lightning.curation.engine import read_rows
from vxl_lightning.curation.index import Index
from vxl_lightning.curation.looking import looking
from vxl_lightning.curation.probe import probe
from vxl_lightning.curation.prune import check, source_hashes
from vxl_lightning.curation.recipe import Recipe
from vxl_lightning.curation.schema import read_table, write_table

FILES, QUESTIONS = 8, 16
"""Media files and samples that are tried."""


@dataclass(frozen=True)
class Cost:
    """A stage: how many items, how much work in words, and estimated seconds on all workers."""

    stage: str
    items: str
    work: str
    seconds: float | None


def estimate(recipe: Recipe) -> list[Cost]:
    """Read the annotations, look for the media, try each stage on a few of them, and scale up.

    Media that repeat each other, or that a cheap rule drops, are counted as if they stayed: it is an upper bound.

    Raises:
        UserError: see `prune`.
    """
    check(recipe)
    source_hashes(recipe)
    workers = recipe.workers or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="vxl-estimate-") as folder:
        samples, named, media = (Path(folder) / f"{name}.parquet" for name in ("samples", "named", "media"))
        start = time.monotonic()
        taken = ingest(recipe, samples, named)
        table, _ = check_paths(Path(recipe.media_root), read_table(named))
        write_table(media, table)
        index = Index(samples, media)
        broken, lost = int((~index.usable).sum()), table["problem"].is_valid().to_numpy()
        rows = [
            Cost("annotations", f"{len(index):,} records of {len(taken)} file(s)", f"{broken:,} malformed", None),
            Cost(
                "media", f"{len(table):,} files", f"{int(lost.sum()):,} missing or unusable", time.monotonic() - start
            ),
        ]
        sound = table.filter(pa.array(~lost))
        if len(sound):
            rows += _media_costs(recipe, sound, workers)
        rows += _question_costs(recipe, samples, index, workers)
    return rows


def _media_costs(recipe: Recipe, sound: pa.Table, workers: int) -> list[Cost]:
    sizes = sound["bytes"].to_numpy()
    total = int(sizes.sum())
    order = np.argsort(sizes, kind="stable")
    some = sound.take(order[np.unique(np.linspace(0, len(order) - 1, FILES).astype(int))])
    share = total / max(int(some["bytes"].to_numpy().sum()), 1)
    probe(some.slice(0, 1), recipe.probe, recipe.media_root)  # starts the helper process
    probed, seconds = _timed(lambda: probe(some, recipe.probe, recipe.media_root))
    rows = [Cost("probe", f"{len(sound):,} files", _bytes(total), seconds * share / workers)]
    good = probed.append_column("kind", some["kind"]).filter(probed["problem"].is_null())
    if len(good):
        table = good.select(["media", "kind", "keyframe_times", "duration"])
        looking(table.slice(0, 1), recipe.frames, recipe.media_root)
        _, seconds = _timed(lambda: looking(table, recipe.frames, recipe.media_root))
        frames = float(good["frames"].to_numpy().sum()) * share
        rows.append(Cost("frames", f"{len(sound):,} files", f"about {frames:,.0f} frames", seconds * share / workers))
    rows.append(Cost("write", "shards", f"at most {_bytes(total)}", total / _copy_rate(recipe)))
    return rows


def _question_costs(recipe: Recipe, samples: Path, index: Index, workers: int) -> list[Cost]:
    rules = recipe.necessity
    if rules.blind.mode == "off" and rules.misaligned.mode == "off":
        return []
    from vxl_lightning.curation import necessity

    usable = np.flatnonzero(index.usable)
    if not len(usable):
        return []
    places = usable[np.unique(np.linspace(0, len(usable) - 1, QUESTIONS).astype(int))]
    some = pa.concat_tables([read_rows(samples, row, row + 1) for row in places.tolist()])
    necessity.blind(some.slice(0, 1), rules)  # loads the model
    _, seconds = _timed(lambda: necessity.blind(some, rules))
    scale = len(usable) / len(some) / workers
    rows = [Cost("blind", f"{len(usable):,} samples", "one pass each", seconds * scale)]
    if rules.model:
        media = pa.array([index.paths[index.media[row]] for row in places.tolist()], pa.string())
        kinds = pa.array([index.table["kind"][int(index.media[row])].as_py() for row in places.tolist()], pa.string())
        some = some.drop_columns(["media", "kind"]).append_column("media", media).append_column("kind", kinds)
        _, seconds = _timed(lambda: necessity.ladder(some, rules, Path(recipe.media_root), recipe.seed))
        rows.append(Cost("ladder", f"at most {len(usable):,} samples", "four passes each", seconds * scale))
    return rows


def _timed(work: Callable[[], pa.Table]) -> tuple[pa.Table, float]:
    start = time.monotonic()
    result = work()
    return result, time.monotonic() - start


def _copy_rate(recipe: Recipe) -> float:
    """Bytes a second that the disk of the result takes, flushed."""
    parent = next(p for p in [Path(recipe.out).absolute(), *Path(recipe.out).absolute().parents] if p.is_dir())
    content = os.urandom(32 << 20)
    with tempfile.NamedTemporaryFile(dir=parent, prefix=".vxl-estimate-") as file:
        start = time.monotonic()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return len(content) / max(time.monotonic() - start, 1e-9)


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
