"""Run an ablation and record its tables beside what it took: wall clock, CPU, and memory over all of its processes.

    python benchmarks/ablation.py demo runs/demo/ablation -- make demo
    python benchmarks/ablation.py seeds runs/demo/seeds -- vxl ablate conf/demo/seeds.yaml
    python benchmarks/ablation.py systems runs/systems --tables results timings -- vxl ablate conf/ablate_systems.yaml

Memory is the largest sum of the proportional set sizes of the command and everything it started, sampled each second.
A shared machine is not always equally fast: the speed of a matrix product before and after says what a second is worth.
"""

import argparse
import json
import math
import resource
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import torch
from _record import record

TABLES = ("results", "comparisons", "timings")


class Memory(threading.Thread):
    """Watches a process and its descendants until it is told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.stopped = psutil.Process(pid), threading.Event()
        self.peak, self.processes = 0, 0

    def run(self) -> None:
        while not self.stopped.wait(1.0):
            sizes = []
            try:
                for process in [self.process, *self.process.children(recursive=True)]:
                    try:
                        sizes.append(process.memory_full_info().pss)
                    except psutil.NoSuchProcess:  # ended meanwhile
                        continue
            except psutil.NoSuchProcess:
                return
            if sum(sizes) > self.peak:
                self.peak, self.processes = sum(sizes), len(sizes)


def speed(size: int = 2048, seconds: float = 2.0) -> float:
    """GFLOP/s of a float32 matrix product with all threads."""
    a, count, start = torch.randn(size, size), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ a
        count += 1
    return round(count * 2 * size**3 / (time.perf_counter() - start) / 1e9, 1)


def rows(path: Path) -> list[dict[str, Any]]:
    """A table as JSON has it: no NaN."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in pq.read_table(path).to_pylist()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="results/NAME.json")
    parser.add_argument("out", type=Path, help="folder that the ablation writes")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, help="what of it (default: all)")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    args = parser.parse_args()
    before = speed()
    start = time.monotonic()
    process = subprocess.Popen(args.command)
    memory = Memory(process.pid)
    memory.start()
    code = process.wait()
    seconds = time.monotonic() - start
    memory.stopped.set()
    memory.join()
    if code:
        raise SystemExit(f"{' '.join(args.command)} ended with {code}: nothing is recorded")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = {
        "command": " ".join(args.command), "wall_s": round(seconds, 1), "user_s": round(used.ru_utime, 1),
        "peak_pss_mib": round(memory.peak / 2**20), "processes_at_peak": memory.processes,
        "matmul_gflops": [before, speed()],
    }  # fmt: skip
    print(json.dumps(took))
    tables = {name: rows(args.out / f"{name}.parquet") for name in args.tables}
    manifest = json.loads((args.out / "manifest.json").read_text())
    print("recorded in", record(args.name, {"took": took, **tables, "manifest": manifest}))


if __name__ == "__main__":
    main()
