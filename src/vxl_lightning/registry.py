"""Plugins by name: compressors, maskers, selectors, caches, encoders and benchmarks, found through entry points.

Built-ins come through the same groups (``vxl_lightning.compressors`` and so on) as everybody else's.
Installed distributions are scanned once, from their metadata alone; a plugin's module is imported when
it is first asked for. ``VXL_PLUGINS``, a comma-separated list of distribution names, limits what may be
imported to those and to this project's own distribution.
"""

import difflib
import importlib.metadata as metadata
import inspect
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

from vxl_lightning.errors import UserError

_log = logging.getLogger(__name__)

OWN_DISTRIBUTION = "vxl-lightning"
ALLOW_VARIABLE = "VXL_PLUGINS"

CONTRACTS = {
    "compressor": "vxl_lightning.compressors.base:Compressor",
    "masker": "vxl_lightning.maskers.base:Masker",
    "selector": "vxl_lightning.selectors.base:Selector",
    "cache": "vxl_lightning.caches.base:CacheCompressor",
    "encoder": "vxl_lightning.encoders.base:Encoder",
    "benchmark": "vxl_lightning.evaluation.base:Benchmark",
}
"""Kinds of plugin and the class each one extends; the entry-point group is ``vxl_lightning.<kind>s``."""


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        name: what configurations call it.
        kind: a key of `CONTRACTS`.
        distribution: the installed package that brings it, as ``pip list`` shows it.
        version: of that distribution.
        class_path: ``module:Class``.
        error: why it cannot be used, in one line, or None.
    """

    name: str
    kind: str
    distribution: str
    version: str
    class_path: str
    error: str | None = None

    @property
    def qualified(self) -> str:
        """``distribution:name``, which means this plugin even where another one claims the name."""
        return f"{self.distribution}:{self.name}"


def installed(kind: str | None = None) -> list[Plugin]:
    """Every installed plugin, of one kind or of all, sorted by kind and name; nothing is imported.

    ``error`` is set where that can be told from metadata alone (``VXL_PLUGINS`` leaves it out). `checked`
    also imports.
    """
    allowed = _allowed()
    found = [p for p in _scan() if kind is None or p.kind == _known(kind)]
    return (
        [p if _normal(p.distribution) in allowed else replace(p, error=_NOT_ALLOWED) for p in found]
        if allowed
        else found
    )


def checked(kind: str | None = None) -> list[Plugin]:
    """`installed`, each one imported and held against its contract; ``error`` says what is wrong with it."""
    return [p if p.error else replace(p, error=_load(p)[1]) for p in installed(kind)]


def get(kind: str, name: str) -> type:
    """The plugin's class.

    Args:
        kind: a key of `CONTRACTS`.
        name: as registered, or ``distribution:name`` where two distributions claim one name.

    Raises:
        UserError: unknown, ambiguous, broken or not allowed; the message lists what there is.
    """
    plugin = find(kind, name)
    loaded, error = _load(plugin)
    if loaded is None:
        raise UserError(f"{kind}={name} from {plugin.distribution} {plugin.version} cannot be used: {error}")
    return loaded


def find(kind: str, name: str) -> Plugin:
    """The entry point that ``name`` means, not yet imported; raises as `get` does."""
    everything = installed(kind)
    matches = [p for p in everything if _answers_to(p, name)]
    usable = [p for p in matches if p.error is None]
    if len(usable) == 1:
        return usable[0]
    if usable:
        claims = " and ".join(f"{p.qualified} ({p.distribution} {p.version})" for p in usable)
        raise UserError(f"{kind}={name} is claimed by more than one distribution: {claims}; write one of these in full")
    if matches:
        raise UserError(
            f"{kind}={name}: {matches[0].distribution} {matches[0].version} is installed, but {_NOT_ALLOWED}"
        )
    raise UserError(_unknown(kind, name))


def config(kind: str, spec: str | Mapping[str, Any]) -> tuple[type, Any]:
    """A plugin's class and an instance of its ``Config``.

    Args:
        kind: as for `get`.
        spec: the name alone, or ``{"name": ..., **parameters}``.

    Raises:
        UserError: as `get`, or a parameter that is unknown, missing, of the wrong type, or refused by the
            ``Config`` itself.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    parameters = {"name": spec} if isinstance(spec, str) else {str(k): v for k, v in spec.items()}
    name = parameters.pop("name", None)
    if not isinstance(name, str) or not name:
        listed = ", ".join(sorted({p.name for p in installed(kind) if p.error is None}))
        raise UserError(f"{kind}.name is missing; installed: {listed}")
    cls: Any = get(kind, name)
    keys = [f.name for f in fields(cls.Config) if f.init]
    for key in parameters:
        if key not in keys:
            allowed = ", ".join(keys) or "none"
            raise UserError(f"{kind} {name} has no parameter {key!r}{did_you_mean(key, keys)}; allowed: {allowed}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls.Config), OmegaConf.create(parameters))
        return cls, OmegaConf.to_object(merged)
    except MissingMandatoryValue as e:
        raise UserError(f"{kind} {name} needs {kind}.{e.full_key}=...; it has no default") from e
    except OmegaConfBaseException as e:
        raise UserError(f"{kind}.{e.full_key or name}: {_line(e)}") from e
    except (ValueError, TypeError) as e:
        raise UserError(f"{kind} {name}: {_line(e)}") from e


def build(kind: str, spec: str | Mapping[str, Any], **runtime: Any) -> Any:
    """An instance of a plugin: ``Class(Config(**parameters), **runtime)``.

    Args:
        kind: as for `get`.
        spec: as for `config`.
        **runtime: what only the run knows: ``dim=`` for compressors, maskers and selectors, ``shape=`` for caches,
            nothing for encoders.

    Raises:
        UserError: as `config`.
    """
    cls, settings = config(kind, spec)
    return cls(settings, **runtime)


def provenance(kind: str, name: str) -> dict[str, str]:
    """Where a plugin comes from, for a run's manifest."""
    p = find(kind, name)
    return {
        "kind": p.kind,
        "name": p.name,
        "distribution": p.distribution,
        "version": p.version,
        "class_path": p.class_path,
    }


def clear() -> None:
    """Forget what was scanned and imported; the next question looks again."""
    _scan.cache_clear()
    _load.cache_clear()


def contract(kind: str) -> Any:
    """The class that plugins of this kind extend."""
    module, _, name = CONTRACTS[_known(kind)].partition(":")
    return getattr(import_module(module), name)


def problem(kind: str, cls: Any) -> str | None:
    """What keeps a class from being a plugin of this kind, in one line, or None."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    base = contract(kind)
    if not inspect.isclass(cls):
        return f"the entry point must be a class, not {type(cls).__name__}"
    if not issubclass(cls, base):
        return f"{cls.__name__} does not extend {base.__module__}.{base.__name__}"
    version = getattr(cls, "api_version", None)
    if version != base.api_version:
        here = f"this installation has {base.api_version!r}"
        return f"{cls.__name__} is written for api_version={version!r} of the {kind} contract; {here}"
    if inspect.isabstract(cls):
        return f"{cls.__name__} does not define {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"
    settings = getattr(cls, "Config", None)
    if not (inspect.isclass(settings) and is_dataclass(settings) and "__dataclass_fields__" in vars(settings)):
        return f"{cls.__name__}.Config must be a dataclass: @dataclass(frozen=True, kw_only=True)"
    if not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return f"{cls.__name__}.Config must be frozen: @dataclass(frozen=True, kw_only=True)"
    if "name" in settings.__dataclass_fields__:
        return f"{cls.__name__}.Config may not have a field 'name': configurations name the plugin by it"
    try:
        OmegaConf.structured(settings)
    except (OmegaConfBaseException, ValueError, TypeError, NameError) as e:
        return f"{cls.__name__}.Config has a field that a YAML file cannot hold: {_line(e)}"
    return None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"``, or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


_NOT_ALLOWED = f"{ALLOW_VARIABLE} does not list its distribution; add it there, or unset {ALLOW_VARIABLE}"


def _known(kind: str) -> str:
    if kind not in CONTRACTS:
        raise UserError(f"no plugin kind {kind!r}{did_you_mean(kind, CONTRACTS)}; kinds: {', '.join(CONTRACTS)}")
    return kind


def _allowed() -> set[str]:
    """Normalised names that may be imported; empty when everything installed may."""
    listed = os.environ.get(ALLOW_VARIABLE)
    if listed is None:
        return set()
    return {_normal(n.strip()) for n in listed.split(",") if n.strip()} | {OWN_DISTRIBUTION}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _answers_to(plugin: Plugin, name: str) -> bool:
    distribution, colon, short = name.rpartition(":")
    return plugin.name == short and (not colon or _normal(plugin.distribution) == _normal(distribution))


@cache
def _scan() -> list[Plugin]:
    kinds = {f"vxl_lightning.{kind}s": kind for kind in CONTRACTS}
    found: list[Plugin] = []
    seen: set[str] = set()
    for dist in metadata.distributions():
        name, version, points = _read(dist)
        points = [p for p in points if p.group in kinds]
        if not points:
            continue
        # The first of two copies on the path is the one that Python imports.
        if _normal(name) in seen:
            continue
        seen.add(_normal(name))
        found += [Plugin(p.name, kinds[p.group], name, version, p.value) for p in points]
    return sorted(found, key=lambda p: (list(CONTRACTS).index(p.kind), p.name, _normal(p.distribution)))


def _read(dist: metadata.Distribution) -> tuple[str, str, list[metadata.EntryPoint]]:
    """Name, version and entry points; the damaged metadata of one package must not hide the others."""
    try:
        about = dist.metadata
        return str(about["Name"] or "unknown"), str(about["Version"] or "unknown"), list(dist.entry_points)
    except Exception as e:
        _log.warning("skipped a package with damaged metadata, %s: %s", getattr(dist, "_path", dist), _line(e))
        return "unknown", "unknown", []


@cache
def _load(plugin: Plugin) -> tuple[type | None, str | None]:
    """The class, or why there is none. A plugin may fail in any way without taking others with it."""
    point = metadata.EntryPoint(plugin.name, plugin.class_path, f"vxl_lightning.{plugin.kind}s")
    try:
        cls = point.load()
    except (Exception, SystemExit) as e:
        return None, f"{plugin.class_path} does not import: {type(e).__name__}: {_line(e)}"
    error = problem(plugin.kind, cls)
    return (None, error) if error else (cls, None)


def _unknown(kind: str, name: str) -> str:
    plugins = checked(kind)
    usable = [p for p in plugins if p.error is None]
    short = [p.name for p in usable]
    # Names that need their distribution are listed with it: what is printed can be typed.
    listed = [p.qualified if short.count(p.name) > 1 else p.name for p in usable]
    text = (
        f"no {kind} {name!r} is installed{did_you_mean(name, listed + short)}; installed: {', '.join(listed) or 'none'}"
    )
    broken = [f"{p.name} of {p.distribution} {p.version} ({p.error})" for p in plugins if p.error]
    return text + (f"; installed but not usable: {'; '.join(broken)}" if broken else "")


def _line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
