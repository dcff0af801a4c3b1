"""``manifest.json``: what a run was, so that it can be done again."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTIONS = ("vxl-lightning", "torch", "lightning", "transformers", "peft", "torchcodec", "numpy", "scipy")
"""Distributions whose version can change a result."""


def manifest(
    config: Any, seeds: Iterable[int], plugins: Iterable[Mapping[str, str]], data: Mapping[str, str]
) -> dict[str, Any]:
    """Describe a run.

    Args:
        config: the resolved configuration, a dataclass or plain values.
        seeds: all seeds used.
        plugins: `registry.provenance` of every plugin used.
        data: dataset's role -> hash of its manifest.
    """
    from vxl_lightning.config import to_plain

    return {
        "config": to_plain(config),
        "seeds": list(seeds),
        "plugins": [dict(p) for p in plugins],
        "data": dict(data),
        "versions": versions(),
        "commit": commit(),
        "device": device(),
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def manifest_facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a page shows of a `manifest`: names and values."""
    machine = content["device"]
    plugins = (f"{p['name']} ({p['kind']}, {p['distribution']} {p['version']})" for p in content["plugins"])
    where = machine["accelerator"] or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    facts = [
        ("commit", content["commit"] or "not run from a checkout"),
        ("seeds", ", ".join(map(str, content["seeds"]))),
        ("device", where),
        ("versions", ", ".join(f"{k} {v}" for k, v in content["versions"].items())),
        ("plugins", ", ".join(plugins)),
        *((f"data: {role}", digest) for role, digest in content["data"].items()),
    ]
    return [(name, value) for name, value in facts if value]


def versions() -> dict[str, str]:
    """Python and every installed one of `DISTRIBUTIONS`."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of the checkout this package runs from, with ``+changes`` when files differ; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A package installed into some other project's repository must not report that project's commit.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = git("rev-parse", "HEAD")
    return head and head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def device() -> dict[str, Any]:
    """The machine: processor, threads, memory and accelerator."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
