"""Configuration: dataclass defaults <- YAML files <- ``key=value`` overrides, merged once.

A schema is a plain dataclass. A field that names a plugin is declared with `component` and holds
``{"name": ..., **parameters}``; ``compressor=dts`` is short for ``compressor.name=dts``, and naming
another plugin drops the parameters of the one before.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vxl_lightning import registry
from vxl_lightning.errors import UserError

T = TypeVar("T")


def component(kind: str, name: str | None, **parameters: Any) -> Any:
    """A dataclass field that holds a plugin of ``kind``; ``name=None`` makes it empty by default."""
    default = {} if name is None else {"name": name, **parameters}
    return field(default_factory=lambda: dict(default), metadata={"kind": kind})


def load(schema: type[T], files: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> T:
    """Merge and resolve a configuration.

    Args:
        schema: dataclass whose fields are the allowed keys.
        files: YAML files, later ones win.
        overrides: ``key=value`` with dotted keys, later ones win over all files.

    Returns:
        An instance of ``schema`` with every plugin's parameters checked and filled in.

    Raises:
        UserError: a missing file, an unknown key (with the nearest), a wrong type, an unknown plugin.
    """
    config = _unlocked(OmegaConf.structured(schema))
    for file in files:
        config = _merge(schema, config, read(file), str(file))
    for override in overrides:
        config = _merge(schema, config, _dotted(override), f"override {override!r}")
    try:
        made = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {_first_line(error)}") from None
    _fill_components(made)
    return cast(T, made)


def to_plain(config: Any) -> Any:
    """The configuration as dicts, lists, numbers and strings, for manifests and checkpoints."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_plain(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def to_yaml(config: Any) -> str:
    """YAML of a configuration, every key under its attribute docstring."""
    lines: list[str] = []
    _write(config, 0, lines)
    return "\n".join(lines) + "\n"


def _write(config: Any, depth: int, lines: list[str]) -> None:
    pad, docs = "  " * depth, field_docs(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in docs:
            lines.extend(f"{pad}# {line}" for line in textwrap.wrap(docs[f.name], 100))
        if is_dataclass(value):
            lines.append(f"{pad}{f.name}:")
            _write(value, depth + 1, lines)
        else:
            text = OmegaConf.to_yaml(OmegaConf.create({f.name: to_plain(value)})).rstrip()
            lines.extend(pad + line for line in text.splitlines())


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass, its help text."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        except (OSError, TypeError, SyntaxError):
            continue  # a class made at run time has no source, hence no help text
        for node, follow in pairwise(body):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(follow, ast.Expr)
                and isinstance(follow.value, ast.Constant)
                and isinstance(follow.value.value, str)
            ):
                docs[node.target.id] = " ".join(follow.value.value.split())
    return docs


def _unlocked(config: DictConfig) -> DictConfig:
    """The tree of a frozen dataclass, open for merging; what `load` returns is frozen again."""
    OmegaConf.set_readonly(config, False)
    for key in config:
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            _unlocked(config[key])
    return config


def read(file: str | Path) -> dict[str, Any]:
    """What a YAML file says, unchecked.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(
            f"configuration file {str(path)!r} does not exist; pass the path of a YAML file, such as one in conf/"
        )
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {_first_line(error)}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold a mapping of keys to values, got a {type(loaded).__name__}")
    return cast(dict[str, Any], loaded)


def _dotted(override: str) -> dict[str, Any]:
    key, equals, _ = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} is not key=value; write for example compressor.retention=0.125")
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override])))
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"override {override!r}: {_first_line(error)}") from None


def _merge(schema: type, config: DictConfig, layer: dict[str, Any], where: str) -> DictConfig:
    _check_keys(schema, layer, where, "")
    layer = _expand(schema, config, layer)
    try:
        return cast(DictConfig, OmegaConf.merge(config, layer))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'key {key!r}: ' if key else ''}{_first_line(error)}") from None


def _check_keys(schema: type, layer: Mapping[str, Any], where: str, prefix: str) -> None:
    known = [f.name for f in fields(schema)]
    hints = get_type_hints(schema)
    for key, value in layer.items():
        if key not in known:
            near = registry.did_you_mean(str(key), known)
            raise UserError(f"{where}: unknown key {prefix + str(key)!r}{near}; allowed: {', '.join(known)}")
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _check_keys(cast(type, hints[key]), value, where, f"{prefix}{key}.")


def _expand(schema: type, config: DictConfig, layer: Mapping[str, Any]) -> dict[str, Any]:
    """Write component shorthands out, and forget the old parameters where the plugin changes."""
    out = dict(layer)
    hints = get_type_hints(schema)
    for f in fields(schema):
        if f.name not in out:
            continue
        value = out[f.name]
        if "kind" in f.metadata:
            spec = {"name": value} if isinstance(value, str) else value
            spec = {} if spec is None else spec
            if spec == {} or ("name" in spec and spec["name"] != config[f.name].get("name")):
                OmegaConf.update(config, f.name, {}, merge=False)
            out[f.name] = spec
        elif is_dataclass(hints[f.name]) and isinstance(value, Mapping):
            out[f.name] = _expand(cast(type, hints[f.name]), config[f.name], value)
        elif value is False and "off" in get_args(hints[f.name]):
            out[f.name] = "off"  # YAML reads the word as a boolean
    return out


def _fill_components(config: Any) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        if "kind" in f.metadata and value:
            if "name" not in value:
                raise UserError(f"{f.name}: parameters {sorted(value)} without a name; write {f.name}.name=...")
            _, filled = registry.config(f.metadata["kind"], value)
            object.__setattr__(config, f.name, {"name": value["name"], **to_plain(filled)})
        elif is_dataclass(value):
            _fill_components(value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
