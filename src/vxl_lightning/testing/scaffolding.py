"""Write a new plugin distribution that works as generated: ``vxl plugin new``."""

import keyword
import re
from importlib.resources import files
from pathlib import Path

from vxl_lightning import __version__, registry
from vxl_lightning.errors import UserError

KINDS = ("compressor", "masker", "selector")
"""Those that are simple enough to begin from a few lines; caches and encoders begin from a built-in one."""


def create(name: str, kind: str, parent: Path) -> Path:
    """Write the distribution ``vxl-<name>`` under ``parent``.

    Args:
        name: what configurations will call the plugin: lower case, digits and underscores.
        kind: one of `KINDS`.
        parent: existing or new folder.

    Returns:
        The distribution's folder, ``parent / vxl-<name>``.

    Raises:
        UserError: a name that cannot be one, an unknown kind, or a folder that exists already.
    """
    from jinja2 import Environment, StrictUndefined

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"plugin name {name!r} must be lower-case letters, digits and underscores, such as my_method")
    cls = "".join(part.capitalize() for part in name.split("_"))
    if keyword.iskeyword(cls):
        raise UserError(f"plugin name {name!r} would make a class {cls!r}, a word of Python's own; choose another")
    if kind not in KINDS:
        near = registry.did_you_mean(kind, KINDS)
        raise UserError(f"no scaffold for kind {kind!r}{near}; kinds that have one: {', '.join(KINDS)}")
    distribution, module = f"vxl-{name.replace('_', '-')}", f"vxl_{name}"
    root = parent / distribution
    if root.exists():
        raise UserError(f"{root} exists already; choose another name or --dir")
    values = {
        "name": name,
        "kind": kind,
        "distribution": distribution,
        "module": module,
        "cls": cls,
        "core": ".".join(__version__.split(".")[:2]),
    }
    templates = files("vxl_lightning.testing") / "scaffold"
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    for target, template in (
        ("pyproject.toml", "pyproject.toml.jinja"),
        ("README.md", "README.md.jinja"),
        (f"src/{module}/__init__.py", f"{kind}.py.jinja"),
        (f"tests/test_{name}.py", "test.py.jinja"),
    ):
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        source = (templates / template).read_text(encoding="utf-8")
        path.write_text(environment.from_string(source).render(values), encoding="utf-8")
    return root
