"""Figures of the search for a machine's tree: step cost, expected speed-up, context rates, parts of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from medusa_core.cost import Rounds, StepCost
from medusa_core.path_shares import PathShares
from medusa_core.plots.palette import COLOURS, PATTERNS, SYMBOLS, bar, ramp, styled


def fig_step_cost(cost: StepCost, most: int = 64) -> go.Figure:
    """Time of a step over a plain step's, against the number of rows; the draft as a second line above it."""
    rows = np.arange(1, min(cost.rows, most) + 1)
    verify = np.array([cost.overhead(n, drafted=False) for n in rows])
    whole = np.array([cost.overhead(n, drafted=n > 1) for n in rows])
    figure = go.Figure()
    for name, values, dash, colour in (
        ("with the draft", whole, "dash", COLOURS["self"]),
        ("step", verify, "solid", COLOURS["ancestor"]),
    ):
        figure.add_scatter(
            x=rows, y=values.round(4), name=name, mode="lines", line={"width": 3, "dash": dash, "color": colour},
            hovertemplate="%{x} rows: %{y:.2f} plain steps<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=rows, y=rows, name="one by one", mode="lines", line={"dash": "dot", "color": COLOURS["plain"]},
        hovertemplate="%{x} plain steps<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="rows in a step", type="log", tickvals=[1, 2, 4, 8, 16, 32, 64])
    figure.update_yaxes(title="time, in plain steps", range=[0, float(whole[-1]) * 1.05])
    return styled(figure, "What a step costs on this machine", legend={"x": 0.02, "y": 0.98})


def fig_balance(rounds: Rounds, read: int, sizes: Sequence[int] = (4, 8, 12, 16)) -> go.Figure:
    """Each round's steps over its plain one, against the speed at which that one read its `read` bytes.

    Lines: the larger of the reading and the arithmetic, as if the two overlapped wholly.
    """
    rate = read / rounds.seconds[:, 0] / 1e9  # (rounds,) GB/s
    overheads, row = rounds.overheads(), rounds.seconds_of_a_row()
    speeds = np.linspace(0.9 * rate.min(), 1.1 * rate.max(), 50)
    figure = go.Figure()
    for number, (n, colour) in enumerate(zip(sizes, ramp(len(sizes)))):
        figure.add_scatter(
            x=rate.round(3), y=overheads[:, rounds.rows.index(n)].round(4), name=f"{n} rows", mode="markers",
            marker={"size": 9, "symbol": SYMBOLS[number], "color": colour}, legendgroup=str(n),
            hovertemplate=f"{n} rows: %{{y:.2f}} plain steps, at %{{x:.0f}} GB/s<extra></extra>",
        )  # fmt: skip
        bound = np.maximum(1.0, n * row * speeds * 1e9 / read)
        figure.add_scatter(
            x=speeds.round(3), y=bound.round(4), mode="lines", showlegend=False, legendgroup=str(n),
            line={"color": colour, "width": 2}, hoverinfo="skip",
        )  # fmt: skip
    figure.update_xaxes(title="GB/s at which a plain step reads the weights")
    figure.update_yaxes(title="time, in plain steps")
    return styled(figure, "The faster the memory, the more a row costs", legend={"x": 0.02, "y": 0.98})


def fig_choice(shares: PathShares, cost: StepCost, most: int = 32) -> go.Figure:
    """Expected tokens a step and expected speed-up against the number of rows, with the chosen tree marked."""
    speedup = shares.curve(cost)[:most]
    rows = np.arange(1, len(speedup) + 1)
    expected = 1.0 + np.cumsum([0.0, *list(shares.share.values())])[: len(rows)]
    best = int(np.argmax(speedup))
    figure = go.Figure()
    figure.add_scatter(
        x=rows, y=expected.round(4), name="tokens / step", mode="lines+markers",
        line={"width": 3, "dash": "dash", "color": COLOURS["ancestor"]}, marker={"symbol": SYMBOLS[1], "size": 6},
        hovertemplate="%{x} rows: %{y:.2f} tokens / step<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=rows, y=speedup.round(4), name="speed-up", mode="lines+markers",
        line={"width": 3, "color": COLOURS["accepted"]}, marker={"symbol": SYMBOLS[0], "size": 6},
        hovertemplate="%{x} rows: %{y:.2f} x plain decoding<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[int(rows[best])], y=[float(speedup[best])], name=f"chosen: {rows[best]} rows, {speedup[best]:.2f}x",
        mode="markers", marker={"symbol": SYMBOLS[5], "size": 20, "color": COLOURS["self"], "line": {"width": 1}},
        hovertemplate="%{x} rows: %{y:.2f} x<extra></extra>",
    )  # fmt: skip
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dot"})
    figure.update_xaxes(title="rows in a step, the root included")
    figure.update_yaxes(title="promised by the count", rangemode="tozero")
    legend = {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"}  # inside, it would cover a curve
    return styled(figure, "More rows bring more tokens, until they cost more", legend=legend)


def fig_context_rates(rates: Sequence[float], counts: Sequence[int] | None = None) -> go.Figure:
    """How often the context's proposal is right, by length of the match it follows from."""
    lengths = list(range(1, len(rates)))
    figure = go.Figure(
        go.Bar(
            x=[*map(str, lengths[:-1]), f"{lengths[-1]}+"],
            y=[round(float(rate), 4) for rate in rates[1:]],
            marker={"color": COLOURS["bonus"]},
            text=[f"{rate:.0%}" for rate in rates[1:]],
            textposition="outside",
            hovertemplate="match of %{x}: right %{y:.1%} of the time<extra></extra>",
        )
    )
    figure.update_xaxes(title="tokens that match", type="category")
    figure.update_yaxes(title="next token is the one that followed", tickformat=".0%", range=[0, 1.1])
    return styled(figure, "How far to trust what the text said before")


def fig_step_profile(profiles: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Stacked milliseconds of each part of a step, one bar a kind of step."""
    parts = list(next(iter(profiles.values())))
    figure = go.Figure()
    for number, (part, colour) in enumerate(zip(parts, ramp(len(parts)))):
        milliseconds = [each[part] * 1e3 for each in profiles.values()]
        figure.add_bar(
            y=list(profiles),
            x=[round(value, 4) for value in milliseconds],
            name=part,
            orientation="h",
            marker=bar(colour, PATTERNS[number % len(PATTERNS)]),
            text=[f"{value:.1f}" if value > 0.8 else "" for value in milliseconds],
            insidetextanchor="middle",
            textangle=0,
            hovertemplate=f"{part}: %{{x:.2f}} ms<extra>%{{y}}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="milliseconds")
    figure.update_yaxes(autorange="reversed")
    legend = {"orientation": "h", "x": 0, "y": -0.35, "yanchor": "top", "traceorder": "normal"}
    return styled(figure, "Where a step's time goes", barmode="stack", legend=legend, height=430)


def fig_predicted(rows: Sequence[Mapping], key: str = "speedup") -> go.Figure:
    """Measured against predicted speed-up of each tree, with a band of 10 %."""
    predicted, measured = ([float(row[side]) for row in rows] for side in (f"predicted_{key}", key))
    low, high = 0.9 * min(*predicted, *measured), 1.1 * max(*predicted, *measured)
    figure = go.Figure()
    for factor, dash in ((1.0, "solid"), (0.9, "dot"), (1.1, "dot")):
        figure.add_scatter(
            x=[low, high], y=[factor * low, factor * high], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": COLOURS["plain"], "dash": dash},
        )  # fmt: skip
    for number, row in enumerate(rows):
        figure.add_scatter(
            x=[predicted[number]], y=[measured[number]], name=row["name"], mode="markers",
            marker={"size": 14, "symbol": SYMBOLS[number % len(SYMBOLS)], "color": ramp(len(rows))[number]},
            hovertemplate=f"{row['name']}: predicted %{{x:.2f}}, measured %{{y:.2f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title=f"predicted {_words(key)}")
    figure.update_yaxes(title=f"measured {_words(key)}")
    return styled(figure, f"Predicted and measured {_words(key)} (dotted: 10 % off)")


def _words(key: str) -> str:
    return {"speedup": "speed-up", "tokens_per_step": "tokens / step"}[key]
