"""How fast the stages were, beside what the disk and the decoder can do at all, measured in the same run."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vxl_lightning.curation.prune import State
from vxl_lightning.curation.recipe import Recipe
from vxl_lightning.errors import UserError

_SAMPLE_BYTES = 64 << 20
_SAMPLE_VIDEOS = 3


def throughput(spent: Mapping[str, tuple[int, float]], recipe: Recipe, state: State) -> list[dict[str, Any]]:
    """A row for every stage that did something in this run.

    Args:
        spent: stage -> (items, seconds).
    """
    rows = []
    for stage, (items, seconds) in spent.items():
        amount, unit, limit, limit_rate = float(items), "records", None, None
        if stage == "samples":
            amount = len(state.index)
        elif stage in ("probe", "write"):
            if stage == "probe":
                amount = float(np.nansum(state.index.aligned(state.probed, "bytes")))
                limit, limit_rate = "reading, from memory where the system has it", _reading(recipe, state)
            else:
                limit, limit_rate = "plain copy and fsync", _copying(recipe, state)
            amount, unit = amount / 1e6, "MB"
        elif stage == "frames":
            amount, unit = _frames(state), "frames"
            limit, limit_rate = "bare decoding of some of them, on all workers", _decoding(recipe, state)
        rate = amount / seconds if seconds else 0.0
        rows.append(
            {
                "stage": stage, "items": items, "seconds": seconds, "unit": unit, "rate": rate, "limit": limit,
                "limit_rate": limit_rate, "of_limit": rate / limit_rate if limit_rate else None,
            }
        )  # fmt: skip
    return rows


def _some(state: State) -> list[Path]:
    """Media that were looked at or, where none were, probed: a few, evenly spaced."""
    table = state.frames if len(state.frames) else state.probed
    names = table.filter(table["problem"].is_null())["media"].to_pylist()
    return (
        [Path(names[i]) for i in np.unique(np.linspace(0, len(names) - 1, _SAMPLE_VIDEOS * 8).astype(int))]
        if names
        else []
    )


def _reading(recipe: Recipe, state: State) -> float:
    """MB/s of reading files from end to end; what was read just now comes from memory."""
    done, start = 0, time.perf_counter()
    for name in _some(state):
        path = Path(recipe.media_root) / name
        if path.is_file() and done < _SAMPLE_BYTES:
            with path.open("rb") as handle:
                done += len(handle.read(_SAMPLE_BYTES - done))
    return done / 1e6 / max(time.perf_counter() - start, 1e-9)


def _copying(recipe: Recipe, state: State) -> float:
    """MB/s of writing one file of the same bytes beside the result and flushing it."""
    content = bytearray()
    for shard in sorted(Path(recipe.out).glob("shard-*.tar")):
        with shard.open("rb") as handle:
            content += handle.read(_SAMPLE_BYTES - len(content))
    folder = Path(recipe.out) / ".copy"
    folder.mkdir(exist_ok=True)
    try:
        source, target = folder / "a", folder / "b"
        source.write_bytes(content)
        start = time.perf_counter()
        shutil.copyfile(source, target)
        with target.open("rb") as handle:
            os.fsync(handle.fileno())
        return len(content) / 1e6 / (time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)


def _frames(state: State) -> float:
    """Frames of the videos that were looked at."""
    looked = state.index.places(state.frames)
    return float(np.nansum(state.index.aligned(state.probed, "frames")[looked]))


def _decoding(recipe: Recipe, state: State) -> float | None:
    """Frames a second, of the videos' own, when they are decoded for nothing else, times the workers."""
    from vxl_lightning.curation.frames import SIDE, schedule
    from vxl_lightning.data.decoding import stream_frames

    known = {
        row["media"]: row for row in state.probed.select(["media", "frames", "duration", "keyframe_times"]).to_pylist()
    }
    done, seconds = 0, 0.0
    for name in _some(state)[::_SAMPLE_VIDEOS]:
        path, facts = Path(recipe.media_root) / name, known[str(name)]
        if not path.is_file():
            continue
        _, times = schedule(facts["keyframe_times"], facts["duration"], recipe.frames)
        start = time.perf_counter()
        try:
            for _ in stream_frames(path, times, (SIDE, SIDE), 128):
                pass
        except UserError:  # containers may promise a little more than decoders find
            continue
        done, seconds = done + facts["frames"], seconds + time.perf_counter() - start
    workers = recipe.workers or os.cpu_count() or 1
    return done / seconds * workers if seconds else None
