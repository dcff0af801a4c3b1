"""``vxl ablate``: compare compressors, resumable step by step."""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vxl_lightning.cli.tables import print_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from vxl_lightning.ablation.cells import Step, Store
    from vxl_lightning.ablation.plan import Plan

HELP = "compare compressors: variants x budgets x seeds, with tables and a report"

_DEFAULT_SHARE = {"warmup": 4.0, "pretrain": 4.0, "tune": 2.0, "evaluate": 1.0, "measure": 0.3}
"""How long kinds of steps take relative to each other, until one of the kind has been timed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conf", help="YAML file of the ablation, such as conf/demo/ablate.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as seeds=[0,1,2] workers=2")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--dry-run", action="store_true", help="list cells, steps and what is cached, and stop")


def run(args: argparse.Namespace) -> int:
    """Run or continue an ablation; prints its table."""
    from rich.console import Console

    from vxl_lightning.ablation.config import AblationConfig
    from vxl_lightning.config import load, to_yaml

    config = load(AblationConfig, [args.conf], args.overrides)
    console = Console()
    if args.print_config:
        console.print(to_yaml(config), end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    from vxl_lightning.ablation.plan import make_plan
    from vxl_lightning.ablation.runner import run as run_ablation
    from vxl_lightning.ablation.runner import store_of

    plan, store = make_plan(config), store_of(config)
    if args.dry_run:
        _describe(console, plan, store, config.workers)
        return 0
    with _Bars(console, plan, store, config.workers) as bars:
        out = run_ablation(config, plan, bars)
    _show(console, out)
    return 0


def _describe(console: "Console", plan: "Plan", store: "Store", workers: int) -> None:
    from rich.table import Table

    table = Table(
        "row", "retention", "tokens", "seed", "steps (✓ cached)", box=None, header_style="bold", pad_edge=False
    )
    for row in plan.rows:
        for seed, step in row.evaluate.items():
            steps = [*step.upstream(), *([row.measure] if seed == min(row.evaluate) else [])]
            shown = " → ".join(f"{s.kind}{' ✓' if store.done(s) else ''}" for s in steps)
            table.add_row(row.name, f"{row.retention:.4g}", str(row.tokens), str(seed), shown)
    print_whole(console, table)
    everything = [*plan.steps, *plan.measurements]
    left = [s for s in everything if not store.done(s)]
    cached = len(everything) - len(left)
    console.print(
        f"{len(everything)} steps, {cached} cached, {len(left)} to do; {_estimate(left, store, workers)}",
        soft_wrap=True,
    )


def _estimate(left: "Sequence[Step]", store: "Store", workers: int) -> str:
    taken = {kind: store.seconds(kind) for kind in {s.kind for s in left}}
    unknown = sorted(kind for kind, seconds in taken.items() if seconds is None)
    if unknown:
        return f"time unknown until one of each kind has run ({', '.join(unknown)})"
    return f"about {_minutes(sum(taken[s.kind] or 0.0 for s in left) / workers)} by what such steps took before"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show(console: "Console", out: Any) -> None:
    import pyarrow.parquet as pq
    from rich.table import Table

    from vxl_lightning.ablation.statistics import chances
    from vxl_lightning.ablation.tables import caption, layout, read_predictions

    records = pq.read_table(out / "results.parquet").to_pylist()
    header, body = layout(records, chances(read_predictions(out / "predictions.parquet")))
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in body:
        table.add_row(*row)
    print_whole(console, table)
    console.print(caption(records), style="dim")
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


class _Bars:
    """Progress over all steps with the time left, and a bar for each step that runs."""

    def __init__(self, console: "Console", plan: "Plan", store: "Store", workers: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.plan = plan
        self.store = store
        self.workers = workers
        self.left = {s.key: s for s in [*plan.steps, *plan.measurements] if not store.done(s)}
        self.fraction: dict[str, float] = {}
        self.bars: dict[str, TaskID] = {}
        self.began = time.monotonic()
        self.known = self._timed()
        self.names = _names(plan)
        self.display: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[eta]}"),
            console=console,
        )

    def __enter__(self) -> "_Bars":
        self.display.start()
        self.whole = self.display.add_task("ablation", total=1.0, eta="")
        return self

    def __exit__(self, *_: object) -> None:
        self.display.stop()

    def started(self, step: "Step") -> None:
        if step.key in self.left:
            self.bars[step.key] = self.display.add_task(self.names[step.key], total=1.0, eta="")
            self._update()

    def progress(self, step: "Step", fraction: float) -> None:
        self.fraction[step.key] = fraction
        if step.key in self.bars and fraction > 0.02:
            elapsed = self.display.tasks[self.display.task_ids.index(self.bars[step.key])].elapsed or 0.0
            # The first of its kind tells what the kind takes before it is done.
            self.known.setdefault(step.kind, elapsed / fraction)
            left = _minutes(elapsed * (1 - fraction) / fraction)
            self.display.update(self.bars[step.key], completed=fraction, eta=f"{left} left")
        self._update()

    def finished(self, step: "Step", worked: bool) -> None:
        self.left.pop(step.key, None)
        self.fraction.pop(step.key, None)
        if step.key in self.bars:
            self.display.remove_task(self.bars.pop(step.key))
        self.known = self._timed()
        self._update()

    def _timed(self) -> dict[str, float]:
        """Seconds that each kind of step took, where one has been done."""
        taken = {kind: self.store.seconds(kind) for kind in _DEFAULT_SHARE}
        return {kind: seconds for kind, seconds in taken.items() if seconds is not None}

    def _update(self) -> None:
        known = self.known
        # A kind that was never timed is taken in proportion to those that were.
        unit = sum(known.values()) / sum(_DEFAULT_SHARE[k] for k in known) if known else None
        if unit is None:
            return
        left = sum(
            (known.get(s.kind) or unit * _DEFAULT_SHARE[s.kind]) * (1 - self.fraction.get(s.key, 0))
            for s in self.left.values()
        )
        spent, seconds = time.monotonic() - self.began, left / self.workers
        self.display.update(self.whole, completed=spent / max(spent + seconds, 1e-9), eta=f"{_minutes(seconds)} left")


def _names(plan: "Plan") -> dict[str, str]:
    """What a step is called: its kind and the cell it belongs to; steps of several cells by their kind alone."""
    names: dict[str, str] = {}
    for row in plan.rows:
        for seed, evaluate in row.evaluate.items():
            for step in [*evaluate.upstream(), row.measure]:
                name = f"{step.kind} {row.name} {row.retention:.4g} seed {seed}"
                names[step.key] = step.kind if step.kind == "warmup" else names.get(step.key, name)
    return names
