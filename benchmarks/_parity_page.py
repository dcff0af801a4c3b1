"""The page docs/parity.md, written from what `parity.py` recorded."""

import math
from collections.abc import Sequence
from typing import Any

KINDS = ("compressor", "masker", "selector", "cache", "model")


def page(recorded: dict[str, Any]) -> str:
    """The whole of docs/parity.md.

    Args:
        recorded: ``results/parity.json``.
    """
    rows, alone = recorded["comparisons"], recorded["without"]
    kinds = [*KINDS, *sorted({row["kind"] for row in [*rows, *alone]} - set(KINDS))]
    rows, alone = (sorted(some, key=lambda row: (kinds.index(row["kind"]), row["method"])) for some in (rows, alone))
    repositories = {row["repository"]: (row["commit"], row["licence"]) for row in rows}
    parts = [_opening(recorded), "## Originals\n", _table(("repository", "commit compared", "licence"), [
        (f"[{name}](https://github.com/{name}/tree/{commit})", f"`{commit[:12]}`", licence)
        for name, (commit, licence) in sorted(repositories.items(), key=lambda item: item[0].lower())
    ])]  # fmt: skip
    head = ("method", "what is compared", "original", "shapes", "largest relative difference")
    for kind in kinds:
        cells = [
            (f"`{row['method']}`", row["what"], row["repository"], str(len(row["runs"])), _shown(row))
            for row in rows
            if row["kind"] == kind
        ]
        if cells:
            parts += [f"## {kind.capitalize()}s\n", _table(head, cells)]
    differing = [row for row in rows if row["differs"]]
    if differing:
        parts += ["## Deliberate differences\n", _table(
            ("method", "what is compared", "difference", "why"),
            [(f"`{row['method']}`", row["what"], figure(worst(row)), row["differs"]) for row in differing],
        )]  # fmt: skip
    if alone:
        opening = "Their tests hold these against their definitions alone; the last column says what there would be.\n"
        parts += ["## Without an original to run\n", opening, _table(
            ("kind", "method", "goes back to"), [(row["kind"], f"`{row['method']}`", row["origin"]) for row in alone]
        )]  # fmt: skip
    return "\n".join(parts)


def worst(row: dict[str, Any]) -> float:
    """The largest difference of a comparison; infinite where something could not be compared at all."""
    return math.inf if row["worst"] is None else float(row["worst"])


def figure(difference: float) -> str:
    """As short as it can be read."""
    if not math.isfinite(difference):
        return "not comparable"
    return f"{difference:.1e}" if 0 < difference < 0.01 else f"{difference:.2g}"


def _opening(recorded: dict[str, Any]) -> str:
    rows = recorded["comparisons"]
    same = [row for row in rows if not row["differs"]]
    methods, repositories = {(row["kind"], row["method"]) for row in rows}, {row["repository"] for row in rows}
    largest = figure(max(map(worst, same), default=0))
    seeds, limit = recorded["seeds"], f"{recorded['limit']:g}"
    version, device = recorded["versions"]["torch"], recorded["device"]["cpu"]
    return f"""# Parity with the originals

*Written by `python benchmarks/parity.py --originals DIR` from `benchmarks/results/parity.json`; edited nowhere else.*

Methods whose authors published code are run beside it, on the same random input, and with the same weights where there
are weights. The figure is `max |ours - theirs| / max |theirs|`, the worst over all shapes and {seeds} seeds in float32;
where a choice is compared, one other cell or frame makes it 1. Above {limit} the run fails, except where the
definitions differ on purpose, with the reason below. None of the originals' code is part of this project:
`benchmarks/originals/` says how each is called, and the run lists the commands that check it out.

{len(methods)} methods are held against {len(repositories)} repositories. The largest figure of the {len(same)}
comparisons that should agree is **{largest}**; {len(rows) - len(same)} more differ on purpose. Recorded on
{recorded["date"][:10]} with PyTorch {version} on {device}.
"""


def _shown(row: dict[str, Any]) -> str:
    return figure(worst(row)) + (", [differs](#deliberate-differences)" if row["differs"] else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
