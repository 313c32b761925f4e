"""Figures of the paper's claims: families of trees, typical acceptance, training data, number of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.plots.palette import COLOURS, DASHES, PATTERNS, SYMBOLS, bar, ramp, styled

FAMILIES = {  # colour and symbol of each, the same in both figures; the many lie below the few
    "chain": (COLOURS["self"], SYMBOLS[2]),
    "dense": (COLOURS["prefix"], SYMBOLS[1]),
    "random": (COLOURS["plain"], SYMBOLS[3]),
    "searched": (COLOURS["accepted"], SYMBOLS[0]),
}
TICKS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


def fig_claim_trees(rows: Sequence[Mapping]) -> go.Figure:
    """Counted tokens a step of every tree against its nodes, by family."""
    figure = _families(rows, "tokens_per_step", "tokens/step")
    figure.update_yaxes(title="tokens / step")
    return styled(figure, "Tokens a step of every tree, by family and size", legend=_inside())


def fig_claim_steps(rows: Sequence[Mapping]) -> go.Figure:
    """Predicted speed-up of every tree on this machine against its nodes, by family."""
    figure = _families([row for row in rows if "speedup" in row], "speedup", "times plain")
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.update_yaxes(title="predicted speed-up", rangemode="tozero")
    return styled(figure, "The same trees against the clock (dashed: plain decoding)", legend=_inside(0.98))


def fig_claim_epsilon(rows: Sequence[Mapping]) -> go.Figure:
    """Tokens a step, perplexity and repeated tokens against epsilon; dashed: exact sampling."""
    parts = {"tokens_per_step": "tokens / step", "perplexity": "perplexity", "repeated": "repeated tokens"}
    figure = make_subplots(1, 3, subplot_titles=list(parts.values()), horizontal_spacing=0.09)
    typical = [row for row in rows if row["epsilon"] is not None]
    exact = next(row for row in rows if row["epsilon"] is None)
    for column, (key, label) in enumerate(parts.items(), 1):
        figure.add_scatter(
            x=[row["epsilon"] for row in typical],
            y=[round(row[key], 4) for row in typical],
            mode="lines+markers",
            line={"width": 3, "color": COLOURS["ancestor"], "dash": DASHES[0]},
            marker={"size": 10},
            name="typical",
            showlegend=False,
            hovertemplate=f"epsilon %{{x}}: {label} %{{y:.3f}}<extra></extra>",
            row=1,
            col=column,
        )
        figure.add_hline(y=exact[key], line={"color": COLOURS["self"], "dash": "dash"}, row=1, col=column)
        figure.update_xaxes(title="epsilon", row=1, col=column)
    figure.update_yaxes(tickformat=".1%", rangemode="tozero", row=1, col=3)
    figure.update_annotations(yshift=8)  # the names of the parts, above the topmost numbers
    return styled(figure, "Typical acceptance by its threshold (dashed: exact sampling)", height=400)


def fig_claim_data(tokens: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Tokens a step of heads by what they were trained on, a bar a size of tree; tokens[data][nodes]."""
    figure = go.Figure()
    nodes = list(next(iter(tokens.values())))
    for number, (size, colour) in enumerate(zip(nodes, ramp(len(nodes)))):
        values = [own[size] for own in tokens.values()]
        figure.add_bar(
            x=list(tokens),
            y=[round(value, 4) for value in values],
            name=f"{size} nodes",
            marker=bar(colour, PATTERNS[number % len(PATTERNS)]),
            text=[f"{value:.2f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{x}}, {size} nodes: %{{y:.3f}} tokens/step<extra></extra>",
        )
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.update_yaxes(title="tokens / step", rangemode="tozero")
    return styled(figure, "Whose text heads learn from (dashed: no heads)", barmode="group")


def fig_claim_depth(series: Mapping[str, Sequence[float]]) -> go.Figure:
    """Tokens a step of the best tree from the first 1, 2, ... heads, a line a set of heads."""
    figure = go.Figure()
    for number, ((name, values), colour) in enumerate(zip(series.items(), ramp(len(series)))):
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=[round(value, 4) for value in values],
            name=name,
            mode="lines+markers",
            line={"width": 3, "color": colour, "dash": DASHES[number % len(DASHES)]},
            marker={"size": 10, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            hovertemplate=f"%{{x}} heads: %{{y:.3f}} tokens/step<extra>{name}</extra>",
        )
    figure.update_xaxes(title="heads", dtick=1)
    figure.update_yaxes(title="tokens / step")
    return styled(figure, "What each further head adds")


def _families(rows: Sequence[Mapping], key: str, unit: str) -> go.Figure:
    figure = go.Figure()
    for family, (colour, symbol) in FAMILIES.items():
        own = sorted((row for row in rows if row["family"] == family), key=lambda row: row["nodes"])
        if not own:
            continue
        figure.add_scatter(
            x=[row["nodes"] for row in own],
            y=[round(row[key], 4) for row in own],
            name=family,
            mode="lines+markers" if family in ("chain", "searched") else "markers",
            line={"width": 3, "color": colour},
            marker={"symbol": symbol, "size": 7, "color": colour},
            customdata=[row["depth"] for row in own],
            hovertemplate=f"%{{x}} nodes, %{{customdata}} deep: %{{y:.3f}} {unit}<extra>{family}</extra>",
        )
    figure.update_xaxes(
        title="nodes below the root", type="log", tickvals=TICKS, ticktext=list(map(str, TICKS))
    )
    return figure


def _inside(x: float = 0.02) -> dict:
    return {"x": x, "y": 0.98, "xanchor": "left" if x < 0.5 else "right", "bgcolor": "rgba(255,255,255,0.8)"}
