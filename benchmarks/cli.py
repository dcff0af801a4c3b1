"""Start-up: CPU seconds of ``vxl --help`` over a bare interpreter's (limit: 0.3 s more).

python benchmarks/cli.py
"""

import resource
import statistics
import subprocess
import sys

from _record import record

RUNS = 11


def cpu_seconds(command: list[str]) -> float:
    """Median CPU seconds (user and system) of a whole process."""
    spent = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent)


def main() -> None:
    bare = cpu_seconds([sys.executable, "-c", "pass"])
    help_text = cpu_seconds([sys.executable, "-m", "vxl_lightning.cli.main", "--help"])
    figures = {"bare_s": bare, "help_s": help_text, "over_bare_s": help_text - bare, "limit_s": 0.3, "runs": RUNS}
    print(figures)
    record("cli", figures)


if __name__ == "__main__":
    main()
