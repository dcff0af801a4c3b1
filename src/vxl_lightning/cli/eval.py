"""``vxl eval``: a model on benchmarks from local copies, or on needles at length; resumable."""

import argparse
from typing import TYPE_CHECKING, Any

from vxl_lightning.cli.tables import print_whole

if TYPE_CHECKING:
    from rich.console import Console

    from vxl_lightning.evaluation.asking import Ledger
    from vxl_lightning.evaluation.runner import Chosen

HELP = "evaluate a model on benchmarks from local copies, or on needles at length"
SHOWN = 20
"""Problems that are printed of each benchmark; the manifest holds all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conf", help="YAML file of the evaluation, such as conf/benchmarks.yaml or conf/needle.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as model=hf:FOLDER max_frames=32")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the benchmarks' folders (data_root=DIR)")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked and what is missing, and stop")


def run(args: argparse.Namespace) -> int:
    """Ask, judge and print; returns 2 where files are missing and ``allow_missing`` is not set."""
    from rich.console import Console

    from vxl_lightning.config import load, read, to_yaml
    from vxl_lightning.errors import UserError
    from vxl_lightning.evaluation.config import EvaluationConfig

    if read(args.conf).get("kind") == "needles":
        from vxl_lightning.cli import needles

        return needles.run(args)
    given = [f"data_root={args.data_root}"] if args.data_root else []
    config = load(EvaluationConfig, [args.conf], [*args.overrides, *given])
    console = Console()
    if args.print_config:
        console.print(to_yaml(config), end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    from vxl_lightning.evaluation.runner import choose
    from vxl_lightning.evaluation.runner import run as evaluate

    chosen = choose(config)
    lost = _describe(console, chosen)
    if args.dry_run:
        return 0
    if lost and not config.allow_missing:
        raise UserError(
            f"{lost} questions cannot be asked, see above; fetch what is missing, or set allow_missing=true to leave "
            "them out, which the results say"
        )
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    with bars(console) as progress:
        ids = {c.name: progress.add_task(c.name, total=len(c.questions) * len(config.rows)) for c in chosen}
        out, ledger = evaluate(config, chosen, tell=lambda name, done: progress.advance(ids[name], done))
    _show(console, out, ledger)
    return 0


def _describe(console: "Console", chosen: "list[Chosen]") -> int:
    """The benchmarks and all that is missing; returns the questions lost."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("benchmark", "questions", "videos", "cannot be asked", box=None, header_style="bold", pad_edge=False)
    for c in chosen:
        lost = sum(p.questions for p in c.problems)
        table.add_row(c.name, f"{len(c.questions):,}", f"{len({q.video for q in c.questions}):,}", f"{lost:,}")
    console.print(table)
    for c in chosen:
        for p in c.problems[:SHOWN]:
            costs = f"{p.questions} question{'s' * (p.questions != 1)}"
            console.print(f"[yellow]{c.name}[/] {escape(p.where)}: {escape(p.reason)} ({costs})", soft_wrap=True)
        if len(c.problems) > SHOWN:
            console.print(f"[yellow]{c.name}[/] and {len(c.problems) - SHOWN:,} more", soft_wrap=True)
    return sum(p.questions for c in chosen for p in c.problems)


def bars(console: "Console") -> Any:
    """Progress with the time that is left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    left = TimeRemainingColumn()
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left, console=console
    )


def _show(console: "Console", out: Any, ledger: "Ledger") -> None:
    import pyarrow.parquet as pq
    from rich.markup import escape
    from rich.table import Table

    from vxl_lightning.evaluation.results import layout

    header, body = layout(*(pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("results", "groups")))
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in body:
        table.add_row(*(escape(cell) for cell in row))
    print_whole(console, table)
    for video, reason in list(ledger.failed.items())[:SHOWN]:
        console.print(f"[yellow]not shown[/] {escape(video)}: {escape(reason)}", soft_wrap=True)
    for name, reasons in ledger.refused.items():
        for reason, n in list(reasons.items())[:SHOWN]:
            count = f"{n:,} question{'s' * (n != 1)}"
            console.print(f"[yellow]cannot be asked[/] {escape(name)}, {count}: {escape(reason)}", soft_wrap=True)
    told = f"{ledger.asked:,} replies asked, {ledger.known:,} known before"
    if ledger.asked:
        told += f", {ledger.model / ledger.asking:.0%} of the asking inside the model, decoding with it"
    console.print(told, style="dim", soft_wrap=True)
    console.print(f"results: {out}", soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
