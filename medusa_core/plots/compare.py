"""Figures of the comparison of heads, from its result JSON alone."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS, DASHES, PATTERNS, SYMBOLS, bar, ramp, styled
from medusa_core.results import head_of, way_of
from medusa_core.summary import PLAIN


def fig_heads_tokens(result: dict) -> go.Figure:
    """Counted tokens a step against the nodes of the tree, a line a set of heads, the best first."""
    rows, colours = result["heads"], ramp(len(result["heads"]))  # colours as in the figure of accuracies
    figure = go.Figure()
    best_first = sorted(enumerate(rows), key=lambda each: -max(each[1]["tokens_per_step"].values()))
    for number, row in best_first:
        nodes = [int(n) for n in row["tokens_per_step"]]
        figure.add_scatter(
            x=nodes,
            y=[round(value, 4) for value in row["tokens_per_step"].values()],
            name=html.escape(row["name"]),
            mode="lines+markers",
            line={"width": 3, "color": colours[number], "dash": DASHES[number % len(DASHES)]},
            marker={"size": 10, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            hovertemplate="%{x} nodes: %{y:.3f} tokens/step<extra>" + html.escape(row["name"]) + "</extra>",
        )
    ticks = sorted({int(n) for row in rows for n in row["tokens_per_step"]})
    figure.update_xaxes(
        title="nodes below the root", type="log", tickvals=ticks, ticktext=list(map(str, ticks))
    )
    figure.update_yaxes(title="tokens / step")
    return styled(figure, "What a tree of guesses brings, by who guesses")


def fig_heads_accuracy(result: dict) -> go.Figure:
    """Top-1 and top-5 accuracy at each depth, a group of bars a depth, a bar a set of heads."""
    figure = go.Figure()
    rows = result["heads"]
    for number, (row, colour) in enumerate(zip(rows, ramp(len(rows)))):
        depths = [f"{place} after the next" for place in range(1, len(row["top1"]) + 1)]
        figure.add_bar(
            x=depths,
            y=[round(value, 4) for value in row["top1"]],
            name=html.escape(row["name"]),
            marker=bar(colour, PATTERNS[number % len(PATTERNS)]),
            customdata=[round(value, 4) for value in row["top5"]],
            hovertemplate="%{x}: best guess right %{y:.1%}, among five %{customdata:.1%}<extra>"
            + html.escape(row["name"]) + "</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=depths,
            y=[round(value, 4) for value in row["top5"]],
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 12, "color": colour, "line": {"width": 3}},
            offsetgroup=str(number),
            showlegend=False,
            hoverinfo="skip",
        )
        figure.data[-2].offsetgroup = str(number)
    figure.update_yaxes(title="best guess right; dash: among five", tickformat=".0%", rangemode="tozero")
    return styled(figure, "How often guesses are right", barmode="group", scattermode="group")


def fig_heads_cost(result: dict, nodes: int) -> go.Figure:
    """What heads cost against what they bring: milliseconds of a draft and tokens a step, at `nodes` nodes."""
    rows = sorted(result["heads"], key=lambda row: row["draft_ms"][str(nodes)])
    step_ms = 1e3 * result["step_seconds"][0]
    milliseconds = [round(row["draft_ms"][str(nodes)], 3) for row in rows]
    figure = go.Figure(
        go.Scatter(
            x=milliseconds,
            y=[round(row["tokens_per_step"][str(nodes)], 4) for row in rows],
            mode="markers+text",
            text=[html.escape(row["name"]) for row in rows],
            textposition=[f"middle {('left', 'right')[place % 2]}" for place in range(len(rows))],
            marker={"size": 14, "color": COLOURS["ancestor"], "symbol": "diamond"},
            customdata=[[row["parameters"] / 1e6, row["draft_ms"][str(nodes)] / step_ms] for row in rows],
            hovertemplate="%{text}: %{x:.2f} ms a draft, %{customdata[1]:.0%} of a plain step<br>"
            "%{y:.3f} tokens/step, %{customdata[0]:.2f} million parameters<extra></extra>",
        )
    )
    figure.update_xaxes(
        title=f"milliseconds a draft (a plain step: {step_ms:.1f})", range=[0, 1.25 * max(milliseconds)]
    )
    figure.update_yaxes(title=f"tokens / step, {nodes} nodes")
    return styled(figure, "What heads cost, and what they bring")


def fig_heads_speed(result: dict) -> go.Figure:
    """Measured speed-up of every set of heads, a group a set, a bar a way of decoding."""
    names = [row["name"] for row in result["heads"]]
    rows = [row for row in result["bench"]["summary"] if row["name"].split(" ")[0] != PLAIN]
    ways = list(dict.fromkeys(way_of(row) for row in rows))
    figure = go.Figure()
    for number, (way, colour) in enumerate(zip(ways, ramp(len(ways)))):
        own = {head_of(row): row for row in rows if way_of(row) == way}
        value = [own[name]["speedup"] for name in names]
        figure.add_bar(
            x=list(map(html.escape, names)),
            y=[round(each, 3) for each in value],
            name=html.escape(way),
            marker=bar(colour, PATTERNS[number % len(PATTERNS)]),
            text=[f"{each:.2f}" for each in value],
            textposition="outside",
            textangle=-90,
            cliponaxis=False,
            customdata=[[own[name]["tokens_per_step"], own[name]["overhead"]] for name in names],
            hovertemplate="%{x}: %{y:.2f}x = %{customdata[0]:.2f} tokens/step / %{customdata[1]:.2f}"
            f"<extra>{html.escape(way)}</extra>",
        )
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.update_yaxes(title="times as fast as plain", rangemode="tozero")
    return styled(figure, "Measured speed-up (dashed: plain decoding of the same base)", barmode="group")


def fig_heads_categories(result: dict, acceptance: str = "greedy") -> go.Figure:
    """Measured speed-up of every set of heads by category of question, numbers in the cells."""
    names = [row["name"] for row in result["heads"]]
    rows = [row for row in result["bench"]["categories"] if row["acceptance"] == acceptance]
    categories = list(dict.fromkeys(row["category"] for row in rows))
    speed = {(row["name"], row["category"]): row["speedup"] for row in rows}
    values = [[round(speed[name, category], 3) for category in categories] for name in names]
    figure = go.Figure(
        go.Heatmap(
            x=list(map(html.escape, categories)),
            y=list(map(html.escape, names)),
            z=values,
            text=[[f"{value:.2f}" for value in line] for line in values],
            texttemplate="%{text}",
            colorscale="Cividis",
            colorbar={"title": "times plain"},
            hovertemplate="%{y}, %{x}: %{z:.2f}x<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return styled(figure, f"Speed-up by category, {acceptance}", height=180 + 45 * len(names))
