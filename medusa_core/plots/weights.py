"""Figures of a checkpoint: where its bytes are, and what rounding to half precision does to 4-bit weights."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from medusa_core.plots.palette import PATTERNS, ramp, styled


def fig_bytes(stores: dict[str, dict[str, int]]) -> go.Figure:
    """Megabytes of each group of tensors, one bar a store: stores maps a store's name to {group: bytes}."""
    figure = go.Figure()
    for (store, groups), colour, pattern in zip(stores.items(), ramp(len(stores)), PATTERNS):
        total = sum(groups.values())
        figure.add_bar(
            y=[html.escape(group) for group in groups],
            x=[round(size / 1e6, 3) for size in groups.values()],
            orientation="h",
            name=f"{html.escape(store)}: {total / 1e6:.0f} MB",
            marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF", "solidity": 0.2}},
            text=[f"{size / 1e6:.1f} MB, {size / total:.1%}" for size in groups.values()],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.2f} MB<extra>" + html.escape(store) + "</extra>",
        )
    largest = max(size for groups in stores.values() for size in groups.values())
    figure.update_xaxes(title="megabytes", range=[0, 1.3 * largest / 1e6])
    figure.update_yaxes(autorange="reversed", automargin=True, ticklabelstandoff=6)
    return styled(
        figure,
        "Where the bytes are",
        barmode="group",
        legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"},
    )


def fig_rounding(errors: np.ndarray, bins: int = 41) -> go.Figure:
    """Histogram of rounding errors, given in units of the distance between neighbouring 4-bit levels."""
    most = float(np.abs(errors).max()) or 1.0
    count, edges = np.histogram(errors, bins=bins, range=(-most, most))
    figure = go.Figure(
        go.Bar(
            x=((edges[:-1] + edges[1:]) / 2).round(6).tolist(),
            y=(count / count.sum()).round(5).tolist(),
            marker={"color": ramp(1)[0]},
            hovertemplate="error %{x:.3f} of a level: %{y:.2%} of the weights<extra></extra>",
        )
    )
    figure.update_xaxes(title="rounding error, in distances between 4-bit levels", tickformat=".0%")
    figure.update_yaxes(title="share of the weights", tickformat=".0%")
    return styled(figure, "What bfloat16 adds to the error of four bits", bargap=0.03)
