"""What the benchmarks share: one measurement in its own process, and the record of a run."""

import json
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def measure(script: str, *arguments: str, timeout: float | None = None) -> dict[str, Any]:
    """Run ``script arguments`` in a process of its own, so that its peak memory is its own; its last line is JSON.

    Raises:
        CalledProcessError: it failed.
        TimeoutExpired: it was killed after ``timeout`` seconds.
    """
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_peak_mib() -> float:
    """Largest resident memory since this program began; what `peak_mib` says begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def record(name: str, measured: dict[str, Any], results: Path = RESULTS) -> Path:
    """Write ``results/<name>.json``: what was measured, with device, versions, commit, date and load."""
    import torch

    root = Path(__file__).parent.parent

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=root, capture_output=True, text=True).stdout.rstrip()

    changed = [line[3:] for line in git("status", "--porcelain", "--", "src").splitlines()]
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    about = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": changed,
        "device": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()} | gpu,
        "load_average": os.getloadavg(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in ("torch", "vxl-lightning")},
    }
    results.mkdir(exist_ok=True)
    path = results / f"{name}.json"
    path.write_text(json.dumps(about | measured, indent=1) + "\n")
    return path


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
