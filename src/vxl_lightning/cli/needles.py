"""``vxl eval`` of a configuration of needles at length; a part of `cli.eval`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from vxl_lightning.evaluation.needles.grid import Table as Cells
    from vxl_lightning.evaluation.needles.runner import Result


def run(args: argparse.Namespace) -> int:
    """Plant, look, ask and print."""
    from rich.console import Console

    from vxl_lightning.config import load, to_yaml
    from vxl_lightning.errors import UserError
    from vxl_lightning.evaluation.needles.config import NeedleEvaluationConfig

    if args.data_root:
        raise UserError("--data-root is for benchmarks; needles take a long video of your own as haystack=FILE")
    config = load(NeedleEvaluationConfig, [args.conf], args.overrides)
    console = Console()
    if args.print_config:
        console.print(to_yaml(config), end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    count, rows = len(config.lengths) * len(config.depths) * config.per_cell, len(config.rows)
    frames = sum(config.lengths) * len(config.depths) * config.per_cell
    console.print(f"{count:,} haystacks of {frames:,} frames in all, {rows} row{'s' * (rows > 1)}", style="dim")
    from transformers.utils import logging as transformers_logging

    from vxl_lightning.cli.eval import bars
    from vxl_lightning.evaluation.models import fitted
    from vxl_lightning.evaluation.needles import haystack
    from vxl_lightning.evaluation.needles.runner import run as evaluate

    transformers_logging.disable_progress_bar()
    # What cannot be is refused here, whether it is about to be done or not.
    own = fitted(Path(config.model), config.rows, precision=config.precision)
    haystack.check(config, config.rate(own.fps))
    if args.dry_run:
        return 0
    with bars(console) as progress:
        tasks = {stage: progress.add_task(stage, total=None) for stage in ("haystack", "needles")}

        def tell(stage: str, done: int, total: int) -> None:
            progress.update(tasks[stage], completed=done, total=total)

        result = evaluate(config, own, tell)
    _show(console, result)
    return 0


def _show(console: "Console", result: "Result") -> None:
    from rich.markup import escape

    from vxl_lightning.evaluation.needles.grid import GRIDS, TITLES, costs, depth_by_length, summary, why_not

    for row in dict.fromkeys(g["row"] for g in result.grid):
        console.print(f"\n[bold]{escape(row)}[/]")
        _print(console, summary(result.grid, row))
        for task, score in GRIDS:
            if any((g["row"], g["task"], g["score"]) == (row, task, score) for g in result.grid):
                console.print(f"{task}, {TITLES.get(score, score)}", style="dim")
                _print(console, depth_by_length(result.grid, row, task, score))
    for reason in why_not(result.records):
        console.print(f"[yellow]does not fit[/] {escape(reason)}", soft_wrap=True)
    console.print("\n[bold]costs[/], medians of a haystack and all its questions")
    _print(console, costs(result.costs))
    console.print(f"{result.looked:,} haystacks looked at, {result.known:,} known before", style="dim")
    console.print(f"results: {result.out}, with needle.md, needle.png and needle.html", soft_wrap=True)


def _print(console: "Console", cells: "Cells") -> None:
    from rich.markup import escape
    from rich.table import Table

    from vxl_lightning.cli.tables import print_whole

    header, body = cells
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in body:
        table.add_row(*(escape(cell) for cell in line))
    print_whole(console, table)
