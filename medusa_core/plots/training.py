"""Figures of training: loss and accuracy of each head over the steps, and what the trained heads can do."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.palette import DASHES, PATTERNS, SYMBOLS, ramp, styled


def fig_losses(history: dict) -> go.Figure:
    """Cross-entropy of each head: lines on the training tokens, markers on held-out tokens.

    history: {"train": [{"step", "head_loss": [K]}, ...], "held_out": [the same, ...]}, as training writes it.
    """
    figure = go.Figure(_curves(history, "head_loss", digits=3))
    figure.update_xaxes(title="update")
    figure.update_yaxes(title="cross-entropy (nats)")
    return styled(figure, "Loss of each head: lines training, markers held-out")


def fig_accuracy(history: dict) -> go.Figure:
    """Top-1 and top-5 accuracy of each head over training, side by side; history as for `fig_losses`."""
    figure = make_subplots(
        cols=2, shared_yaxes=True, subplot_titles=("top-1", "top-5"), horizontal_spacing=0.04
    )
    for column, key in ((1, "top1"), (2, "top5")):
        for trace in _curves(history, key, digits=3):
            trace.showlegend = bool(trace.showlegend) and column == 1
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title="update")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="of the next tokens guessed", col=1)
    return styled(figure, "Accuracy of each head: lines training, markers held-out")


def fig_head_accuracy(tables: dict[str, object]) -> go.Figure:
    """Top-1 and top-5 accuracy by head, one pair of bars for each name -> accuracy (K, R) of single ranks."""
    figure = go.Figure()
    for (name, table), colour in zip(tables.items(), ramp(len(tables))):
        table = np.asarray(table, dtype=float)
        heads = [f"head {k + 1}" for k in range(len(table))]
        for ranks, pattern in ((1, PATTERNS[0]), (5, PATTERNS[1])):
            value = table[:, :ranks].sum(axis=1)
            figure.add_bar(
                x=heads,
                y=value.round(4).tolist(),
                name=f"{html.escape(name)}, top-{ranks}",
                marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF"}},
                text=[f"{share:.0%}" for share in value],
                textposition="outside",
                textangle=-90 if len(tables) > 1 else 0,
                cliponaxis=False,
                hovertemplate="%{x}: %{y:.1%}<extra>%{fullData.name}</extra>",
            )
    figure.update_yaxes(title="of the next tokens guessed", tickformat=".0%", rangemode="tozero")
    return styled(figure, "How often each head's guess is the token that comes", barmode="group")


def _curves(history: dict, key: str, digits: int) -> list[go.Scatter]:
    train, held_out = history["train"], history["held_out"]
    heads = len((train or held_out)[0][key]) if train or held_out else 0
    traces = []
    for head, colour in enumerate(ramp(heads) if heads else []):
        shared = {"legendgroup": f"head {head + 1}", "name": f"head {head + 1}"}
        symbol = SYMBOLS[head % len(SYMBOLS)]
        traces.append(
            go.Scatter(
                x=[entry["step"] for entry in train],
                y=[round(entry[key][head], digits) for entry in train],
                mode="lines",
                line={"color": colour, "width": 2, "dash": DASHES[head % len(DASHES)]},
                hovertemplate="update %{x}: %{y}<extra>" + shared["name"] + ", training</extra>",
                **shared,
            )
        )
        traces.append(
            go.Scatter(
                x=[entry["step"] for entry in held_out],
                y=[round(entry[key][head], digits) for entry in held_out],
                mode="markers",
                marker={"color": colour, "size": 11, "symbol": symbol, "line": {"width": 1, "color": "#000"}},
                hovertemplate="update %{x}: %{y}<extra>" + shared["name"] + ", held-out</extra>",
                showlegend=False,
                **shared,
            )
        )
    for trace in traces[::2]:
        trace.showlegend = True
    return traces
