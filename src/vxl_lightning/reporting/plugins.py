"""The reference of all installed plugins, as Markdown: what each is, needs and follows."""

import inspect
from typing import Any

from vxl_lightning import registry

TITLES = {
    "compressor": "Compressors, before the language model",
    "cache": "Caches, inside the language model",
    "masker": "Maskers, for reconstructive pretraining",
    "selector": "Selectors, by the question",
    "encoder": "Encoders",
    "benchmark": "Benchmarks",
}
NEEDS = ("query", "importance", "motion", "time")


def reference(kinds: dict[str, str] = TITLES) -> str:
    """A table a kind, each plugin a row; by kind and name, so that the same plugins give the same text.

    Raises:
        UserError: a plugin that does not load.
    """
    parts = ["# Plugins", "", "Made by `vxl plugin reference`; a test holds it against what is installed.", ""]
    for kind, title in kinds.items():
        parts += [f"## {title}", "", "| name | distribution | what it does | traits | needs | origin |"]
        parts.append("| --- | --- | --- | --- | --- | --- |")
        for plugin in sorted(registry.installed(kind), key=lambda p: (p.name, p.distribution)):
            cls: Any = registry.get(kind, plugin.qualified)
            cells = (plugin.name, plugin.distribution, _summary(cls), _traits(cls), _needs(cls), cls.origin)
            parts.append("| " + " | ".join(_cell(c) for c in cells) + " |")
        exceptions = _exceptions(kind)
        parts += ["", *exceptions] if exceptions else [""]
    return "\n".join(parts).rstrip() + "\n"


def _summary(cls: Any) -> str:
    """The first sentence of the docstring."""
    paragraph = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def _traits(cls: Any) -> str:
    traits = [name for name in ("causal", "trainable") if getattr(cls, name, False)]
    budget = getattr(cls, "budget", None)
    if isinstance(budget, str):
        traits.append({"exact": "exact budget", "bound": "budget is a bound"}[budget])
    if level := getattr(cls, "level", None):
        traits.append(f"level {level}")
    if frames := getattr(cls, "frames_per_group", None):
        traits.append(f"groups of {frames}")
    if getattr(cls, "gives_importance", False):
        traits.append("can give importance")
    return ", ".join(traits)


def _needs(cls: Any) -> str:
    return ", ".join(need for need in NEEDS if getattr(cls, f"needs_{need}", False))


def _exceptions(kind: str) -> list[str]:
    """Laws that a plugin is excused from, with the reason."""
    lines = []
    for plugin in registry.installed(kind):
        cls: Any = registry.get(kind, plugin.qualified)
        lines += [
            f"- `{plugin.name}` and the law *{n}*: {why}" for n, why in getattr(cls, "known_exceptions", {}).items()
        ]
    return ["Known exceptions:", "", *lines, ""] if lines else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
