"""How all figures look: colours, marks, fonts, and the fragment that goes into a page."""

import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

Records = Sequence[dict[str, Any]]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#b15928", "#3c3c3c")
GREYS = ("#8a8f98", "#b4b9c2")
SHAPES = ("circle", "square", "diamond", "triangle-up")
"""Of variants whose colours come again."""
MANY = 9
"""Rows beyond which a figure takes the whole width of the page, its legend beside it."""


def colours(records: Records) -> dict[str, str]:
    """One colour a variant, grey for the baselines."""
    role = {r["variant"]: r["role"] for r in records}
    plain = [v for v in role if role[v] == "baseline"]
    others = [v for v in role if role[v] != "baseline"]
    chosen = {v: GREYS[i % len(GREYS)] for i, v in enumerate(plain)}
    return chosen | {v: COLOURS[i % len(COLOURS)] for i, v in enumerate(others)}


def marks(records: Records) -> dict[str, str]:
    """A star for the uncompressed row, a cross for baselines, shapes by turns where colours come again."""
    role = {r["variant"]: r["role"] for r in records}
    found = {v: {"uncompressed": "star", "baseline": "x"}.get(role[v], "") for v in role}
    others = [v for v in role if role[v] != "baseline"]
    return {v: found[v] or SHAPES[others.index(v) // len(COLOURS) % len(SHAPES)] for v in role}


def plain(figure: go.Figure, legend_above: bool = False) -> dict[str, Any]:
    """``data`` and ``layout`` for plotly.js."""
    _styled(figure, legend_above)
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain


def html(figure: go.Figure, legend_above: bool = False) -> str:
    _styled(figure, legend_above)
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    )


def _styled(figure: go.Figure, legend_above: bool) -> None:
    below = {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0}
    above = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 13},
        margin={"l": 60, "r": 20, "t": 60 if figure.layout.margin.t is None else figure.layout.margin.t, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"itemsizing": "constant"} | (above if legend_above else below),
    )
    if not legend_above and len({trace.name for trace in figure.data}) > MANY:
        figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}, height=640)
    figure.update_yaxes(automargin=True)
