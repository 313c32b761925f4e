"""Figures that set kinds of heads side by side: training, accuracy, tokens a step, gradients, experts, cost."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.palette import COLOURS, PATTERNS, ramp, series, styled

PLACES = ("top center", "middle left", "middle right", "bottom center", "middle left", "middle right")
BELOW = {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}


def fig_kind_losses(histories: Mapping[str, Mapping]) -> go.Figure:
    """Cross-entropy of the nearest and of the furthest guess, a line a kind, on held-out tokens.

    histories: as `train.train` returns them.
    """
    last = len(next(iter(histories.values()))["held_out"][0]["head_loss"])
    titles = [f"guess {guess}" for guess in (1, last)]
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.08)
    for number, (name, history) in enumerate(histories.items()):
        for column, guess in ((1, 0), (2, last - 1)):
            held_out = history["held_out"]
            losses = [round(entry["head_loss"][guess], 3) for entry in held_out]
            _line(figure, [entry["step"] for entry in held_out], losses, name, number, len(histories), column)
    figure.update_xaxes(title="update")
    figure.update_yaxes(title="cross-entropy (nats)", col=1)
    return styled(figure, "What each kind learns, on held-out answers", legend=BELOW)


def fig_depth_accuracy(tables: Mapping[str, object]) -> go.Figure:
    """Top-1 and top-5 accuracy by guess, a line for each name -> accuracy (K, R) of single ranks."""
    figure = make_subplots(cols=2, subplot_titles=("top-1", "top-5"), horizontal_spacing=0.08)
    for number, (name, table) in enumerate(tables.items()):
        table = np.asarray(table, dtype=float)
        guesses = list(range(1, len(table) + 1))
        for column, ranks in ((1, 1), (2, 5)):
            share = table[:, :ranks].sum(axis=1).round(4).tolist()
            _line(figure, guesses, share, name, number, len(tables), column)
    figure.update_xaxes(title="guess", dtick=1)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title="of the tokens that came", col=1)
    title = "How often a guess is right (recurrent heads: after hearing the true tokens)"
    return styled(figure, title, legend=BELOW)


def fig_tokens_by_nodes(counted: Mapping[str, Mapping[int, float]]) -> go.Figure:
    """Tokens a step against the nodes of the tree, a line for each name -> {nodes: tokens a step}."""
    figure = go.Figure()
    for number, (name, by_nodes) in enumerate(counted.items()):
        values = [round(value, 4) for value in by_nodes.values()]
        _line(figure, list(by_nodes), values, name, number, len(counted))
    sizes = sorted({nodes for by_nodes in counted.values() for nodes in by_nodes})
    figure.update_xaxes(title="nodes below the root", type="log", tickvals=sizes)
    figure.update_yaxes(title="tokens / step")
    return styled(figure, "What a tree of guesses brings, counted on held-out text", legend=BELOW)


def fig_gradients(starts: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Largest gradient of each parameter, a group of bars for each start; a 0 stands where there is none.

    starts: name -> {parameter: size}; the axis is logarithmic.
    """
    figure = go.Figure()
    least = min((size for sizes in starts.values() for size in sizes.values() if size), default=1.0)
    floor = 10.0 ** np.floor(np.log10(least) - 0.5)  # bars of 0 have no length on this axis
    for (name, sizes), colour, pattern in zip(starts.items(), ramp(len(starts)), PATTERNS):
        figure.add_bar(
            x=list(sizes),
            y=[float(max(size, floor)) for size in sizes.values()],
            name=html.escape(name),
            marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF"}},
            text=["" if size else "0" for size in sizes.values()],
            textposition="outside",
            textfont={"size": 20, "color": COLOURS["rejected"]},
            cliponaxis=False,
            customdata=list(sizes.values()),
            hovertemplate="%{x}: %{customdata:.2e}<extra>%{fullData.name}</extra>",
        )
    top = max((size for sizes in starts.values() for size in sizes.values()), default=1.0)
    figure.update_yaxes(
        title="largest |gradient|", type="log", range=[np.log10(floor), np.log10(max(top, floor)) + 0.3],
        exponentformat="power",
    )  # fmt: skip
    return styled(figure, "Who hears the loss?", barmode="group", legend=BELOW)


def fig_expert_load(loads: Mapping[str, tuple]) -> go.Figure:
    """Share of the choices that fall on each expert, stacked for each head, and the router's entropy above.

    loads: name -> (share (K, E), entropy (K,) in nats), as `MoeHeads.load` returns them.
    """
    names = [html.escape(name) for name in loads]
    figure = make_subplots(cols=len(loads), shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.04)
    for column, (share, entropy) in enumerate(loads.values(), 1):
        share = np.asarray(share, dtype=float)
        heads = [f"head {k + 1}" for k in range(len(share))]
        for expert, (colour, pattern) in enumerate(zip(ramp(share.shape[1]), PATTERNS * share.shape[1])):
            figure.add_bar(
                x=heads,
                y=share[:, expert].round(4).tolist(),
                name=f"expert {expert + 1}",
                legendgroup=str(expert),
                showlegend=column == 1,
                marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF"}},
                hovertemplate="%{x}: %{y:.1%}<extra>%{fullData.name}</extra>",
                row=1,
                col=column,
            )
        for head, value in zip(heads, entropy):
            figure.add_annotation(
                x=head, y=1, text=f"{value:.2f}", yshift=10, showarrow=False, row=1, col=column
            )
    figure.update_yaxes(title="share of the choices", tickformat=".0%", range=[0, 1.08], col=1)
    title = "Which experts are used; above, the router's entropy in nats"
    return styled(figure, title, barmode="stack", legend=BELOW)


def fig_ablation(rows: Sequence[Mapping]) -> go.Figure:
    """Tokens a step of every combination of loss terms above plain decoding's 1, a line for each teacher weight.

    rows: {"feature weight", "teacher weight", "tokens/step"}.
    """
    figure = go.Figure()
    teachers = sorted({row["teacher weight"] for row in rows})
    for number, teacher in enumerate(teachers):
        own = [row for row in rows if row["teacher weight"] == teacher]
        values = [round(row["tokens/step"], 4) for row in own]
        features = [f"{row['feature weight']:g}" for row in own]
        _line(figure, features, values, f"teacher weight {teacher:g}", number, len(teachers))
    figure.update_xaxes(title="weight of the feature regression", type="category")
    most = max(row["tokens/step"] for row in rows)
    figure.update_yaxes(title="tokens / step", range=[1, 1 + 1.15 * (most - 1)])  # no zoom into noise
    return styled(figure, "Which terms of the loss earn their place?", legend=BELOW)


def fig_cost_and_gain(rows: Sequence[Mapping], cost: str, gain: str) -> go.Figure:
    """A labelled marker for each of `rows`, which hold "heads" and the columns named as the two axes."""
    figure = go.Figure()
    for number, row in enumerate(rows):
        figure.add_scatter(
            x=[round(row[cost], 4)],
            y=[round(row[gain], 4)],
            mode="markers+text",
            name=html.escape(row["heads"]),
            text=[html.escape(row["heads"])],
            textposition=PLACES[number % len(PLACES)],  # neighbours' labels do not cover each other
            marker=series(number, len(rows))["marker"] | {"size": 14},
            hovertemplate="%{x:.2f}, %{y:.3f}<extra>%{fullData.name}</extra>",
            showlegend=False,
        )
    most, values = max(row[cost] for row in rows), [row[gain] for row in rows]
    room = 0.25 * (max(values) - min(values)) or 0.1
    figure.update_xaxes(title=cost, range=[0, 1.15 * most])
    figure.update_yaxes(title=gain, range=[min(values) - room, max(values) + 1.6 * room])
    return styled(figure, "What heads cost, and what they bring", height=560)  # room between the labels


def _line(figure: go.Figure, x, y, name: str, number: int, count: int, column: int | None = None) -> None:
    """Add one series; in a figure of several columns the first holds the legend's entry."""
    place = {} if column is None else {"row": 1, "col": column}
    figure.add_scatter(
        x=list(x),
        y=list(y),
        name=html.escape(name),
        legendgroup=name,
        showlegend=column in (None, 1),
        mode="lines+markers",
        hovertemplate="%{x}: %{y}<extra>%{fullData.name}</extra>",
        **series(number, count),
        **place,
    )
