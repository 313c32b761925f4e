"""Figure of a benchmark of peers, from its result JSON alone: tokens a second, their spread, and the roofline."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from medusa_core.peer_summary import label
from medusa_core.plots.palette import COLOURS, PATTERNS, ramp, styled

FAMILIES = ("ours", "transformers", "llama.cpp")  # first words of the names, a colour each


def fig_peers(result: dict) -> go.Figure:
    """Median tokens a second of each peer, whiskers from the 10th to the 90th percentile of the questions.

    Striped bars draft. The dashed line is what the memory allows when every token reads the bfloat16 weights once.
    """
    figure = go.Figure()
    rows = result["summary"][::-1]  # plotly draws the first bar at the bottom
    names = [html.escape(label(row["name"], result["config"])) for row in rows]
    middle = [row["tokens_per_second"] for row in rows]
    colours = dict(zip(FAMILIES, ramp(len(FAMILIES) + 1)[1:]))  # not the darkest, on which whiskers drown
    drafts = [row["name"] == "ours" or row["name"].endswith("lookup") for row in rows]
    figure.add_bar(
        y=names,
        x=[round(value, 2) for value in middle],
        orientation="h",
        marker={
            "color": [colours[row["name"].split()[0]] for row in rows],
            "pattern": {
                "shape": [PATTERNS[1] if drafted else PATTERNS[0] for drafted in drafts],
                "fgcolor": "#FFFFFF",
                "size": 9,
                "solidity": 0.2,
            },
        },
        error_x={
            "type": "data",
            "color": "#1A1A1A",
            "symmetric": False,
            "array": [round(row["high"] - value, 2) for row, value in zip(rows, middle)],
            "arrayminus": [round(value - row["low"], 2) for row, value in zip(rows, middle)],
        },
        customdata=[(row["low"], row["high"], row["same"], row["questions"]) for row in rows],
        hovertemplate="%{y}: %{x:.1f} tokens/s<br>10% to 90% of questions: %{customdata[0]:.1f} to %{customdata[1]:.1f}"
        "<br>%{customdata[2]} of %{customdata[3]} texts equal plain decoding's<extra></extra>",
        showlegend=False,
    )
    for name, row in zip(names, rows):
        figure.add_annotation(
            x=row["high"],
            y=name,
            text=f"{row['tokens_per_second']:.0f}",
            xanchor="left",
            xshift=8,
            showarrow=False,
        )
    roof = result["roofline"]["tokens_per_second"]
    figure.add_vline(x=roof, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.add_annotation(
        x=roof,
        y=1,
        yref="paper",
        xanchor="right",
        yanchor="bottom",
        text=f"reading the bfloat16 weights: {roof:.0f}",
        showarrow=False,
    )
    figure.update_xaxes(
        title="tokens/s, prompt included; whiskers: 10% to 90% of the questions",
        range=[0, 1.12 * max(roof, *(row["high"] for row in rows))],
    )
    figure.update_yaxes(automargin=True)
    return styled(
        figure, "One question at a time, in turns (striped: with drafts)", height=210 + 46 * len(rows)
    )
