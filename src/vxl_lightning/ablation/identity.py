"""What a result depends on besides its configuration: code, versions, device, weights."""

import hashlib
import inspect
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from vxl_lightning import registry

_SHARED = (
    *("tokens", "compressors.base", "compressors.per_video", "maskers.base", "selectors.base", "selectors.relevance"),
    *("caches.base", "caches.memory", "caches.forward", "caches.packed", "caches.relevance"),
    *("encoders.base", "models", "modules", "data", "config", "registry"),
    *("ablation.work", "ablation.measuring", "ablation.accounting", "ablation.tables"),
)
"""Modules of this package that every result runs through. Plugins are hashed one by one."""


def environment(more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Versions, shared code and kind of device; ``more`` names further modules that a result runs through."""
    import torch

    from vxl_lightning.reporting.manifest import versions

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"versions": versions(), "code": _code(_SHARED + more), "device": device}


def plugin(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A plugin with all of its parameters, where it comes from, and a hash of its source.

    The hash makes an edited plugin a new one: whoever changes a line and runs again sees the new result.
    """
    from vxl_lightning.config import to_plain

    cls, config = registry.config(kind, spec)
    nested = getattr(config, "parts", [])  # a chain, for one, is made of other plugins
    parts = [plugin(kind, {"name": s} if isinstance(s, str) else dict(s)) for s in nested]
    return {
        "parameters": to_plain(config),
        "provenance": registry.provenance(kind, spec["name"]),
        "source": _source(cls.__module__),
        "parts": parts,
    }


def _source(module: str) -> str:
    """Hash of a plugin's module and of what it takes from the modules beside it; of another project's all of them."""
    path = Path(inspect.getfile(sys.modules[module]))
    files = [Path(inspect.getfile(sys.modules[m])) for m in _taken(module)]
    if not module.startswith("vxl_lightning."):
        files = sorted(path.parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _taken(module: str) -> list[str]:
    """A module and those of its package that it takes something from, directly or not; sorted."""
    package, found, waiting = module.rpartition(".")[0], set[str](), [module]
    while waiting:
        name = waiting.pop()
        found.add(name)
        parts = {getattr(value, "__module__", None) for value in vars(sys.modules[name]).values()}
        waiting += [p for p in parts if isinstance(p, str) and p.startswith(f"{package}.") and p not in found]
    return sorted(found)


def language_model(folder: Path) -> str:
    """Hash of a language model's configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    suffixes = (".json", ".safetensors", ".model", ".txt", ".jinja")
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes):
        digest.update(path.name.encode())
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]


@cache
def _code(names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        module = import_module(f"vxl_lightning.{name}")
        assert module.__file__ is not None
        path = Path(module.__file__)
        files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
