"""Figures of the dashboard about heads, whoever measured them: accuracy by depth, and what trees of any size bring."""

from __future__ import annotations

import html
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.dashboard import BELOW, narrow
from medusa_core.plots.palette import COLOURS, DASHES, SYMBOLS, ramp, styled
from medusa_core.results import Sweep

MOST_ROWS = 32


def fig_depth_accuracy(
    accuracy: Mapping[str, tuple[list, list]], head: str | None = None
) -> go.Figure | None:
    """Top-1 and top-5 accuracy by depth, a line a set of heads; accuracy: (top-1, top-5) by name."""
    if not accuracy:
        return None
    figure = _two("best guess right", "right one among five", shared_yaxes=True)
    for column in (1, 2):
        for number, (name, tops) in enumerate(accuracy.items()):
            values = tops[column - 1]
            figure.add_scatter(
                x=list(range(1, len(values) + 1)),
                y=[round(value, 4) for value in values],
                **_line(name, number, len(accuracy)),
                mode="lines+markers+text" if len(accuracy) == 1 else "lines+markers",
                text=[f"{value:.0%}" for value in values],
                textposition="top center",
                cliponaxis=False,
                showlegend=column == 1,
                hovertemplate="depth %{x}: %{y:.1%}<extra>" + html.escape(name) + "</extra>",
                row=1,
                col=column,
            )
    figure.update_xaxes(title="depth of the guess", dtick=1, range=[0.6, None], automargin=True)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="of the next tokens", col=1)
    return narrow(styled(figure, "How often guesses are right", height=480, legend=BELOW), head=head)


def fig_tree_sweep(sweeps: Mapping[str, Sweep], head: str | None = None) -> go.Figure | None:
    """Expected tokens a step and speed-up of the best tree of each size; open symbols are measured trees."""
    if not sweeps:
        return None
    figure = _two("tokens / step", "speed-up")
    for number, (name, sweep) in enumerate(sweeps.items()):
        rows = list(range(1, min(len(sweep.speedup), MOST_ROWS) + 1))
        line = _line(name, number, len(sweeps))
        for column, values in ((1, sweep.tokens), (2, sweep.speedup)):
            figure.add_scatter(
                x=rows,
                y=[round(value, 4) for value in values[: len(rows)]],
                **{**line, "marker": {**line["marker"], "size": 5}},
                mode="lines+markers",
                showlegend=column == 1,
                hovertemplate="%{x} rows: %{y:.2f}<extra>" + html.escape(name) + "</extra>",
                row=1,
                col=column,
            )
        measured = [each for each in sweep.measured if each["rows"] <= MOST_ROWS]
        figure.add_scatter(
            x=[each["rows"] for each in measured],
            y=[each["speedup"] for each in measured],
            text=[html.escape(each["name"]) for each in measured],
            name=f"{html.escape(name)}, measured",
            mode="markers",
            marker={**line["marker"], "symbol": f"{SYMBOLS[(number + 1) % len(SYMBOLS)]}-open", "size": 13,
                    "line": {"width": 2}},
            meta={"head": [name]},
            showlegend=bool(measured),
            hovertemplate="%{text}: %{x:.1f} rows, %{y:.2f}x measured<extra></extra>",
            row=1,
            col=2,
        )  # fmt: skip
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"}, row=1, col=2)
    figure.update_xaxes(title="rows in a step", automargin=True)
    return narrow(styled(figure, "Trees of every size on this machine", height=480, legend=BELOW), head=head)


def _two(left: str, right: str, **options) -> go.Figure:
    return make_subplots(cols=2, subplot_titles=(left, right), horizontal_spacing=0.1, **options)


def _line(name: str, number: int, count: int) -> dict:
    colour = ramp(count)[number]
    return {
        "name": html.escape(name),
        "legendgroup": name,
        "meta": {"head": [name]},
        "line": {"width": 3, "color": colour, "dash": DASHES[number % len(DASHES)]},
        "marker": {"size": 10, "color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)]},
    }
