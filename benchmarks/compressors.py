"""Time, memory and growth of every installed compressor, and its time against its authors' code.

    python benchmarks/compressors.py --originals DIR       # everything, writes results/compressors.json
    python benchmarks/compressors.py --only dts dtd        # these methods; writes nothing
    python benchmarks/compressors.py --quick               # tiny sizes; writes nothing

The video is made of scenes of `SCENE` frames whose cells have something in common; importance and question are random.
A method keeps a sixteenth of the cells, or the fraction nearest to it that it can. Each measurement is a process of its
own on one thread: median milliseconds of ``forward`` (in inference, after a first one) and how many plain copies of the
features take as long; peak memory, and what was held before. A process that takes longer than ``--limit`` seconds is
ended, and larger sizes of the same grid are not tried. Growth is the exponent of the time over the number of frames.
Against its authors' code a method is timed in turn, on the same input, on the CPU, both as `benchmarks/originals` calls
them; the ratio is theirs over ours: above 1 ours is faster.
"""

import argparse
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _originals import Comparison, Original, originals
from _record import measure, own_peak_mib, record

from vxl_lightning import registry
from vxl_lightning.tokens import VideoGrid

RETENTION = 1 / 16
SCENE, QUESTION = 16, 20
FRAMES = (32, 256, 2048)

Size = tuple[int, int, int, int]
"""Frames, rows, columns, channels."""
SIZES: dict[str, list[Size]] = {
    "cuda": [(frames, 27, 27, 1152) for frames in FRAMES],
    "cpu": [*((frames, 14, 14, 256) for frames in FRAMES), (32, 27, 27, 1152)],
    "quick": [(frames, 8, 8, 64) for frames in (8, 32, 128)],
}


def retentions(cells: int) -> Iterator[float]:
    """`RETENTION`, then others, the nearest by ratio first: whole tokens of one frame or of four, small fractions."""
    yield RETENTION
    whole = {n / parts for parts in (cells, 4 * cells, *range(1, 65)) for n in range(1, parts + 1)}
    yield from sorted(whole, key=lambda retention: abs(math.log(retention / RETENTION)))


def nearest(name: str, size: Size) -> float:
    """The retention to measure a method at.

    Raises:
        ValueError: it can be built at none; what it says of `RETENTION`.
    """
    frames, height, width, dim = size
    refused: ValueError | None = None
    for retention in retentions(height * width):
        try:
            with torch.device("meta"):
                module = registry.build("compressor", {"name": name, "retention": retention}, dim=dim)
            module.num_tokens(frames, height, width)
            return retention
        except ValueError as e:
            refused = refused or e
    assert refused is not None
    raise refused


def video(size: Size, device: str, importance: bool) -> VideoGrid:
    """Made in place, scene by scene, so that the features are the most memory that making them takes."""
    frames, height, width, dim = size
    draw = torch.Generator(device).manual_seed(0)
    features = torch.empty(1, *size, device=device).normal_(generator=draw)
    shared = torch.randn(dim, generator=draw, device=device)
    for first in range(0, frames, SCENE):
        scene = torch.randn(height, width, dim, generator=draw, device=device)
        features[:, first : first + SCENE].mul_(0.5).add_(scene).add_(shared, alpha=2)
    weight = torch.rand(1, frames, height, width, generator=draw, device=device) if importance else None
    return VideoGrid.of(features, importance=weight)


def timed(work: Callable[[], Any], device: str, repeats: int, within: float) -> list[float]:
    """Milliseconds of each run after a first one; of the first one where two would take longer than ``within`` s."""
    spent: list[float] = []
    while len(spent) <= repeats and (not spent or sum(spent) + spent[-1] < within * 1000):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(1000 * (time.perf_counter() - start))
    return spent[1:] or spent


@torch.inference_mode()
def run(name: str, size: Size, device: str, repeats: int, within: float) -> dict[str, Any]:
    """One method at one size in this process."""
    retention = nearest(name, size)
    torch.manual_seed(0)
    module = registry.build("compressor", {"name": name, "retention": retention}, dim=size[-1]).eval().to(device)
    grid = video(size, device, module.needs_importance)
    query = torch.randn(1, QUESTION, size[-1], device=device) if module.needs_query else None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loaded = peak(device)
    tokens: list[int] = []
    spent = timed(lambda: tokens.append(len(module(grid, query).features)), device, repeats, within)
    most = peak(device)
    copy = torch.empty_like(grid.features)
    copying = timed(lambda: copy.copy_(grid.features), device, 5, within)
    return {
        "retention": retention, "tokens": tokens[0], "ms": statistics.median(spent), "runs_ms": spent,
        "copies": statistics.median(spent) / statistics.median(copying), "peak_mib": most, "before_mib": loaded,
        "features_mib": grid.features.nbytes / 2**20,
    }  # fmt: skip


def peak(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else own_peak_mib()


def beside(comparison: Comparison, shape: tuple[int, ...], folder: Path, repeats: int, within: float) -> dict[str, Any]:
    """Ours and theirs in turn in this process, after a first run of each."""
    given = comparison.make(shape, 0)
    sides = {"ours": lambda: comparison.ours(given), "theirs": lambda: comparison.theirs(folder, given)}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name in sides if turn % 2 else reversed(sides):
            start = time.perf_counter()
            sides[name]()
            spent[name].append(1000 * (time.perf_counter() - start))
        if sum(map(sum, spent.values())) > within * 1000:
            break
    runs = {f"{name}_ms": ms[1:] or ms for name, ms in spent.items()}
    ratio = statistics.median(t / o for o, t in zip(runs["ours_ms"], runs["theirs_ms"], strict=True))
    return {"ratio": ratio, **runs}


def attempt(limit: float, *arguments: str) -> dict[str, Any]:
    """A measurement in a process of its own, or why there is none."""
    try:
        return measure(__file__, *arguments, "--limit", str(limit), timeout=limit)
    except subprocess.TimeoutExpired:
        return {"skipped": f"took longer than {limit:g} s"}
    except subprocess.CalledProcessError as e:
        if e.returncode < 0:
            return {"skipped": f"ended by signal {-e.returncode}, as when memory runs out"}
        return {"skipped": e.stderr.strip().splitlines()[-1]}


def sweep(name: str, sizes: list[Size], device: str, args: argparse.Namespace) -> dict[str, Any]:
    """All sizes of a method, smaller ones first, and how its time grows on each grid."""
    rows: list[dict[str, Any]] = []
    grown: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for size in sizes:
        row: dict[str, Any] = {"frames": size[0], "grid": "x".join(map(str, size[1:]))}
        same = grown.setdefault(size[1:], [])
        if same and "skipped" in same[-1]:
            row["skipped"] = "a smaller size was"
        else:
            given = ("--run", name, *map(str, size), "--device", device, "--repeats", str(args.repeats))
            row |= attempt(args.limit, *given)
        same.append(row)
        rows.append(row)
        print(name, json.dumps({k: v for k, v in row.items() if k != "runs_ms"}), flush=True)
    growth = {}
    for shape, same in grown.items():
        done = [row for row in same if "ms" in row]
        if len(done) > 1:
            frames, ms = [row["frames"] for row in done], [min(row["runs_ms"]) for row in done]
            exponent = float(np.polyfit(np.log(frames), np.log(ms), 1)[0])
            growth["x".join(map(str, shape))] = {"exponent": exponent, "from": frames[0], "to": frames[-1]}
    if growth:
        print(name, "growth", json.dumps(growth), flush=True)
    return {"growth": growth, "sizes": rows}


def against(name: str, found: list[Original], parent: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every timed comparison of a method whose checkout is there."""
    rows = []
    for original in found:
        for number, comparison in enumerate(original.comparisons):
            if (comparison.kind, comparison.method) != ("compressor", name) or original.repository.wanting(parent):
                continue
            shapes = comparison.shapes[:1] if args.quick and comparison.timed else comparison.timed
            for shape in shapes:
                row: dict[str, Any] = {"repository": original.repository.name, "what": comparison.what}
                row |= {"shape": "x".join(map(str, shape))}
                given = ("--beside", original.file, str(number), *map(str, shape), "--originals", str(parent))
                row |= attempt(args.limit, *given, "--repeats", str(args.repeats))
                rows.append(row)
                print(name, json.dumps({k: v for k, v in row.items() if not k.endswith("_ms")}), flush=True)
    return rows


def here(args: argparse.Namespace) -> dict[str, Any]:
    """The measurement that a process was started for; half of its time is for measuring."""
    torch.set_num_threads(1)
    if args.run:
        name, *numbers = args.run
        frames, height, width, dim = map(int, numbers)
        return run(name, (frames, height, width, dim), args.device, args.repeats, args.limit / 2)
    file, number, *shape = args.beside
    original = next(o for o in originals() if o.file == file)
    folder = args.originals / original.repository.folder
    return beside(original.comparisons[int(number)], tuple(map(int, shape)), folder, args.repeats, args.limit / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these methods")
    parser.add_argument("--originals", type=Path, metavar="DIR", help="parent of the checkouts (see parity.py)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, also of what is timed against originals")
    parser.add_argument("--limit", type=float, default=120, metavar="S", help="seconds that one measurement may take")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--run", nargs=5, metavar=("NAME", "T", "H", "W", "D"), help="one measurement, here")
    parser.add_argument("--beside", nargs="+", metavar="FILE NUMBER SHAPE", help="one comparison, here")
    args = parser.parse_args()
    if args.run or args.beside:
        print(json.dumps(here(args)))
        return
    plugins = registry.installed("compressor")
    names = [p.name for p in plugins if registry.get("compressor", p.name).stage == "tokens"]  # type: ignore[attr-defined]
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"--only {' '.join(sorted(unknown))}: installed are {', '.join(names)}")
    sizes = SIZES["quick" if args.quick else args.device]
    found = originals() if args.originals else []
    measured: dict[str, Any] = {}
    for name in args.only or names:
        measured[name] = sweep(name, sizes, args.device, args)
        if found:
            measured[name]["originals"] = against(name, found, args.originals.resolve(), args)
    if not args.quick and not args.only:
        settings = {"retention": RETENTION, "limit_s": args.limit, "repeats": args.repeats, "device": args.device}
        print("recorded in", record("compressors", {"settings": settings, "methods": measured}))


if __name__ == "__main__":
    main()
