"""Figures of answers as tokens: how long, what a draft vocabulary covers, and which tokens a loss sees."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS, DASHES, PATTERNS, SYMBOLS, ramp, styled
from medusa_core.plots.trees import visible

_CHIP = "color:#1A1A1A;padding:1px 3px;margin:1px;display:inline-block;border-bottom:3px solid "
_LEARNT = f"background-color:#CBEBE1;font-weight:bold;{_CHIP}{COLOURS['accepted']}"
_MASKED = f"background-color:#F1F1F1;{_CHIP}#F1F1F1"


def fig_lengths(lengths: dict[str, np.ndarray], width: int = 16) -> go.Figure:
    """Share of answers by number of tokens, in bins of `width`, one group of bars for each name -> lengths."""
    figure = go.Figure()
    longest = max(int(np.max(values)) for values in lengths.values())
    edges = np.arange(1, longest + width + 1, width)
    for (name, values), colour, pattern in zip(lengths.items(), ramp(len(lengths)), PATTERNS):
        count, _ = np.histogram(values, bins=edges)
        figure.add_bar(
            x=(edges[:-1] + (width - 1) / 2).tolist(),
            y=(count / count.sum()).round(4).tolist(),
            name=f"{html.escape(name)}: mean {np.mean(values):.0f}",
            marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF", "solidity": 0.2}},
            customdata=[f"{low} to {low + width - 1} tokens, {n} answers" for low, n in zip(edges, count)],
            hovertemplate="%{customdata}: %{y:.1%}<extra>" + html.escape(name) + "</extra>",
        )
    figure.update_xaxes(title="tokens of an answer, end token included")
    figure.update_yaxes(title="share of answers", tickformat=".0%")
    return styled(figure, "How long the answers are", barmode="group")


def fig_coverage(sizes: list[int], shares: dict[str, np.ndarray], vocab_size: int) -> go.Figure:
    """Share of tokens inside a draft vocabulary against its size, one line for each name -> shares."""
    figure = go.Figure()
    for i, ((name, values), colour) in enumerate(zip(shares.items(), ramp(len(shares)))):
        figure.add_scatter(
            x=list(sizes),
            y=[round(float(value), 4) for value in values],
            mode="lines+markers",
            name=html.escape(name),
            line={"color": colour, "width": 3, "dash": DASHES[i % len(DASHES)]},
            marker={"size": 11, "symbol": SYMBOLS[i % len(SYMBOLS)]},
            customdata=[f"{size:,} tokens, {size / vocab_size:.0%} of the vocabulary" for size in sizes],
            hovertemplate="%{customdata}: %{y:.2%}<extra>" + html.escape(name) + "</extra>",
        )
    figure.update_xaxes(
        title="size of the draft vocabulary",
        type="log",
        tickvals=list(sizes),
        ticktext=[f"{size:,}" for size in sizes],
    )
    figure.update_yaxes(title="share of the tokens inside", tickformat=".0%")
    return styled(figure, "How much of the answers a draft vocabulary can say")


def html_labels(texts: list[str], learnt) -> str:
    """Tokens in a row as HTML: bold on green with a line below where `learnt` is true, grey elsewhere.

    Texts are escaped; a line starts after every line end.
    """
    chips = []
    for text, seen in zip(texts, learnt, strict=True):
        chips.append(f'<span style="{_LEARNT if seen else _MASKED}">{visible(text)}</span>')
        if "\n" in text:
            chips.append("<br>")
    return f'<div style="font-family:monospace;line-height:1.9">{"".join(chips)}</div>'
