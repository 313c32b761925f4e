"""Figures of base and heads learning together: what the recipes do, what the base pays, what the heads gain."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.palette import COLOURS, series, styled

PANELS = {
    "kl": "KL(base || adapted), nats",
    "perplexity": "perplexity of held-out answers",
    "loss": "heads' loss, nats",
}


def fig_recipes(scales: Mapping[str, Sequence[float]]) -> go.Figure:
    """What the heads' loss is multiplied by at each update, a line for each recipe."""
    figure = go.Figure()
    for number, (name, values) in enumerate(scales.items()):
        style = series(number, len(scales))
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=[round(float(value), 4) for value in values],
            name=html.escape(name),
            mode="lines",
            line=style["line"],
            hovertemplate="update %{x}: %{y:.2f}<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(title="update")
    figure.update_yaxes(title="s(step)", rangemode="tozero")
    return styled(figure, "How much the heads' loss counts", height=320)


def fig_joint(histories: Mapping[str, Mapping]) -> go.Figure:
    """The base's divergence and perplexity and the heads' loss on held-out answers, a line for each run.

    histories: as `train2.fit` returns them. The dotted line is the perplexity of the base before.
    """
    figure = make_subplots(cols=3, subplot_titles=list(PANELS.values()), horizontal_spacing=0.07)
    for number, (name, history) in enumerate(histories.items()):
        for column, key in enumerate(PANELS, 1):
            figure.add_scatter(
                x=[entry["step"] for entry in history["held_out"]],
                y=[round(entry[key], 5) for entry in history["held_out"]],
                name=html.escape(name),
                legendgroup=name,
                showlegend=column == 1,
                mode="lines+markers",
                hovertemplate="update %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
                row=1,
                col=column,
                **series(number, len(histories)),
            )
    before = next(iter(histories.values()))["held_out"][0]["perplexity"]
    figure.add_hline(y=before, line={"color": COLOURS["plain"], "dash": "dot", "width": 2}, row=1, col=2)
    figure.update_xaxes(title="update")
    figure.update_yaxes(rangemode="tozero", col=1)
    figure.update_annotations(font_size=14)
    legend = {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"}
    return styled(figure, "What the base pays and what the heads learn, on held-out answers", legend=legend)


def fig_gain_and_cost(rows: Sequence[Mapping], nodes: int, key: str = "counted") -> go.Figure:
    """Tokens a step, "counted" or "measured", against the base's divergence, a marker for each of `rows`.

    A row holds "heads", "KL" and `key`; the others are held against the first.
    """
    figure = go.Figure()
    for number, row in enumerate(rows):
        figure.add_scatter(
            x=[round(row["KL"], 5)],
            y=[round(row[key], 4)],
            name=html.escape(row["heads"]),
            mode="markers+text",
            text=[html.escape(row["heads"])],
            textposition="top center",
            marker={"size": 14, **series(number, len(rows))["marker"]},
            hovertemplate="KL %{x:.4f}: %{y:.3f} tokens / step<extra>%{fullData.name}</extra>",
            showlegend=False,
        )
    figure.add_hline(y=rows[0][key], line={"color": COLOURS["plain"], "dash": "dot", "width": 2})
    most = max(row["KL"] for row in rows)
    figure.update_xaxes(
        title="KL(base || adapted) on held-out answers, nats", range=[-0.12 * most, 1.15 * most]
    )
    figure.update_yaxes(title=f"{key} tokens / step, {nodes} nodes")
    return styled(figure, "What the heads gain against what the base pays")
