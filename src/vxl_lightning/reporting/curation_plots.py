"""Figures of a pruning report, as plotly HTML fragments: all counts are binned before they reach the page."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from vxl_lightning.curation.select import DURATION_NAMES

BLUE, ORANGE, RED, GREY = "#0072b2", "#d55e00", "#8b1a4f", "#8a8f98"
BINS = 60
MOST_BARS = 16
"""Bars of a figure of strata; what is smaller is added up."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """One rule of the funnel: what it took away, or would have."""

    rule: str
    effect: str
    """dropped, quarantined or would drop"""
    count: int
    left: int
    """Samples after it."""


_EFFECTS = {
    "dropped": {"color": ORANGE},
    "quarantined": {"color": RED},
    "would drop": {
        "color": "#fff",
        "line": {"color": ORANGE, "width": 1},
        "pattern": {"shape": "/", "fgcolor": ORANGE},
    },
}


def funnel(read: int, steps: Sequence[Step]) -> str:
    """What is left after every rule that found something, and what that rule took."""
    kept = steps[-1].left if steps else read
    names = ["read", *(_plain(s.rule) for s in steps), "kept"]
    left = [read, *(s.left - (s.count if s.effect == "would drop" else 0) for s in steps), kept]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=left, name="left", orientation="h", marker={"color": [BLUE, *["#b9d4e6"] * len(steps), BLUE]},
        text=[f"{read:,}", *[""] * len(steps), f"{kept:,}"], textposition="inside", insidetextanchor="end",
        hovertemplate="%{y}: %{x:,} left<extra></extra>", showlegend=False,
    )  # fmt: skip
    for effect, marker in _EFFECTS.items():
        if any(s.effect == effect for s in steps):
            count = [s.count if s.effect == effect else None for s in steps]
            figure.add_bar(
                y=names, x=[None, *count, None], name=effect, orientation="h", marker=marker, textposition="outside",
                text=["", *(f"{'would −' if effect == 'would drop' else '−'}{n:,}" if n else "" for n in count), ""],
                cliponaxis=False, textangle=0, hovertemplate="%{y}: %{x:,} " + effect + "<extra></extra>",
            )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.25, showlegend=bool(steps))
    figure.update_xaxes(title="samples", range=[0, read * 1.15 or 1])
    figure.update_yaxes(autorange="reversed", ticksuffix=" ")
    return _html(figure, "plot-funnel", height=110 + 30 * len(names))


def histogram(number: int, scores: Floats, fails: Mask, threshold: float | None, label: str) -> str:
    """Counts of finite ``scores``; those that fail are orange.

    Bins have an edge at the threshold, so that the colours divide where the rule does. Where it lies far below most
    scores the axis is logarithmic; scores below its first bin are counted in that bin.
    """
    edges, log = _edges(scores, threshold)
    within = np.clip(scores, edges[0], edges[-1])
    figure = go.Figure()
    for name, colour, chosen in (("passes", BLUE, ~fails), ("fails", ORANGE, fails)):
        part = within[chosen]
        if threshold is not None and len(part):
            # A score at the threshold lies on an edge: it belongs with its own kind.
            part = np.where(part == threshold, np.nextafter(threshold, part.mean()), part)
        counts = np.histogram(part, edges)[0]
        filled = np.flatnonzero(counts)
        if not len(filled):
            continue
        first, last = filled[0], filled[-1] + 1
        # An outline of steps rather than bars: plotly's bars have no width of their own on a logarithmic axis.
        figure.add_scatter(
            x=[edges[first], *edges[first : last + 1]], y=[0, *counts[first:last].tolist(), 0], name=name,
            mode="lines", fill="tozeroy", line={"shape": "hv", "width": 1, "color": colour}, fillcolor=colour,
            hovertemplate="from %{x:.4g}: %{y:,}<extra>" + name + "</extra>",
        )  # fmt: skip
    if threshold is not None:
        figure.add_vline(x=threshold, line={"color": "#1c2430", "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title=label, type="log" if log else "linear", exponentformat="power" if log else "none")
    if log:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title="samples", rangemode="tozero")
    figure.update_layout(showlegend=False)
    figure.update_layout(margin_t=10)
    return _html(figure, f"plot-score-{number}", height=230)


def _edges(scores: Floats, threshold: float | None) -> tuple[Floats, bool]:
    """Edges of equal bins over all scores, one of them at the threshold, and whether they are equal in logarithm."""
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    if threshold is None:
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        return np.linspace(low, high, BINS + 1), False
    log = low >= 0 and threshold > 0 and float(np.median(scores) if len(scores) else 0.0) > 10 * threshold
    anchor = threshold
    if log:
        positive = scores[scores > 0]
        low = max(float(positive.min()), threshold / 100)
        low, high, anchor = (float(np.log10(v)) for v in (low, high, threshold))
    low, high = min(low, anchor), max(high, anchor)
    step = (high - low) / BINS or 1.0 / BINS
    first, last = int(np.floor((low - anchor) / step + 1e-6)), int(np.ceil((high - anchor) / step - 1e-6))
    edges = anchor + step * np.arange(min(first, -1), max(last, 1) + 1)
    found: Floats = np.asarray(10.0**edges if log else edges, np.float64)
    found[np.abs(found - threshold).argmin()] = threshold  # which rounding may have moved
    return found, log


def strata(name: str, before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Grid tokens of every value of one property, before and after."""
    largest = sorted(before, key=lambda k: (-before[k], k))
    shown = largest[:MOST_BARS]
    rest = largest[MOST_BARS:]
    if name == "duration":
        shown.sort(key=lambda d: DURATION_NAMES.index(d) if d in DURATION_NAMES else len(DURATION_NAMES))
    labels = [_plain(k, 28) or "(none)" for k in shown]
    bars = {"before": [before[k] for k in shown], "after": [after[k] for k in shown]}
    if rest:
        labels.append(f"{len(rest)} more")
        bars["before"].append(sum(before[k] for k in rest))
        bars["after"].append(sum(after[k] for k in rest))
    figure = go.Figure()
    for (side, values), colour in zip(bars.items(), ("#b9d4e6", BLUE), strict=True):
        # Numbered places, because two long names may be cut to the same label.
        figure.add_bar(
            y=list(range(len(labels))), x=values, name=side, orientation="h", marker={"color": colour},
            customdata=labels, hovertemplate=f"%{{customdata}}: %{{x:,}} tokens {side}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="grid tokens", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(labels))), ticktext=labels, ticksuffix=" ")
    figure.update_layout(bargap=0.3)
    return _html(figure, f"plot-strata-{name}", height=130 + 34 * len(labels))


def short_number(value: float) -> str:
    """Three digits and thousands: 0.0123, 12.3, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _plain(text: str, longest: int = 40) -> str:
    """Text of unknown origin as plotly shows it unchanged: it reads tags in labels. Paths differ at their ends."""
    if len(text) > longest:
        text = f"{text[: longest // 3]}…{text[-(longest - longest // 3 - 1) :]}"
    return html.escape(text, quote=False)


def _html(figure: go.Figure, name: str, height: int) -> str:
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 12},
        margin={"l": 50, "r": 14, "t": figure.layout.margin.t or 34, "b": 46},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        dragmode=False,  # A finger that scrolls the page must not zoom a figure.
        height=height,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    # A name rather than plotly's random one: the same tables give the same page.
    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=name, default_height=f"{height}px",
            config={"displayModeBar": False, "responsive": True},
        )
    )  # fmt: skip
