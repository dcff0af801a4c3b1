"""The report of needles at length: depth by length, as a page of heat maps and as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vxl_lightning.reporting.page import write_page

Records = Sequence[Mapping[str, Any]]
Cells = Mapping[tuple[str, int | None, float | None], Mapping[str, Any]]

RAMP = ((215, 48, 39), (254, 224, 139), (26, 152, 80))
"""Red, yellow and green; every cell has its number too, for readers who cannot tell them apart."""
FIRST = ("retrieval", "exact")
"""Task and score that the page opens with."""
_MISSING = (222, 222, 226)
_NARROWEST = 420
_CELL, _ROW, _LEFT, _TOP, _BELOW = (88, 38), 26, 56, 30, 40


def colour(value: float) -> tuple[int, int, int]:
    """Of a score in [0, 1]."""
    if math.isnan(value):
        return _MISSING
    place = min(max(value, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    mixed = [round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True)]
    return mixed[0], mixed[1], mixed[2]


def picture(found: Records, task: str, score: str, name: str) -> Image.Image:
    """The grids of all rows under one another, with each length and the whole over all depths.

    Args:
        found: as for `write_report`.
        task: what is asked; score: how it is counted.
        name: title.

    Returns:
        In each cell its mean ± standard error, and n under it.
    """
    rows, lengths, depths = axes(found)
    cells = cells_of(found, task, score)
    width = max(_LEFT + _CELL[0] * len(lengths) + 12, _NARROWEST)
    panel = _TOP + _CELL[1] * (len(depths) + 1) + _BELOW
    sheet = Image.new("RGB", (width, _ROW + panel * len(rows)), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(12)
    draw.text((8, 6), f"{name}: {task}, {score}; depth by frames", fill="#1c2430", font=font)
    for number, row in enumerate(rows):
        top = _ROW + panel * number + _TOP
        whole = cells.get((row, None, None))
        told = f"  (mean {_value(whole)}, {_count(whole)})" if whole else ""
        draw.text((8, top - 22), f"{row}{told}", fill="#1c2430", font=font)
        for r, depth in enumerate([*depths, None]):
            y = top + _CELL[1] * r
            draw.text((_LEFT - 6, y + _CELL[1] / 2), _depth(depth), fill="#5d6878", font=small, anchor="rm")
            for c, length in enumerate(lengths):
                x = _LEFT + _CELL[0] * c
                cell = cells.get((row, length, depth))
                box = (x, y, x + _CELL[0] - 2, y + _CELL[1] - 2)
                draw.rectangle(box, fill=colour(cell["mean"] if cell else math.nan))
                for line, text in enumerate((_value(cell), _count(cell)) if cell else ()):
                    middle = (x + _CELL[0] / 2 - 1, y + _CELL[1] * (0.3 + 0.38 * line))
                    draw.text(middle, text, fill="#1c2430", font=small, anchor="mm")
        for c, length in enumerate(lengths):
            under = (_LEFT + _CELL[0] * (c + 0.5), top + _CELL[1] * (len(depths) + 1) + 10)
            draw.text(under, f"{length:,}", fill="#5d6878", font=small, anchor="mm")
    return sheet


def axes(found: Records) -> tuple[list[str], list[int], list[float]]:
    """Rows in their order, lengths and depths rising."""
    rows = list(dict.fromkeys(g["row"] for g in found))
    lengths = sorted({g["length"] for g in found if g["length"] is not None})
    depths = sorted({g["depth"] for g in found if g["depth"] is not None})
    return rows, lengths, depths


def cells_of(found: Records, task: str, score: str) -> Cells:
    """(row, length, depth) -> record, of one score of one task."""
    return {(g["row"], g["length"], g["depth"]): g for g in found if (g["task"], g["score"]) == (task, score)}


def write_report(path: Path, name: str, found: Records) -> None:
    """One file that opens anywhere, offline: every score of every task, chosen from a list.

    Args:
        path: where to write it.
        name: title.
        found: ``row``, ``task``, ``score``, ``length`` and ``depth`` (a fraction of it, None over all), ``mean`` in
            [0, 1] or NaN where nothing could be asked, ``se`` or NaN, and ``n``.
    """
    write_page(path, "needles.html.jinja", name=name, maps=heat_maps(found))


def heat_maps(found: Records) -> dict[str, Any]:
    """What the page draws.

    Returns:
        ``scores``, names of task and score; ``panels``, one a row: ``row``, ``figure``, plotly's plain values of an
        empty heat map, and ``cells``, by the name of a score, what fills it.
    """
    import plotly.graph_objects as go
    from plotly.colors import get_colorscale

    from vxl_lightning.reporting.style import plain

    rows, lengths, depths = axes(found)
    shown = list(dict.fromkeys((g["task"], g["score"]) for g in found))
    shown.sort(key=lambda s: s != FIRST)
    figure = go.Figure()
    figure.add_heatmap(
        x=[f"{length:,}" for length in lengths],
        y=[_depth(depth) for depth in [*depths, None]],
        texttemplate="%{text}",
        hovertemplate="%{x} frames, depth %{y}<br>%{z:.3f}%{customdata[1]}<br>n = %{customdata[0]:,}<extra></extra>",
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickvals": [0, 0.5, 1]},
    )
    figure.update_xaxes(title="length in frames", type="category", fixedrange=True, showgrid=False)
    figure.update_yaxes(
        title="depth", type="category", autorange="reversed", fixedrange=True, showgrid=False, ticksuffix=" "
    )
    # Red to blue, which colour-blind readers see too, or to green as in published pictures: the reader chooses.
    scales = {"own": get_colorscale("RdYlBu"), "published": get_colorscale("RdYlGn")}
    figure.update_layout(height=76 + 46 * (len(depths) + 1), margin_t=10, meta=scales)
    empty = plain(figure)
    filled = {f"{task}: {score}": cells_of(found, task, score) for task, score in shown}
    panels = [
        {
            "row": row,
            "figure": empty,
            "cells": {
                score: _filling([[cells.get((row, n, depth)) for n in lengths] for depth in [*depths, None]])
                for score, cells in filled.items()
            },
        }
        for row in rows
    ]
    return {"scores": list(filled), "panels": panels}


def _filling(table: Sequence[Sequence[Mapping[str, Any] | None]]) -> dict[str, Any]:
    """Colour, text and what is told of every cell, depths down; a cell of nothing asked has no colour."""
    return {
        "z": [[None if c is None or math.isnan(c["mean"]) else c["mean"] for c in line] for line in table],
        "text": [[f"<b>{_mean(c)}</b><br>{_count(c)}" if c else "" for c in line] for line in table],
        "customdata": [[[c["n"], _error(c, 3)] if c else None for c in line] for line in table],
    }


def _depth(depth: float | None) -> str:
    return "all" if depth is None else f"{100 * depth:.3g} %"


def _mean(cell: Mapping[str, Any]) -> str:
    return "–" if math.isnan(cell["mean"]) else f"{cell['mean']:.2f}"


def _error(cell: Mapping[str, Any], digits: int) -> str:
    return "" if math.isnan(cell["se"]) else f" ± {cell['se']:.{digits}f}"


def _value(cell: Mapping[str, Any]) -> str:
    return _mean(cell) + _error(cell, 2)


def _count(cell: Mapping[str, Any]) -> str:
    return f"n {cell['n']:,}"
