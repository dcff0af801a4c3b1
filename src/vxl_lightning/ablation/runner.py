"""An ablation from its configuration to its report."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file

from vxl_lightning.ablation import measuring
from vxl_lightning.ablation.accounting import Counts
from vxl_lightning.ablation.cells import Store
from vxl_lightning.ablation.config import AblationConfig
from vxl_lightning.ablation.execution import Silent, Watcher, in_parallel, serially
from vxl_lightning.ablation.plan import Plan, Row, make_plan
from vxl_lightning.ablation.tables import BASELINES, RowInfo, caption, read_predictions, write_tables
from vxl_lightning.ablation.work import GAIN, MODEL, PREDICTIONS, Context
from vxl_lightning.reporting.manifest import manifest, write_manifest
from vxl_lightning.reporting.pictures import kept_picture, save_picture
from vxl_lightning.reporting.plots import fraction
from vxl_lightning.reporting.report import Picture, write_report


def store_of(config: AblationConfig) -> Store:
    """The cache an ablation works in."""
    return Store(Path(config.cache) if config.cache else Path(config.out) / "cache")


def threads_of(config: AblationConfig) -> int:
    """CPU threads of a step."""
    return config.threads or max(1, (os.cpu_count() or 1) // config.workers)


def run(config: AblationConfig, plan: Plan | None = None, watcher: Watcher | None = None) -> Path:
    """Run an ablation, or what is left of it.

    Every finished step is in the cache: run again after an interruption, it goes on with the step it was in,
    and the results are those of an uninterrupted run.

    Args:
        config: what to compare.
        plan: `make_plan` of it, where that has been made.
        watcher: told of the progress.

    Returns:
        The folder with ``results.parquet``, ``predictions.parquet``, ``comparisons.parquet``, ``timings.parquet``,
        ``table.md``, ``table.tex``, ``manifest.json``, ``report.html`` and ``models/``.

    Raises:
        UserError: see `make_plan`.
    """
    plan = plan or make_plan(config)
    watcher = watcher or Silent()
    context = Context(store_of(config), plan.places)
    steps = plan.steps
    if config.engine == "local":
        # Every variant waits for the warm-up, so it may have the machine to itself.
        with _threads(config.threads or os.cpu_count() or 1):
            serially([s for s in steps if s.kind == "warmup"], context, watcher)
        steps = [s for s in steps if s.kind != "warmup"]
    with _threads(threads_of(config)):
        if config.workers == 1 and config.engine == "local":
            serially(steps, context, watcher)
        else:
            in_parallel(steps, context, watcher, config.engine, config.workers, threads_of(config))
        # Alone, so that nothing else takes the time that is measured.
        serially(plan.measurements, context, watcher)
        return collect(config, plan)


def collect(config: AblationConfig, plan: Plan) -> Path:
    """Write tables and report from the finished steps."""
    store, out = store_of(config), Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    predictions = [
        answer | {"variant": row.name, "retention": row.retention, "seed": seed}
        for row in plan.rows
        for seed, step in row.evaluate.items()
        for answer in read_predictions(store.path(step) / PREDICTIONS)
    ]
    records = write_tables(out, [_info(row, store) for row in plan.rows], predictions)
    _link_models(plan, store, out / "models")
    timings = [
        {"variant": row.name, "retention": row.retention} | _read(store.path(row.measure) / measuring.TIMINGS)
        for row in plan.rows
    ]
    pq.write_table(pa.Table.from_pylist(timings), out / "timings.parquet")
    content = manifest(config, config.seeds, plan.plugins, plan.data)
    write_manifest(out / "manifest.json", content)
    write_report(
        out / "report.html",
        name=config.name,
        results=records,
        comparisons=pq.read_table(out / "comparisons.parquet").to_pylist(),
        timings=timings,
        pictures=_pictures(plan, store, out),
        manifest=content,
        caption=caption(records),
        baselines=BASELINES,
        predictions=predictions,
    )
    return out


def _link_models(plan: Plan, store: Store, folder: Path) -> None:
    """``models/<row>-seed<n>``: every tuned model under a name that ``vxl ask`` can be given."""
    folder.mkdir(exist_ok=True)
    for row in plan.rows:
        for seed, step in row.evaluate.items():
            link = folder / f"{row.name} {row.retention:g} seed {seed}".replace(" ", "-")
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(store.path(step.needs["model"]) / MODEL, folder))


def _info(row: Row, store: Store) -> RowInfo:
    gains = [
        _read(store.path(evaluate.needs["model"].needs["compressor"]) / GAIN)
        for evaluate in row.evaluate.values()
        if "compressor" in evaluate.needs["model"].needs
    ]

    def mean(name: str) -> float | None:
        return sum(g[name] for g in gains) / len(gains) if gains else None

    return RowInfo(
        variant=row.name,
        retention=row.retention,
        role=row.role,
        compressor=row.compressor["name"],
        init=row.variant.init,
        selector=row.variant.selector.get("name"),
        tuned=row.variant.tune,
        counts=Counts(**_read(store.path(row.measure) / measuring.COUNTS)),
        masker=row.variant.masker["name"] if gains else None,
        gain=mean("gain"),
        gain_previous=mean("gain_previous"),
    )


def _pictures(plan: Plan, store: Store, out: Path) -> list[Picture]:
    """What every compressed row kept of one test video, at the smallest budget; none without ``data.test_videos``."""
    smallest = min(row.retention for row in plan.rows)
    found: list[Picture] = []
    drawn: dict[bytes, int] = {}  # rows that kept the same cells share a picture
    for row in plan.rows:
        folder = store.path(row.measure)
        if row.retention != smallest or not (folder / measuring.FRAMES).is_file():
            continue
        seen = load_file(folder / measuring.FRAMES)
        source = load_file(folder / measuring.KEPT)["source"]
        alike = source.numpy().tobytes()
        if alike in drawn:
            before = found[drawn[alike]]
            found[drawn[alike]] = replace(before, name=f"{before.name}, {row.name}")
            continue
        drawn[alike] = len(found)
        (out / "pictures").mkdir(exist_ok=True)
        path = out / "pictures" / f"{row.name.replace(' ', '_')}.webp"
        save_picture(kept_picture(seen["frames"], source, seen["times"]), path)
        tokens = len(source[source >= 0].unique())
        cells = int((source >= 0).sum())
        note = f"{tokens} tokens for {cells:,} of {source.numel():,} cells, retention {fraction(row.retention)}"
        found.append(Picture(row.name, note, path))
    return found


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
