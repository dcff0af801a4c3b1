"""The picture of needles at length: depth by length, one panel a row, red where they are lost and green where found."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vxl_lightning.reporting.page import write_page

Records = Sequence[Mapping[str, Any]]

RAMP = ((215, 48, 39), (254, 224, 139), (26, 152, 80))
"""Red, yellow and green; every cell has its number too, for readers who cannot tell them apart."""
_MISSING = (222, 222, 226)
_NARROWEST = 420
_CELL, _ROW, _LEFT, _TOP, _BELOW = (64, 30), 26, 56, 30, 40


def colour(value: float) -> tuple[int, int, int]:
    """Of a score in [0, 1]."""
    if math.isnan(value):
        return _MISSING
    place = min(max(value, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    mixed = [round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True)]
    return mixed[0], mixed[1], mixed[2]


def picture(found: Records, task: str, score: str, name: str) -> Image.Image:
    """The grids of all rows under one another, with the mean of each length and of the whole."""
    rows, lengths, depths = axes(found)
    cells = values(found, task, score)
    width = max(_LEFT + _CELL[0] * len(lengths) + 12, _NARROWEST)
    panel = _TOP + _CELL[1] * (len(depths) + 1) + _BELOW
    sheet = Image.new("RGB", (width, _ROW + panel * len(rows)), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(12)
    draw.text((8, 6), f"{name}: {task}, {score}; depth by frames", fill="#1c2430", font=font)
    for number, row in enumerate(rows):
        top = _ROW + panel * number + _TOP
        whole = cells.get((row, None, None), math.nan)
        draw.text((8, top - 22), f"{row}  (mean {_number(whole)})", fill="#1c2430", font=font)
        for r, depth in enumerate([*depths, None]):
            y = top + _CELL[1] * r
            label = "all" if depth is None else f"{100 * depth:.0f} %"
            draw.text((_LEFT - 6, y + _CELL[1] / 2), label, fill="#5d6878", font=small, anchor="rm")
            for c, length in enumerate(lengths):
                x = _LEFT + _CELL[0] * c
                value = cells.get((row, length, depth), math.nan)
                draw.rectangle((x, y, x + _CELL[0] - 2, y + _CELL[1] - 2), fill=colour(value))
                middle = (x + _CELL[0] / 2 - 1, y + _CELL[1] / 2 - 1)
                draw.text(middle, _number(value), fill="#1c2430", font=small, anchor="mm")
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


def values(found: Records, task: str, score: str) -> dict[tuple[str, int | None, float | None], float]:
    """(row, length, depth) -> mean of one score of one task."""
    return {(g["row"], g["length"], g["depth"]): g["mean"] for g in found if (g["task"], g["score"]) == (task, score)}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def write_report(path: Path, name: str, found: Records) -> None:
    """One file that opens anywhere, offline: every score of every task, chosen from a list."""
    write_page(path, "needles.html.jinja", name=name, plot=_plot(found))


def _plot(found: Records) -> str:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows, lengths, depths = axes(found)
    shown = list(dict.fromkeys((g["task"], g["score"]) for g in found))
    shown.sort(key=lambda s: s != ("retrieval", "exact"))
    figure = make_subplots(rows=len(rows), cols=1, subplot_titles=rows, vertical_spacing=0.5 / (3 * len(rows)))
    scale = [[i / (len(RAMP) - 1), f"rgb{c}"] for i, c in enumerate(RAMP)]
    labels = [*(f"{100 * d:.0f} %" for d in depths), "all"]
    for number, row in enumerate(rows):
        z, text = _panel(found, *shown[0], row, lengths, depths)
        figure.add_trace(
            go.Heatmap(
                x=[f"{length:,}" for length in lengths], y=labels, z=z, text=text, texttemplate="%{text}", zmin=0,
                zmax=1, colorscale=scale, showscale=number == 0, xgap=2, ygap=2, hoverinfo="x+y+text",
            ),
            row=number + 1, col=1,
        )  # fmt: skip
    buttons = []
    for task, score in shown:
        panels = [_panel(found, task, score, row, lengths, depths) for row in rows]
        arguments = {"z": [z for z, _ in panels], "text": [text for _, text in panels]}
        buttons.append({"label": f"{task}: {score}", "method": "restyle", "args": [arguments]})
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"b": 24}}
    figure.update_layout(
        template="plotly_white", height=150 + (90 + 34 * len(labels)) * len(rows), updatemenus=[menu],
        margin={"l": 70, "r": 20, "t": 100, "b": 60},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", title="depth")
    figure.update_xaxes(type="category", title="frames")
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id="needles"))


def _panel(
    found: Records, task: str, score: str, row: str, lengths: list[int], depths: list[float]
) -> tuple[list[list[float | None]], list[list[str]]]:
    cells = values(found, task, score)
    table = [[cells.get((row, length, depth), math.nan) for length in lengths] for depth in [*depths, None]]
    return [[None if math.isnan(v) else v for v in line] for line in table], [[_number(v) for v in x] for x in table]
