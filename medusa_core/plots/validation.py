"""Figures of the simulator against measurements: published speed-ups, and times by rows."""

from __future__ import annotations

import html
import math

import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS, SYMBOLS, ramp, styled

BAND = 0.15  # error that the shaded band of `fig_published` marks


def fig_published(rows: list[dict]) -> go.Figure:
    """Predicted against published speed-up, one marker a row of `validation.published_rows`, by source.

    Lines go down to the prediction without overlap; the band marks an error of 15 %.
    """
    ends = [0.9, 1.08 * max(max(row["published"], row["speed-up"]) for row in rows)]
    figure = go.Figure()
    figure.add_scatter(
        x=[*ends, *ends[::-1]],
        y=[(1 - BAND) * ends[0], (1 - BAND) * ends[1], (1 + BAND) * ends[1], (1 + BAND) * ends[0]],
        fill="toself",
        fillcolor="rgba(118,118,118,0.18)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=f"within {BAND:.0%}",
    )
    line = {"color": COLOURS["plain"], "width": 2, "dash": "dash"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name="as published")
    sources = list(dict.fromkeys(row["source"] for row in rows))
    for source, colour, symbol in zip(sources, ramp(len(sources)), SYMBOLS):
        own = [row for row in rows if row["source"] == source]
        figure.add_scatter(
            x=[row["published"] for row in own],
            y=[round(row["speed-up"], 4) for row in own],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0.0] * len(own),
                "arrayminus": [round(row["speed-up"] - row["no overlap"], 4) for row in own],
                "width": 0,
                "thickness": 1,
                "color": colour,
            },
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 12, "line": {"width": 1, "color": "#000"}},
            hovertext=[_published_hover(row) for row in own],
            hovertemplate="%{hovertext}<extra></extra>",
            name=html.escape(source),
        )
    figure.update_xaxes(title="published speed-up", range=ends, constrain="domain")
    figure.update_yaxes(title="predicted speed-up", range=ends, scaleanchor="x", constrain="domain")
    return styled(figure, "Predicted and published speed-ups (lines: without overlap)", height=620)


def fig_rows(curves: dict[str, list[float]], title: str) -> go.Figure:
    """Time by rows relative to one row: measured, and the two bounds of the model (`validation.kernel_rows`)."""
    figure = go.Figure()
    for name, dash, colour in (("overlap", "solid", ramp(2)[0]), ("no overlap", "dash", ramp(2)[1])):
        figure.add_scatter(
            x=curves["rows"],
            y=[round(value, 4) for value in curves[name]],
            mode="lines",
            line={"color": colour, "width": 3, "dash": dash},
            name=f"predicted, {name}",
            hovertemplate="%{x} rows: %{y:.2f}<extra>%{fullData.name}</extra>",
        )
    figure.add_scatter(
        x=curves["rows"],
        y=[round(value, 4) for value in curves["measured"]],
        mode="markers",
        marker={"color": COLOURS["rejected"], "size": 10, "line": {"width": 1, "color": "#000"}},
        name="measured",
        hovertemplate="%{x} rows: %{y:.2f}<extra>measured</extra>",
    )
    ticks = [2**power for power in range(int(math.log2(max(curves["rows"]))) + 1)]
    figure.update_xaxes(title="rows", type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks])
    figure.update_yaxes(title="time, one row = 1", type="log", dtick=math.log10(2))
    return styled(figure, title)


def _published_hover(row: dict) -> str:
    lines = (
        f"<b>{row['method']}, {row['model']}, {row['heads']} heads</b>",
        f"{row['benchmark']}, {row['machine']}",
        f"published {row['published']:.2f}x, predicted {row['speed-up']:.2f}x ({row['error']:+.0%})",
        f"{row['tokens/step']:.2f} tokens/step, overhead {row['published overhead']:.2f}, "
        f"predicted {row['overhead']:.2f}",
    )
    return "<br>".join(lines)
