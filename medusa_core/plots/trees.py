"""Figures of draft trees: what is guessed, how likely each guess is, and what became of it."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from medusa_core.accept import Verdict
from medusa_core.plots.masks import path_name
from medusa_core.plots.palette import COLOURS, DASHES, FONT_SIZE, ramp, styled
from medusa_core.tree import Tree, capacity, expected_tokens, path_products, search

# Outcome of a node -> (colour, symbol); reasons of accept.Verdict that share an outcome share the look.
OUTCOMES = {
    "root": ("plain", "square"),
    "accepted": ("accepted", "circle"),
    "passed, not taken": ("accepted", "circle-open"),
    "rejected": ("rejected", "x"),
    "not reached": ("closed", "circle"),
    "bonus": ("bonus", "star"),
}
OUTCOME_OF = {
    "root": "root",
    "accepted": "accepted",
    "shorter path": "passed, not taken",
    "less likely path": "passed, not taken",
    "same tokens": "passed, not taken",
    "rejected": "rejected",
    "parent rejected": "not reached",
    "empty": "not reached",
}


def fig_tree(tree: Tree, accuracy=None, verdict: Verdict | None = None, texts=None) -> go.Figure:
    """The tree from left to right, one column a depth.

    accuracy (K, R) sizes the nodes by how often they should be accepted; without it all are alike. A verdict
    colours them by outcome and adds the bonus token. texts (n,) are token texts to show instead of names;
    with a verdict there may be one more, the bonus token's.
    """
    x, y = tree.depth.astype(float), layout(tree)
    chance = None if accuracy is None else path_products(tree, accuracy)
    names = ["root", *map(path_name, tree.choices)] if texts is None else [visible(text) for text in texts]
    hovers = [_hover(tree, node, names, chance, verdict) for node in range(tree.size)]
    sizes = np.full(tree.size, 18.0) if chance is None else 12 + 22 * np.sqrt(chance)
    figure = go.Figure(_edges(tree, x, y, verdict))
    for name, colour, symbol, nodes in _groups(tree, verdict):
        figure.add_trace(
            go.Scatter(
                x=x[nodes].tolist(),
                y=y[nodes].tolist(),
                mode="markers",
                marker={
                    "opacity": 1,
                    "size": sizes[nodes].round(1).tolist(),
                    "color": colour,
                    "symbol": symbol,
                    "line": {"width": 1, "color": "#444"} if "open" not in symbol else {"width": 3},
                },
                hovertext=[hovers[node] for node in nodes],
                hovertemplate="%{hovertext}<extra></extra>",
                name=name,
                cliponaxis=False,
            )
        )
    for node in range(tree.size):
        _label(figure, x[node], y[node], names[node], shift=sizes[node] / 2 + 3)
    if verdict is not None:
        bonus = names[tree.size] if len(names) > tree.size else f"token {verdict.next_token}"
        _add_bonus(figure, x, y, verdict.path[-1], bonus)
    figure.update_xaxes(
        title="depth (tokens ahead of the root)",
        tickvals=list(range(tree.max_depth + 1)),
        range=[-0.2, tree.max_depth + (1.6 if verdict else 0.7)],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(visible=False, range=[len(tree.paths) - 0.3, -1.0])
    return styled(figure, _title(tree, accuracy, verdict), height=max(360, 26 * len(tree.paths) + 170))


def fig_expected_tokens(accuracy: dict[str, object], sizes) -> go.Figure:
    """Expected tokens per step of the best tree of each size, one line for each name -> accuracy (K, R).

    sizes: nodes below the root; a line ends where its heads have no more paths.
    """
    figure = go.Figure()
    for (name, table), colour, dash in zip(accuracy.items(), ramp(len(accuracy)), _dashes(len(accuracy))):
        possible = [nodes for nodes in sizes if nodes <= capacity(*np.shape(table))]
        expected = [expected_tokens(search(table, nodes), table) for nodes in possible]
        figure.add_trace(
            go.Scatter(
                x=possible,
                y=[round(value, 4) for value in expected],
                mode="lines+markers",
                name=name,
                line={"color": colour, "dash": dash, "width": 3},
                hovertemplate="%{x} nodes: %{y:.2f} tokens/step<extra>" + html.escape(name) + "</extra>",
            )
        )
    figure.update_xaxes(
        title="nodes below the root", type="log", tickvals=list(sizes), ticktext=[str(s) for s in sizes]
    )
    figure.update_yaxes(title="expected tokens / step")
    return styled(figure, "What more nodes should bring, if heads guessed independently")


def layout(tree: Tree) -> np.ndarray:
    """Height (n,) of each node: leaves one apart in path order, a parent midway between its children."""
    height = np.zeros(tree.size)
    leaves = [node for node in range(tree.size) if not tree.children[node]]
    for place, leaf in enumerate(sorted(leaves, key=lambda node: tree.choices[node - 1] if node else ())):
        height[leaf] = place
    for node in range(tree.size - 1, -1, -1):
        if below := tree.children[node]:
            outer = [height[child] for child in below]
            height[node] = (min(outer) + max(outer)) / 2
    return height


def visible(text: str) -> str:
    """Token text that shows its spaces and line ends and cannot be read as markup."""
    shown = text.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "\N{OPEN BOX}")
    return html.escape(shown, quote=False)


def _title(tree: Tree, accuracy, verdict: Verdict | None) -> str:
    if verdict is not None:
        produced = len(verdict.path)
        return f"{produced - 1} of {tree.size - 1} guesses accepted, {produced} tokens in this step"
    size = f"{tree.size - 1} nodes below the root, depth {tree.max_depth}, {len(tree.paths)} paths"
    return (
        size if accuracy is None else f"{size}, {expected_tokens(tree, accuracy):.2f} expected tokens / step"
    )


def _hover(tree: Tree, node: int, names: list[str], chance, verdict: Verdict | None) -> str:
    lines = [f"<b>{names[node]}</b>, row {node}"]
    if node:
        lines.append(
            f"path {path_name(tree.choices[node - 1])}: depth {tree.depth[node]}, rank {tree.rank[node]}"
        )
    if chance is not None:
        lines.append(f"expected to be accepted in {chance[node]:.1%} of steps")
    if verdict is not None:
        lines.append(verdict.reason[node])
        if node and not np.isnan(verdict.probability[node]):
            lines.append(f"probability {verdict.probability[node]:.4f}")
        if node and not np.isnan(verdict.threshold[node]):
            lines.append(f"must exceed {verdict.threshold[node]:.4f}")
    return "<br>".join(lines)


def _groups(tree: Tree, verdict: Verdict | None) -> list[tuple[str, str, str, list[int]]]:
    """Legend entries (name, colour, symbol, nodes): outcomes where there is a verdict, depths otherwise."""
    if verdict is None:
        colours = ramp(tree.max_depth + 1)
        names = ["root", *(f"depth {depth}" for depth in range(1, tree.max_depth + 1))]
        by_depth = [np.flatnonzero(tree.depth == depth).tolist() for depth in range(tree.max_depth + 1)]
        return list(zip(names, colours, ["circle"] * len(names), by_depth))
    outcomes = [OUTCOME_OF[reason] for reason in verdict.reason]
    groups = []
    for name, (colour, symbol) in OUTCOMES.items():
        if nodes := [node for node, outcome in enumerate(outcomes) if outcome == name]:
            groups.append((name, COLOURS[colour], symbol, nodes))
    return groups


def _edges(tree: Tree, x, y, verdict: Verdict | None) -> list[go.Scatter]:
    """One line trace for all edges, and one for those of the accepted path."""
    won = set() if verdict is None else set(verdict.path)
    traces = []
    for nodes, colour, width in (
        ([n for n in range(1, tree.size) if n not in won], COLOURS["plain"], 1),
        ([n for n in range(1, tree.size) if n in won], COLOURS["accepted"], 5),
    ):
        ends = [(n, tree.parents[n]) for n in nodes]
        xs = [value for node, parent in ends for value in (x[parent], x[node], None)]
        ys = [value for node, parent in ends for value in (y[parent], y[node], None)]
        line = {"color": colour, "width": width}
        traces.append(go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    return traces


def _add_bonus(figure: go.Figure, x, y, last: int, text: str) -> None:
    colour, symbol = OUTCOMES["bonus"]
    place = {"x": [x[last], x[last] + 0.9], "y": [y[last], y[last] - 0.6]}
    _label(figure, place["x"][1], place["y"][1], text, shift=14)
    figure.add_trace(
        go.Scatter(
            **place,
            mode="lines+markers",
            line={"color": COLOURS[colour], "width": 3, "dash": "dot"},
            marker={"symbol": symbol, "size": [0, 20], "opacity": 1, "color": COLOURS[colour]},
            hovertemplate="bonus: the base's own next token<extra></extra>",
            name="bonus",
            cliponaxis=False,
        )
    )


def _label(figure: go.Figure, x: float, y: float, text: str, shift: float) -> None:
    """A node's name to its right, on a ground that keeps it clear of the edges."""
    figure.add_annotation(
        x=x,
        y=y,
        text=text,
        showarrow=False,
        xanchor="left",
        xshift=shift,
        bgcolor="rgba(255,255,255,0.85)",
        borderpad=0,
        font={"size": FONT_SIZE - 2},
    )


def _dashes(count: int) -> list[str]:
    return [DASHES[i % len(DASHES)] for i in range(count)]
