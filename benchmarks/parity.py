"""Every method beside its authors' code, on the same random input.

    python benchmarks/parity.py --originals DIR               # all, writes results/parity.json and docs/parity.md
    python benchmarks/parity.py --originals DIR --only dtd    # one method, repository or file; writes nothing

DIR holds a checkout of every repository, in a folder ``owner+name``; an original that needs other versions of its
packages has an interpreter of its own, which an environment variable names. The commands that make what is not there
are listed. Only a run of everything is recorded. Exits with 1 where something that should agree differs by more than
`LIMIT`, relative to the largest number of the original.
"""

import argparse
import json
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from _originals import Comparison, Original, originals
from _parity_page import figure, page, worst
from _record import record
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

LIMIT = 1e-4
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "parity.md"


class Incomparable(ValueError):
    """Two results of which no difference can be taken."""


def difference(ours: Tensor, theirs: Tensor) -> float:
    """``max |ours - theirs| / max |theirs|``.

    Raises:
        Incomparable: other shapes, or not numbers.
    """
    if ours.shape != theirs.shape:
        raise Incomparable(f"ours is {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
    ours, theirs = ours.double(), theirs.double()
    if not bool(ours.isfinite().all() and theirs.isfinite().all()):
        raise Incomparable("not everything is a finite number")
    gap, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    if gap and not size:
        raise Incomparable(f"theirs is zero everywhere, ours up to {gap:.3g}")
    return gap / size if gap else 0.0


def compare(comparison: Comparison, folder: Path, seeds: int) -> dict[str, Any]:
    """All shapes and seeds: ``runs``; ``worst``, which is None where something could not be compared; and ``ok``.

    What ``differs`` may have another shape, but nothing may fail.
    """
    runs: list[dict[str, Any]] = []
    for shape in comparison.shapes:
        run: dict[str, Any] = {"shape": "x".join(map(str, shape)), "worst": 0.0}
        for seed in range(seeds):
            try:
                # Each makes its own input: what one changes in place does not reach the other.
                ours = comparison.ours(comparison.make(shape, seed))
                with warnings.catch_warnings(), redirect_stdout(StringIO()):
                    warnings.simplefilter("ignore")
                    theirs = comparison.theirs(folder, comparison.make(shape, seed))
                run["worst"] = max(run["worst"], difference(ours, theirs))
            except Incomparable as e:
                run |= {"worst": None, "problem": f"seed {seed}: {e}"}
                break
            except Exception as e:  # an original may fail in any way without hiding the others
                run |= {"worst": None, "problem": f"seed {seed}: {type(e).__name__}: {e}", "failed": True}
                break
        runs.append(run)
    figures = [run["worst"] for run in runs]
    largest = None if None in figures else max(figures)
    agree = bool(comparison.differs) or (largest is not None and largest <= LIMIT)
    return {"worst": largest, "ok": agree and not any("failed" in run for run in runs), "runs": runs}


def compare_all(found: list[Original], parent: Path, only: str | None, seeds: int) -> Iterator[dict[str, Any]]:
    for original in found:
        repository = original.repository
        about = {
            "file": original.file,
            "repository": repository.name,
            "commit": repository.commit,
            "licence": repository.licence,
        }
        for c in original.comparisons:
            if only in (None, original.file, repository.name, c.method):
                row = about | {"kind": c.kind, "method": c.method, "what": c.what, "differs": c.differs}
                yield row | compare(c, parent / repository.folder, seeds)


def uncompared(found: list[Original]) -> list[dict[str, str]]:
    """This project's plugins that no file compares, with what they say of their origin."""
    from vxl_lightning import registry

    projects = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
    own = {tomllib.loads(path.read_text())["project"]["name"] for path in projects}
    compared = {(c.kind, c.method) for original in found for c in original.comparisons}
    rows = []
    for plugin in registry.installed():
        if plugin.distribution in own and plugin.kind != "encoder" and (plugin.kind, plugin.name) not in compared:
            origin = registry.get(plugin.kind, plugin.qualified).origin  # type: ignore[attr-defined]
            rows.append({"kind": plugin.kind, "method": plugin.name, "origin": origin})
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("kind", "method", "what", "shapes", "worst", "", title="relative difference from the original")
    for row in rows:
        verdict = "[green]ok" if row["ok"] and not row["differs"] else "differs" if row["ok"] else "[red]FAILS"
        table.add_row(
            row["kind"], row["method"], escape(row["what"]), str(len(row["runs"])), figure(worst(row)), verdict
        )
    console.print(table)
    for row in rows:
        for run in [run for run in row["runs"] if "problem" in run][:1]:
            console.print(f"{row['method']}, {row['what']}, {run['shape']}: {run['problem']}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--originals", type=Path, required=True, metavar="DIR", help="parent of the checkouts")
    parser.add_argument("--only", metavar="NAME", help="a method, a repository, or a file of benchmarks/originals")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    parent, console = args.originals.resolve(), Console()
    everything = originals()
    asked = [original for original in everything if original.named(args.only)]
    if not asked:
        parser.error(f"--only {args.only}: names no method, repository or file of benchmarks/originals")
    there = [original for original in asked if not original.repository.wanting(parent)]
    rows = list(compare_all(there, parent, args.only, args.seeds))
    if rows:
        show(rows, console)
    commands = [line for original in asked for line in original.repository.wanting(parent)]
    if commands:
        print(
            "not compared, because their checkouts or interpreters are not there; these commands make them:",
            *dict.fromkeys(commands),
            sep="\n  ",
        )
    elif args.only is None:
        measured = {"limit": LIMIT, "seeds": args.seeds, "comparisons": rows, "without": uncompared(everything)}
        path = record("parity", measured)
        PAGE.write_text(page(json.loads(path.read_text())))
        print("recorded in", path, "and", PAGE)
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


if __name__ == "__main__":
    main()
