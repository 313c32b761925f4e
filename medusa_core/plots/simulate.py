"""Figures of the simulator: speed-up by tree size, the best tree by machine, and where a step's time goes.

States that a figure can be asked for are drawn beforehand and switched by its slider, which needs no kernel.
"""

from __future__ import annotations

import html
import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.palette import COLOURS, DASHES, PATTERNS, SYMBOLS, bar, ramp, styled
from medusa_core.simulate import Prediction, Sweep

PARTS = ("layers", "attention", "LM head", "draft")
POINTS = 120  # of a curve over rows, closer where there are few: notebooks keep every curve of every state
ROW_TICKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def fig_nodes(states: dict[str, dict[str, Sweep]], label: str, shown: str | None = None) -> go.Figure:
    """Speed-up against the rows of a step, one line a name, its best tree marked; a slider over the states.

    label: what the states are, for example "batch size". shown: the state to start with, otherwise the first.
    """
    figure = go.Figure()
    for sweeps in states.values():
        for place, ((name, sweep), colour) in enumerate(zip(sweeps.items(), ramp(len(sweeps)))):
            best = sweep.best_nodes
            line = {"color": colour, "width": 3, "dash": DASHES[place % len(DASHES)]}
            shared = {"name": html.escape(name), "legendgroup": name, "line": line}
            rows = np.unique(np.geomspace(1, len(sweep.speedup), POINTS).round().astype(int))
            figure.add_scatter(
                x=rows.tolist(),
                y=sweep.speedup[rows - 1].round(4).tolist(),
                mode="lines",
                hovertemplate="%{x} rows: %{y:.2f}x<extra>" + html.escape(name) + "</extra>",
                showlegend=False,
                **shared,
            )
            figure.add_scatter(
                x=[best + 1],
                y=[round(float(sweep.speedup[best]), 4)],
                mode="lines+markers",
                marker=_mark(colour, SYMBOLS[place % len(SYMBOLS)]),
                hovertemplate=f"best: {best} nodes, %{{y:.2f}}x<extra>{html.escape(name)}</extra>",
                **shared,
            )
    highest = max(float(sweep.speedup.max()) for sweeps in states.values() for sweep in sweeps.values())
    most = max(len(sweep.speedup) for sweeps in states.values() for sweep in sweeps.values())
    _row_axis(figure, most)
    figure.update_yaxes(title="times as fast as plain", range=[0, 1.1 * max(highest, 1.0)])
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    title = f"Speed-up by size of the tree, {label} {{}} (marked: the best)"
    layouts = {state: {"title.text": title.format(state)} for state in states}
    return _switched(styled(figure, "", height=540), layouts, label, shown)


def fig_best_tree(
    states: dict[str, np.ndarray],
    balances,
    batches,
    machines: dict[str, float],
    label: str,
    shown: str | None = None,
) -> go.Figure:
    """Nodes of the best tree, states[name] (batches, balances), by a machine's operations a byte and batch size.

    machines: balance by name, marked above the map. A slider goes over the states; label and shown as in fig_nodes.
    """
    figure = go.Figure()
    x = np.log2(balances)
    most = max(int(np.max(grid)) for grid in states.values())
    ticks = [nodes for nodes in (0, 1, 3, 7, 15, 31, 63, 127, 255) if nodes <= most]
    for grid in states.values():
        figure.add_heatmap(
            x=x.round(4).tolist(),
            y=[str(batch) for batch in batches],
            z=np.log2(np.asarray(grid) + 1.0).round(4).tolist(),
            text=np.asarray(grid).astype(int).tolist(),
            texttemplate="%{text}",
            customdata=[[round(float(balance), 1) for balance in balances] for _ in batches],
            hovertemplate="%{customdata} operations a byte, batch %{y}: %{text} nodes<extra></extra>",
            colorscale="Cividis",
            zmin=0,
            zmax=math.log2(most + 1),
            colorbar={
                "title": {"text": "nodes", "side": "right"},
                "tickvals": [math.log2(nodes + 1) for nodes in ticks],
                "ticktext": ticks,
            },
            xgap=1,
            ygap=1,
        )
    powers = range(math.ceil(x[0]), math.floor(x[-1]) + 1)
    ticks = {"tickvals": list(powers), "ticktext": [str(2**power) for power in powers]}
    figure.update_xaxes(title="operations a byte that the machine can do", **ticks)
    figure.update_yaxes(title="batch size", type="category", ticklabelstandoff=6)
    for name, place in _merged(machines):
        figure.add_annotation(x=place, y=1.02, yref="paper", yanchor="bottom", text=html.escape(name))
        figure.add_shape(type="line", x0=place, x1=place, y0=1.0, y1=1.02, yref="paper", line={"width": 2})
    figure.update_annotations(textangle=-90, showarrow=False)
    layouts = {state: {"title.text": f"Nodes of the fastest tree, {label} {state}"} for state in states}
    styled(figure, "", height=690, margin={"l": 80, "r": 30, "t": 230, "b": 70})
    return _switched(figure, layouts, label, shown).update_layout(title={"y": 0.97, "yanchor": "top"})


def fig_step_parts(
    states: dict[str, dict[str, Prediction]], label: str, shown: str | None = None
) -> go.Figure:
    """A step's time by part, in units of a plain step, one bar a name; a slider over the states, as in fig_nodes."""
    figure, layouts = go.Figure(), {}
    for state, predictions in states.items():
        steps = list(predictions.values())[::-1]  # plotly draws the first bar at the bottom
        names = [html.escape(name) for name in predictions][::-1]
        for part, colour, pattern in zip(PARTS, ramp(len(PARTS)), PATTERNS):
            spent = [step.step.get(part, 0.0) for step in steps]
            figure.add_bar(
                y=names,
                x=[round(value / step.plain_seconds, 4) for value, step in zip(spent, steps)],
                orientation="h",
                name=part,
                marker=bar(colour, pattern),
                customdata=[round(1e3 * value, 3) for value in spent],
                hovertemplate="%{y}, " + part + ": %{x:.3f} plain steps, %{customdata} ms<extra></extra>",
            )
        figure.add_scatter(
            x=[round(step.overhead, 4) for step in steps],
            y=names,
            mode="text",
            text=[f" {step.overhead:.2f}" for step in steps],
            textposition="middle right",
            hoverinfo="skip",
            showlegend=False,
            cliponaxis=False,
        )
        layouts[state] = {
            "title.text": f"Where the time of a step goes, {label} {state}",
            "xaxis.range": [0, round(1.12 * max(step.overhead for step in steps), 3)],
        }
    figure.add_vline(x=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.update_xaxes(title="plain steps (dashed: one)")
    figure.update_yaxes(automargin=True, ticklabelstandoff=6)
    height = 240 + 46 * max(map(len, states.values()))
    styled(figure, "", height=height, barmode="stack", legend={"traceorder": "normal"})
    return _switched(figure, layouts, label, shown)


def fig_scenario(sweep: Sweep, prediction: Prediction, nodes: int, title: str) -> go.Figure:
    """One scenario: tokens/step, overhead and speed-up by rows with `nodes` marked, and the two steps' parts."""
    figure = make_subplots(
        cols=2,
        column_widths=[0.62, 0.38],
        horizontal_spacing=0.12,
        subplot_titles=("by size of the tree", "one step"),
    )
    rows = np.arange(1, len(sweep.speedup) + 1)
    lines = {"tokens/step": sweep.tokens_per_step, "overhead": sweep.overhead, "speed-up": sweep.speedup}
    marks = (prediction.tokens_per_step, prediction.overhead, prediction.speedup)
    shades = ramp(len(lines) + 1)  # without the lightest, which is too pale for a line on white
    for (name, values), mark, colour, dash, symbol in zip(lines.items(), marks, shades, DASHES, SYMBOLS):
        figure.add_scatter(
            x=rows.tolist(),
            y=values.round(4).tolist(),
            mode="lines",
            line={"color": colour, "width": 3, "dash": dash},
            name=name,
            hovertemplate="%{x} rows: %{y:.2f}<extra>" + name + "</extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=[nodes + 1],
            y=[round(mark, 4)],
            mode="markers",
            marker=_mark(colour, symbol),
            showlegend=False,
            hovertemplate=f"{nodes} nodes: %{{y:.2f}}<extra>{name}</extra>",
            row=1,
            col=1,
        )
    for part, colour, pattern in zip(PARTS, ramp(len(PARTS)), PATTERNS):
        figure.add_bar(
            x=["plain", "Medusa"],
            y=[round(1e3 * step.get(part, 0.0), 4) for step in (prediction.plain, prediction.step)],
            marker=bar(colour, pattern),
            name=part,
            hovertemplate="%{x}, " + part + ": %{y:.2f} ms<extra></extra>",
            row=1,
            col=2,
        )
    _row_axis(figure, len(rows), col=1)
    figure.update_yaxes(rangemode="tozero", col=1)
    if sweep.overhead.max() > (top := 1.3 * float(sweep.tokens_per_step.max())):
        figure.update_yaxes(
            range=[0, top], col=1
        )  # or the largest trees' overhead would flatten what the others bring
    figure.update_yaxes(title="milliseconds", col=2)
    return styled(figure, title, barmode="stack", legend={"traceorder": "normal"})


def _switched(figure: go.Figure, layouts: dict[str, dict], label: str, shown: str | None) -> go.Figure:
    """Show one state's traces and layout, with a slider to the others; every state has equally many traces."""
    names = list(layouts)
    if shown is not None and shown not in names:
        raise ValueError(f"state {shown!r} is not there: choose one of {', '.join(names)}")
    active = names.index(shown) if shown is not None else 0
    each = len(figure.data) // len(names)
    for place, trace in enumerate(figure.data):
        trace.visible = place // each == active
    figure.update_layout(**{key.replace(".", "_"): value for key, value in layouts[names[active]].items()})
    steps = [
        {
            "label": name,
            "method": "update",
            "args": [
                {"visible": [place // each == number for place in range(len(figure.data))]},
                layouts[name],
            ],
        }
        for number, name in enumerate(names)
    ]
    slider = {"steps": steps, "active": active, "currentvalue": {"prefix": f"{label}: "}, "pad": {"t": 60}}
    return figure.update_layout(
        sliders=[slider], margin_b=figure.layout.margin.b + 110, height=figure.layout.height + 110
    )


def _row_axis(figure: go.Figure, most: int, **where) -> None:
    figure.update_xaxes(
        title="rows of a step (1: plain decoding)",
        type="log",
        range=[-0.02, math.log10(most) + 0.03],
        tickvals=list(ROW_TICKS),
        ticktext=[str(rows) for rows in ROW_TICKS],
        **where,
    )


def _mark(colour: str, symbol: str) -> dict:
    return {"color": colour, "symbol": symbol, "size": 13, "line": {"width": 1.5, "color": "#000"}}


def _merged(machines: dict[str, float], apart: float = 0.22) -> list[tuple[str, float]]:
    """Names and log2 of balances, ascending; names that would overlap share a mark."""
    merged: list[tuple[str, float]] = []
    for name, balance in sorted(machines.items(), key=lambda pair: pair[1]):
        place = math.log2(balance)
        if merged and place - merged[-1][1] < apart:
            merged[-1] = (f"{merged[-1][0]}, {name}", merged[-1][1])
        else:
            merged.append((name, place))
    return merged
