"""``vxl plugin``: list, show, check and scaffold plugins."""

import argparse
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vxl_lightning import registry
from vxl_lightning.errors import UserError

HELP = "list, show, check and scaffold plugins"

TRAITS = (
    "causal",
    "trainable",
    "needs_query",
    "needs_importance",
    "needs_motion",
    "needs_time",
    "gives_importance",
    "level",
    "stage",
    "budget",
    "exact_at_one",
    "min_frames",
    "api_version",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="every installed plugin, and what is wrong with those that do not load")
    _add_kind(listing)

    show = actions.add_parser("show", help="one plugin: origin, traits, parameters, and the files of a benchmark")
    show.add_argument("name", help="as in `vxl plugin list`, or DISTRIBUTION:NAME")
    _add_kind(show)

    check = actions.add_parser("check", help="hold plugins against every law of their contract")
    check.add_argument("name", nargs="?", help="as in `vxl plugin list`, or DISTRIBUTION:NAME")
    check.add_argument("--all", action="store_true", help="every installed plugin")
    _add_kind(check)

    actions.add_parser("reference", help="all plugins as Markdown tables: traits, needs, origin")

    new = actions.add_parser("new", help="write a plugin distribution that passes its own tests")
    new.add_argument("name", help="what configurations will call it, such as my_method")
    new.add_argument("--kind", required=True, help="compressor, masker or selector; the others have no scaffold")
    new.add_argument("--dir", type=Path, default=Path(), help="where its folder goes (default: here)")


def run(args: argparse.Namespace) -> int:
    """Returns 0, or 1 where a checked plugin breaks a law or does not load."""
    console = Console()
    if args.action == "list":
        return _list(console, args.kind)
    if args.action == "show":
        return _show(console, args.name, args.kind)
    if args.action == "reference":
        from vxl_lightning.reporting.plugins import reference

        print(reference(), end="")
        return 0
    if args.action == "new":
        return _new(console, args.name, args.kind, args.dir)
    return _check(console, args.name, args.kind, args.all)


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", help=f"one of {', '.join(registry.CONTRACTS)} (default: all)")


def _list(console: Console, kind: str | None) -> int:
    plugins = registry.checked(kind)
    table = _table("kind", "name", "distribution", "version", "class")
    names = [(p.kind, p.name) for p in plugins if p.error is None]
    for p in plugins:
        name = p.qualified if names.count((p.kind, p.name)) > 1 else p.name
        table.add_row(p.kind, name if p.error is None else f"[red]{name}[/]", p.distribution, p.version, p.class_path)
    console.print(table)
    for p in plugins:
        if p.error:
            console.print(f"[red]{p.kind} {p.name} cannot be used:[/] {escape(p.error)}", soft_wrap=True)
    return 0


def _show(console: Console, name: str, kind: str | None) -> int:
    from vxl_lightning.config import field_docs

    for p in _named(name, kind):
        cls: Any = registry.get(p.kind, name)
        console.print(f"[bold]{p.name}[/] ({p.kind}) from {p.distribution} {p.version}, {p.class_path}\n")
        console.print(escape((cls.__doc__ or "").strip()) + "\n")
        if cls.origin:
            console.print(f"[bold]origin[/] {escape(cls.origin)}")
        if p.kind == "benchmark":
            console.print(f"[bold]files[/] in data_root/{escape(cls.folder_name)}:")
            for line in cls.layout.splitlines():
                console.print(f"  {escape(line)}", soft_wrap=True)
        traits = [f"{t}={getattr(cls, t)}" for t in TRAITS if hasattr(cls, t)]
        console.print(f"[bold]traits[/] {', '.join(traits)}")
        for law, reason in getattr(cls, "known_exceptions", {}).items():
            console.print(f"[bold]known exception[/] {law}: {escape(reason)}")
        docs = field_docs(cls.Config)
        table = _table("parameter", "type", "default", "meaning")
        for f in fields(cls.Config):
            table.add_row(f.name, escape(_type(f)), escape(_default(f)), escape(docs.get(f.name, "")))
        if table.row_count:
            console.print(table)
    return 0


def _check(console: Console, name: str | None, kind: str | None, everything: bool) -> int:
    from vxl_lightning.testing.kit import check_plugin

    if everything == (name is not None):
        raise UserError("vxl plugin check takes the NAME of one plugin, or --all")
    plugins = registry.checked(kind) if name is None else _named(name, kind)
    marks = {"kept": "[green]kept[/]", "exception": "[yellow]exception[/]", "not applicable": "[dim]not applicable[/]"}
    failed = 0
    for p in plugins:
        if p.error:
            failed += 1
            console.print(f"[red]{p.kind} {p.name} cannot be used:[/] {escape(p.error)}", soft_wrap=True)
            continue
        results = check_plugin(p.kind, p.qualified if name is None else name)
        broken = [r for r in results if not r.ok]
        failed += bool(broken)
        told = f"{len(broken)} laws broken"
        if results[0].outcome == "not applicable":  # the contract comes first
            told = f"[yellow]{escape(results[0].detail)}[/]"
        console.print(f"[bold]{p.kind} {p.name}[/] from {p.distribution} {p.version}: {told}")
        table = _table("law", "outcome", "detail")
        for r in results if name is not None else [r for r in results if r.outcome not in ("kept", "not applicable")]:
            table.add_row(r.law, marks.get(r.outcome, f"[red]{r.outcome}[/]"), escape(r.detail))
        if table.row_count:
            console.print(table)
    return 1 if failed else 0


def _new(console: Console, name: str, kind: str, parent: Path) -> int:
    from vxl_lightning.testing.scaffolding import create

    root = create(name, kind, parent)
    taken = [p for p in registry.installed(kind) if p.name == name]
    console.print(f"wrote {escape(str(root))}; next:", soft_wrap=True)
    console.print(f"  pip install --no-build-isolation -e {escape(str(root))}", soft_wrap=True)
    console.print(f"  vxl plugin check {name} --kind {kind}")
    for p in taken:
        console.print(
            f"[yellow]{p.distribution} {p.version} has a {kind} of that name too[/]: write {root.name}:{name}"
        )
    return 0


def _named(name: str, kind: str | None) -> list[registry.Plugin]:
    """The plugins that go by a name: of one kind, or of every kind that knows it."""
    if kind is not None:
        return [registry.find(kind, name)]
    short = name.rpartition(":")[2]
    kinds = [k for k in registry.CONTRACTS if any(p.name == short for p in registry.installed(k))]
    if not kinds:
        names = sorted({p.name for p in registry.installed()})
        near = registry.did_you_mean(name, names)
        raise UserError(f"no plugin {name!r} is installed{near}; installed: {', '.join(names)}")
    return [registry.find(k, name) for k in kinds]


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def _type(f: "Field[Any]") -> str:
    return f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))


def _default(f: "Field[Any]") -> str:
    if f.default is not MISSING:
        return str(f.default)
    return str(f.default_factory()) if f.default_factory is not MISSING else "required"
