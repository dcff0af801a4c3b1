"""The report's figures, as plotly HTML fragments."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import isnan, log10
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from vxl_lightning.ablation.statistics import ALL_TASKS
from vxl_lightning.reporting.style import colours, html, marks, plain

Records = Sequence[dict[str, Any]]

STEPS = {
    "decode_ms": "decode",
    "encoder_ms": "encoder",
    "compressor_ms": "compressor",
    "selector_ms": "selector",
    "prefill_ms": "prefill",
}


def accuracy_against_tokens(records: Records) -> str:
    """Accuracy of every row against its tokens, one task at a time, chance as a dotted line."""
    return _accuracy_figure(records, {_row(r): r["lm_tokens"] for r in records}, "tokens into the language model")


def accuracy_against_time(records: Records, timings: Records) -> str:
    """Accuracy of every row against its measured milliseconds after encoding."""
    return _accuracy_figure(records, {_row(t): after_encoder(t) for t in timings}, "milliseconds after the encoder")


def time_against_tokens(records: Records, timings: Records) -> str:
    """Milliseconds after the encoder against tokens."""
    tokens = {_row(r): r["lm_tokens"] for r in records}
    colour, mark = colours(records), marks(records)
    figure = go.Figure()
    for variant in dict.fromkeys(t["variant"] for t in timings):
        chosen = sorted((t for t in timings if t["variant"] == variant), key=lambda t: tokens[_row(t)])
        figure.add_scatter(
            x=[tokens[_row(t)] for t in chosen],
            y=[after_encoder(t) for t in chosen],
            name=variant,
            mode="lines+markers" if len(chosen) > 1 else "markers",
            marker={"size": 11, "color": colour[variant], "symbol": mark[variant]},
            hovertemplate=f"{variant}<br>%{{x}} tokens<br>%{{y:.1f}} ms<extra></extra>",
        )
    figure.update_xaxes(type="log", title="tokens into the language model", **_log_ticks(tokens.values()))
    figure.update_yaxes(title="milliseconds after the encoder", rangemode="tozero")
    return html(figure)


def time_by_step(timings: Records) -> str:
    """Where the milliseconds of each row go."""
    steps = [s for s in STEPS if any(t[s] is not None for t in timings)]
    labels = [label(t) for t in timings]
    figure = go.Figure()
    for step, colour in zip(STEPS, ("#c9ced6", "#93a1b5", "#009e73", "#e69f00", "#0072b2"), strict=True):
        if step in steps:
            figure.add_bar(
                y=labels, x=[t[step] for t in timings], name=STEPS[step], orientation="h", marker={"color": colour},
                hovertemplate=f"%{{y}}<br>{STEPS[step]} %{{x:.1f}} ms<extra></extra>",
            )  # fmt: skip
    figure.update_layout(barmode="stack", height=150 + 32 * len(labels))
    figure.update_xaxes(title="milliseconds (median)")
    figure.update_yaxes(autorange="reversed")
    return html(figure, legend_above=True)


def reconstruction_gain(records: Records) -> str | None:
    """Held-out reconstruction of the pretrained rows, or None where there is none."""
    chosen = list({_row(r): r for r in records if r["gain"] is not None}.values())
    if not chosen:
        return None
    labels = [f"{label(r)} · {r['masker']} mask" for r in chosen]
    figure = go.Figure()
    for key, name, colour in (
        ("gain", "over the mean of the visible cells", "#0072b2"),
        ("gain_previous", "over the nearest earlier visible cell", "#e69f00"),
    ):
        figure.add_bar(y=labels, x=[r[key] for r in chosen], name=name, orientation="h", marker={"color": colour})
    figure.update_layout(height=170 + 48 * len(labels))
    figure.update_xaxes(title="squared error saved", tickformat=".0%")
    figure.update_yaxes(autorange="reversed")
    return html(figure, legend_above=True)


def bars_by_group(records: Records, colour: Mapping[str, str], title: str = "mean score") -> dict[str, Any]:
    """Grouped bars, a group of all rows for each category, as plotly's plain values.

    Args:
        records: ``group``, ``row``, ``n``, ``mean``, ``se``, a standard error, None or NaN, and where it is known
            ``chance``; rows and groups are drawn in the order of their first appearance.
        colour: of each row; where a colour comes again, its bars are hatched.
        title: what ``mean`` is.
    """
    rows = list(dict.fromkeys(r["row"] for r in records))
    groups = list(dict.fromkeys(r["group"] for r in records))
    place = {group: i for i, group in enumerate(groups)}
    thick = 13 if len(rows) > 2 else 18
    figure = go.Figure()
    taken: set[str] = set()
    for row in rows:
        chosen = [r for r in records if r["row"] == row]
        figure.add_bar(
            y=[place[r["group"]] for r in chosen],
            x=[_finite(r["mean"]) for r in chosen],
            error_x={"array": [_finite(r["se"]) for r in chosen], "thickness": 1.1, "width": 3, "color": "#3c4654"},
            name=escape(row),
            orientation="h",
            marker={"color": colour[row], "pattern": {"shape": "/" if colour[row] in taken else ""}},
            customdata=[[escape(r["group"]), r["n"], _error(r["se"])] for r in chosen],
            hovertemplate="%{customdata[0]}: %{x:.3f}%{customdata[2]}<br>n = %{customdata[1]:,}",
        )
        taken.add(colour[row])
    chance = {r["group"]: r["chance"] for r in records if r.get("chance") is not None}
    if chance:
        figure.add_scatter(
            y=[place[g] for g in chance],
            x=list(chance.values()),
            name="chance",
            mode="markers",
            marker={
                "symbol": "line-ns", "size": thick * len(rows) / 1.4, "line": {"width": 1.5, "color": "#1c2430"},
            },
            hovertemplate="%{x:.3f}",
        )  # fmt: skip
    n = {r["group"]: r["n"] for r in records}
    ticks = [f"{_wrapped(g)}<br><span style='font-size:11px;color:#5d6878'>n = {n[g]:,}</span>" for g in groups]
    figure.update_xaxes(range=[0, 1.02], title=title, fixedrange=True)
    figure.update_yaxes(
        tickvals=list(range(len(groups))), ticktext=ticks, range=[len(groups) - 0.5, -0.5], fixedrange=True,
        ticks="outside", ticklen=5, tickcolor="rgba(0,0,0,0)", zeroline=False, showgrid=False,
    )  # fmt: skip
    figure.update_layout(bargap=0.25, margin_t=36, height=106 + round(max(thick * len(rows) / 0.75, 46) * len(groups)))
    return plain(figure, legend_above=True)


def label(record: dict[str, Any]) -> str:
    """``variant · retention``."""
    return f"{record['variant']} · {fraction(record['retention'])}"


def fraction(value: float) -> str:
    """``1/16`` where it is one over a whole number."""
    whole = round(1 / value)
    return f"1/{whole}" if value < 1 and abs(1 / value - whole) < 1e-6 else f"{value:.4g}"


def after_encoder(timing: dict[str, Any]) -> float:
    """Milliseconds that depend on the row: compressor, selector and prefill."""
    return float(timing["compressor_ms"] + (timing["selector_ms"] or 0.0) + timing["prefill_ms"])


def _accuracy_figure(records: Records, x_of: dict[tuple[str, float], float], x_title: str) -> str:
    tasks = list(dict.fromkeys(r["task"] for r in records))
    tasks.sort(key=lambda task: task != ALL_TASKS)  # all questions first
    colour, mark = colours(records), marks(records)
    figure = go.Figure()
    owner = []
    for task in tasks:
        of_task = [r for r in records if r["task"] == task and _row(r) in x_of]
        for variant in dict.fromkeys(r["variant"] for r in of_task):
            chosen = sorted((r for r in of_task if r["variant"] == variant), key=lambda r: x_of[_row(r)])
            figure.add_scatter(
                x=[x_of[_row(r)] for r in chosen],
                y=[r["mean"] for r in chosen],
                error_y={"array": [r["se"] or 0 for r in chosen], "thickness": 1.2, "width": 4},
                name=variant,
                visible=task == tasks[0],
                mode="lines+markers" if len(chosen) > 1 else "markers",
                marker={"size": 11, "color": colour[variant], "symbol": mark[variant]},
                hovertemplate=f"{variant}<br>%{{x:.4g}}<br>%{{y:.3f}} ± %{{error_y.array:.3f}}<extra></extra>",
            )
            owner.append(task)
    chance = {r["task"]: r["chance"] for r in records}
    figure.update_xaxes(type="log", title=x_title, **_log_ticks(x_of.values()))
    figure.update_yaxes(title="accuracy", range=[0, 1])
    figure.update_layout(shapes=[_chance_line(chance[tasks[0]])])
    buttons = [
        {
            "label": task,
            "method": "update",
            "args": [{"visible": [o == task for o in owner]}, {"shapes": [_chance_line(chance[task])]}],
        }
        for task in tasks
    ]
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"b": 4}}]
    )
    return html(figure)


def _chance_line(level: float) -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level,
        "line": {"dash": "dot", "width": 1.5, "color": "#8a8f98"},
        "label": {"text": "chance", "textposition": "end", "font": {"size": 11, "color": "#6b7280"}},
    }  # fmt: skip


def _log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """Ticks at the values themselves where they are few, else at 1, 2 and 5 times powers of ten; room beside them."""
    shown = sorted({float(f"{v:.3g}") for v in values})
    low, high = log10(shown[0]) - 0.15, log10(shown[-1]) + 0.15
    ticks: dict[str, Any] = {"range": [low, high]}
    if len(shown) <= 6 and all(b / a > 1.25 for a, b in pairwise(shown)):
        ticks |= {"tickvals": shown, "ticktext": [f"{v:g}" for v in shown]}
    else:
        round_ones = [m * 10.0**e for e in range(int(low) - 1, int(high) + 2) for m in (1, 2, 5)]
        within = [v for v in round_ones if low <= log10(v) <= high]
        ticks |= {"tickvals": within, "ticktext": [f"{v:,g}" for v in within]}
    return ticks


def _row(record: dict[str, Any]) -> tuple[str, float]:
    return record["variant"], record["retention"]


def _finite(value: float | None) -> float | None:
    return None if value is None or isnan(value) else value


def _error(value: float | None) -> str:
    return "" if _finite(value) is None else f" ± {value:.3f}"


def _wrapped(text: str, width: int = 20) -> str:
    """A name in at most two lines, as plotly shows it unchanged: it reads tags in labels."""
    lines = wrap(text, width) or [""]
    if len(lines) > 2:
        lines = [lines[0], f"{lines[1][: width - 1]}…"]
    return "<br>".join(escape(line) for line in lines)
