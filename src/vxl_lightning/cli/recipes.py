"""``vxl data prune`` and ``vxl data why``."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vxl_lightning.curation.recipe import Recipe

if TYPE_CHECKING:
    from vxl_lightning.curation.estimate import Cost


def add_arguments(commands: Any) -> None:
    """Add both to the sub-commands of ``vxl data``."""
    text = "run a pruning recipe: raw videos and annotations in, verified shards out, a reason for every sample"
    prune = commands.add_parser("prune", help=text, description=text)
    prune.add_argument("recipe", nargs="+", metavar="RECIPE|key=value", help="YAML files, and e.g. out=runs/pruned")
    prune.add_argument("--print-config", action="store_true", help="print the merged recipe, and stop")
    prune.add_argument("--dry-run", action="store_true", help="count, measure on a few files, estimate, and stop")
    text = "why was a sample kept or dropped"
    why = commands.add_parser("why", help=text, description=text)
    why.add_argument("folder", type=Path, help="folder that 'vxl data prune' wrote")
    why.add_argument("sample", help="a sample_id or its beginning, an id, or the path of a media file")


def prune(args: argparse.Namespace) -> int:
    """``vxl data prune``."""
    from vxl_lightning import config

    files, overrides = ([x for x in args.recipe if ("=" in x) == wanted] for wanted in (False, True))
    recipe: Recipe = config.load(Recipe, files, overrides)
    if args.print_config:
        print(config.to_yaml(recipe), end="")
        return 0
    from rich.console import Console

    from vxl_lightning.curation.prune import prune as run

    console = Console()
    if args.dry_run:
        from vxl_lightning.curation.estimate import estimate

        _print_estimate(console, estimate(recipe))
        return 0
    start = time.monotonic()
    with _Bars(console) as bars:
        out = run(recipe, bars)
    _print_result(console, out, time.monotonic() - start)
    return 0


class _Bars:
    """A progress bar for every stage, with the time that is left of it."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Bars":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage begins."""
        self.tasks[name] = self.progress.add_task(name, total=total, completed=done)

    def advance(self, name: str, items: int) -> None:
        """Some of it is done."""
        self.progress.advance(self.tasks[name], items)


def _print_result(console: Any, out: Path, seconds: float) -> None:
    from rich.table import Table

    from vxl_lightning.curation.schema import read_table
    from vxl_lightning.data.manifest import Manifest

    manifest, _ = Manifest.load(out)
    made = manifest.recipe or {}
    table = Table("rule", "mode", "threshold", "reached", "failed", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for rule in read_table(out / "rules.parquet").to_pylist():
        threshold = "" if rule["threshold"] is None else f"{rule['threshold']:.4g}"
        table.add_row(rule["rule"], rule["mode"], threshold, f"{rule['reached']:,}", f"{rule['failed']:,}")
    console.print(table)
    counts = made["counts"]
    _print_missing(console, out)
    console.print(
        f"{counts['read']:,} samples read = {counts['keep']:,} kept + {counts['drop']:,} dropped + "
        f"{counts['quarantine']:,} quarantined; tokens {made['tokens']['kept']:,} of {made['tokens']['read']:,}"
    )
    console.print(f"{out}: {manifest.num_media:,} media in {len(manifest.shards)} shard(s), {seconds:.0f} s")
    print(f"report: {out / 'report.html'}")


def _print_missing(console: Any, out: Path, shown: int = 10) -> None:
    """Media that are not there are the commonest mistake: a wrong folder shows at once."""
    from vxl_lightning.curation.schema import read_table

    media = read_table(out / "media.parquet", ["media", "problem"]).to_pylist()
    missing = [row["media"] for row in media if row["problem"] == "missing"]
    for path in missing[:shown]:
        console.print(f"missing: {path}", style="yellow", markup=False)
    if len(missing) > shown:
        console.print(f"missing: {len(missing) - shown:,} more, all in errors.parquet", style="yellow")


def _print_estimate(console: Any, costs: "list[Cost]") -> None:
    from rich.table import Table

    table = Table("stage", "items", "work", "estimate", box=None, header_style="bold", pad_edge=False)
    table.columns[3].justify = "right"
    for cost in costs:
        table.add_row(cost.stage, cost.items, cost.work, "" if cost.seconds is None else _duration(cost.seconds))
    console.print(table)
    console.print("nothing was written; estimates scale up a few files of this recipe on this machine", style="dim")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def why(args: argparse.Namespace) -> int:
    """``vxl data why``."""
    import json

    from vxl_lightning.curation.why import why as explain

    for report in explain(args.folder, args.sample):
        decision, media = report["decision"], report["media"] or {}
        place = f"{decision['source']} record {decision['record_number']}"
        print(f"{decision['sample_id']}  (id {decision['id']!r}, {place})")
        print(f"  {_verdict(decision)}")
        for score in report["scores"]:
            sign = "above" if score["higher_is_worse"] else "below"
            mode = "" if score["mode"] == "enforce" else f" ({score['mode']} only)"
            print(f"  {score['rule']}: {score['score']:.4g}, fails {sign} {score['threshold']:.4g}{mode}")
        known = [f"{name} {_short(value)}" for name, value in media.items() if value is not None and name in _FACTS]
        if known:
            print(f"  {decision['media']}: {', '.join(known)}")
        print("  " + json.dumps(report["record"], ensure_ascii=False)[:2000])
    return 0


_FACTS = (
    "bytes", "container", "codec", "width", "height", "duration", "fps", "variable_rate", "frames", "longest_gop",
    "audio",
)  # fmt: skip


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _verdict(decision: dict[str, Any]) -> str:
    if decision["decision"] == "keep":
        text = "kept" + (", although a rule would have dropped it (override)" if decision["overridden"] else "")
        return text + (f"; its video is stored as {decision['duplicate_of']}" if decision["duplicate_of"] else "")
    text = {"drop": "dropped", "quarantine": "quarantined"}[decision["decision"]] + f" by rule {decision['rule']}"
    if decision["score"] is not None:
        text += f": {decision['score']:.4g} against {decision['threshold']:.4g}"
    if decision["duplicate_of"]:
        text += f"; the one kept is {decision['duplicate_of']}"
    return text + (f"; {decision['detail']}" if decision["detail"] else "")
