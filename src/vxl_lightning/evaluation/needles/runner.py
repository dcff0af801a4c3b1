"""Needles at length, from the configuration to the tables."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vxl_lightning.ablation import identity
from vxl_lightning.ablation.accounting import PeakMemory
from vxl_lightning.data.synth import shapes
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation import spans
from vxl_lightning.evaluation.embedded import refusal
from vxl_lightning.evaluation.models import Fitted, fitted, provenances
from vxl_lightning.evaluation.needles import asking, grid, haystack, plant, road
from vxl_lightning.evaluation.needles.asking import Asked, Record
from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig
from vxl_lightning.evaluation.needles.haystack import Haystack
from vxl_lightning.evaluation.needles.plant import Planted
from vxl_lightning.evaluation.replies import hashed
from vxl_lightning.evaluation.store import Store
from vxl_lightning.reporting.manifest import manifest, write_manifest

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """A finished evaluation: its folder, its tables, and how many haystacks were looked at in this run."""

    out: Path
    records: list[Record]
    grid: list[Record]
    costs: list[Record]
    looked: int
    known: int


def run(
    config: NeedleEvaluationConfig,
    own: Fitted | None = None,
    tell: Tell = lambda stage, done, total: None,
) -> Result:
    """Look at every planted haystack that was not looked at before, ask about it, and write the tables.

    What every row answers is stored haystack by haystack: run again after an interruption, it goes on where it was,
    and the tables are those of an uninterrupted run.

    Args:
        config: what is planted and who is asked.
        own: `fitted` of its model and rows, where that has been done.
        tell: told a stage (``haystack`` or ``needles``), what of it is done, and how much it is.

    Raises:
        UserError: see `fitted` and `haystack`.
    """
    own = fitted(Path(config.model), config.rows, precision=config.precision) if own is None else own
    fps = config.fps or own.fps
    if fps is None:
        raise UserError(f"model={config.model} does not record its frames a second; give them, such as fps=4")
    cache = Path(config.cache or Path(config.out) / "cache")
    hay = _haystack(config, cache, fps, lambda done, total: tell("haystack", done, total))
    stores = {name: Store(cache / "needles", hashed(_identity(own, name))) for name in own.models}
    group = next(iter(own.models.values())).prompt.frames_per_time
    records: list[Record] = []
    costs: list[Record] = []
    planned, looked, known = plant.cells(config), 0, 0
    for number, cell in enumerate(planned):
        planted = plant.plant(config, cell, hay.frames, fps, group)
        key = hashed({"haystack": hay.fingerprint, "fps": fps, "tokens": config.max_new_tokens} | asdict(planted))
        missing = [name for name, store in stores.items() if key not in store.known]
        if missing:
            for name, found in _look(own, missing, hay, planted, config.max_new_tokens):
                stores[name].add(key, found)
        looked, known = looked + bool(missing), known + (not missing)
        for name, store in stores.items():
            where = {"row": name, "length": cell.length, "depth": cell.depth, "haystack": cell.name}
            records += [where | record for record in store.known[key]["records"]]
            costs.append(where | store.known[key]["costs"])
        tell("needles", number + 1, len(planned))
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    cells = grid.write(out, config.name, records, costs)
    content = manifest(config, [config.seed], provenances(config.rows), {"haystack": hay.fingerprint})
    write_manifest(out / "manifest.json", content | {"haystack": str(hay.path), "fps": fps, "frames": hay.frames})
    return Result(out, records, cells, costs, looked, known)


def _haystack(config: NeedleEvaluationConfig, cache: Path, fps: float, tell: Callable[[int, int], None]) -> Haystack:
    longest = max(config.lengths)
    if config.haystack:
        return haystack.given(Path(config.haystack), fps, longest)
    return haystack.made(cache / "haystacks", config.footage, longest, fps, config.seed, tell)


def _look(
    own: Fitted, names: list[str], hay: Haystack, planted: Planted, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each row answers about a planted haystack, and what it cost."""
    size = planted.cell.length, *own.encoder.grid
    why = {name: refusal(own.models[name].compressor, *size) for name in names}
    device = own.models[names[0]].device
    able = {name: own.models[name] for name in names if not why[name]}
    with PeakMemory(device) as watching:
        seen = road.watch(hay, planted, own.encoder, able.values()) if able else {}
    for name in names:
        asked, milliseconds, peak = Asked(), dict[str, float](), watching.mib
        if name in able:
            watched = seen[able[name].compressor]
            with PeakMemory(device) as answering:
                asked = asking.ask(able[name], watched, planted, hay.fps, most)
            milliseconds, peak = watched.spent | _added(watched.spent, asked.spent), max(peak, answering.mib)
        else:
            asked.records = [asking.unasked(planted, posed, hay.fps, why[name]) for posed in planted.questions]
        costs = {f"{stage}_ms": ms for stage, ms in milliseconds.items()} | {"peak_mib": peak}
        yield name, {"records": asked.records, "costs": costs}


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {stage: a.get(stage, 0.0) + ms for stage, ms in b.items()}


def _identity(own: Fitted, name: str) -> dict[str, Any]:
    """What a row's answers depend on, beside the haystack and what is planted in it."""
    modules = (plant, road, asking, shapes, spans)
    code = hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in modules)).hexdigest()[:16]
    return own.depends[name] | {"environment": identity.environment(), "needles": code}
