"""Figures of a tree beside the curve that it was chosen on, and the tables that belong to it."""

from __future__ import annotations

import plotly.graph_objects as go

from medusa_core.plots.masks import path_name
from medusa_core.plots.palette import COLOURS, DASHES, FONT_SIZE, SYMBOLS, ramp, styled
from medusa_core.plots.trees import layout
from medusa_core.prospects import Outlook, Prospects
from medusa_core.tree import Tree

TREE, CURVE = (0.0, 0.56), (0.66, 1.0)  # shares of the width
ROW, CURVE_HEIGHT, AROUND = 24, 300, 190  # pixels: a leaf, the curve, title and axes
BUDGETS = (*range(17), 20, 24, 32)  # nodes below the root that the slider without a kernel stops at


def fig_tree_outlook(
    prospects: Prospects, tree: Tree, other: Tree | None = None, locked: int | None = None
) -> go.Figure:
    """A tree with its place on the curves of tokens/step and speed-up; hover says what a node is worth.

    A node shows its rank and is the larger, the more often it should be accepted. `other` is drawn into the same
    tree, and marked on the same curves. `locked` lights a node of `tree` and its path.
    Raises TreeError for a tree that cannot be judged, ValueError for a node that is not there.
    """
    if locked is not None and not 0 <= locked < tree.size:
        raise ValueError(f"node {locked} cannot be locked: this tree has nodes 0 to {tree.size - 1}")
    union = tree if other is None else Tree.from_paths({*tree.choices, *other.choices})
    marked = [("this tree", tree, SYMBOLS[5])] + ([] if other is None else [("the other", other, SYMBOLS[2])])
    points = [_points(name, each, prospects.judge(each), symbol) for name, each, symbol in marked]
    x, y, values = union.depth, layout(union), prospects.values(union)
    data = [_edges(union, x, y)]
    if locked is not None:
        data += _lock(
            union, x, y, locked if locked == 0 else union.choices.index(tree.choices[locked - 1]) + 1
        )
    for name, nodes, colours, symbol in _groups(union, tree, other):
        data.append(_nodes(union, nodes, x, y, values, colours, symbol, name))
    data += [*_curves(prospects), *points]
    height = max(CURVE_HEIGHT + AROUND + 150, ROW * len(union.paths) + AROUND)
    return _framed(go.Figure(data), prospects, union, _title(tree, prospects.judge(tree)), height)


def fig_budget(prospects: Prospects, nodes: int | None = None) -> go.Figure:
    """The best tree of each node budget and its place on the curve, with a slider that needs no kernel.

    nodes: below the root at first; without it the budget with the most expected tokens per second.
    """
    budgets = [budget for budget in BUDGETS if budget <= prospects.most]
    first = min(prospects.fastest if nodes is None else nodes, budgets[-1])
    budgets = sorted({*budgets, first})
    states = [_moving(prospects, prospects.best(budget)) for budget in budgets]
    largest = prospects.best(budgets[-1])
    traces, title, span = states[budgets.index(first)]
    curves = _curves(prospects)
    places = list(range(len(curves), len(curves) + len(traces)))
    height = max(CURVE_HEIGHT + AROUND + 150, ROW * len(largest.paths) + AROUND) + 70
    figure = _framed(go.Figure([*curves, *traces]), prospects, largest, title, height)
    figure.layout.yaxis.range = span
    steps = [
        {
            "label": str(budget),
            "method": "update",
            "args": [_restyle(traces), {"title.text": title, "yaxis.range": span}, places],
        }
        for budget, (traces, title, span) in zip(budgets, states)
    ]
    slider = {
        "active": budgets.index(first),
        "steps": steps,
        "currentvalue": {"prefix": "nodes below the root: ", "font": {"size": FONT_SIZE}},
        "pad": {"t": 60},
        "x": 0,
        "len": 1,
    }
    return figure.update_layout(sliders=[slider], margin_b=150)


def _moving(prospects: Prospects, tree: Tree) -> tuple[list[dict], str, list[float]]:
    """Traces that a budget changes, the title, and the range of the tree's heights."""
    x, y, outlook = tree.depth, layout(tree), prospects.judge(tree)
    nodes = _nodes(tree, range(tree.size), x, y, prospects.values(tree), *_by_depth(tree))
    traces = [_edges(tree, x, y), nodes, _points("this tree", tree, outlook, SYMBOLS[5])]
    return traces, _title(tree, outlook), _span(tree)


def _restyle(traces: list[dict]) -> dict:
    """Arguments of Plotly.restyle that put these traces in place of those of another budget."""
    found = {key: [trace.get(key) for trace in traces] for key in ("x", "y", "text", "hovertext")}
    for part, key in (("marker", "size"), ("marker", "color"), ("textfont", "color")):
        found[f"{part}.{key}"] = [trace.get(part, {}).get(key) for trace in traces]
    return found


def _title(tree: Tree, outlook: Outlook) -> str:
    nodes = tree.size - 1
    return (
        f"{nodes} node{'s' * (nodes != 1)} below the root: {outlook.tokens_per_step:.2f} tokens / step<br>"
        f"<sup>a step takes {outlook.overhead:.2f} plain steps, "
        f"so decoding is {outlook.speedup:.2f} times as fast</sup>"
    )


def _edges(tree: Tree, x, y) -> dict:
    ends = [(node, tree.parents[node]) for node in range(1, tree.size)]
    return {
        "type": "scatter",
        "x": [value for node, parent in ends for value in (int(x[parent]), int(x[node]), None)],
        "y": [value for node, parent in ends for value in (float(y[parent]), float(y[node]), None)],
        "mode": "lines",
        "line": {"color": COLOURS["plain"], "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _by_depth(tree: Tree) -> tuple[list[str], str, str]:
    """Colours of all nodes, their symbol, and a name without meaning: the axis says the depth."""
    colours = ramp(tree.max_depth + 1)
    return [colours[depth] for depth in tree.depth], SYMBOLS[0], ""


def _groups(union: Tree, tree: Tree, other: Tree | None) -> list[tuple[str, list[int], list[str], str]]:
    """Name, nodes, colours and symbol of each group of nodes: whose they are, where two trees are compared."""
    if other is None:
        colours, symbol, name = _by_depth(union)
        return [(name, list(range(union.size)), colours, symbol)]
    own, others = {(), *tree.choices}, {(), *other.choices}
    paths = [(), *union.choices]
    groups = []
    for (name, members), colour, symbol in zip(
        {"in both": own & others, "this tree only": own - others, "the other only": others - own}.items(),
        ramp(3),
        (SYMBOLS[0], SYMBOLS[1], SYMBOLS[2]),
    ):
        nodes = [node for node, path in enumerate(paths) if path in members]
        if nodes:
            groups.append((name, nodes, [colour] * len(nodes), symbol))
    return groups


def _nodes(tree: Tree, nodes, x, y, values, colours: list[str], symbol: str, name: str) -> dict:
    return {
        "type": "scatter",
        "x": [int(x[node]) for node in nodes],
        "y": [float(y[node]) for node in nodes],
        "mode": "markers+text",
        "text": [str(tree.rank[node]) if node else "" for node in nodes],
        "textfont": {"size": FONT_SIZE - 3, "color": [_ink(colour) for colour in colours]},
        "marker": {
            "symbol": symbol,
            "size": [round(18 + 14 * float(values[node]) ** 0.5, 1) for node in nodes],
            "color": colours,
            "opacity": 1,
            "line": {"width": 1, "color": "#444"},
        },
        "hovertext": [_hover(tree, node, values[node]) for node in nodes],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "name": name,
        "showlegend": bool(name),
        "cliponaxis": False,
    }


def _ink(colour: str) -> str:
    """Black or white, whichever reads better on `colour`, an "rgb(r, g, b)"."""
    red, green, blue = (int(part) for part in colour[4:-1].split(","))
    return "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"


def _hover(tree: Tree, node: int, value: float) -> str:
    if not node:
        return "<b>root</b>: the token that is chosen already"
    path = tree.choices[node - 1]
    return f"<b>{path_name(path)}</b>: head {len(path)}'s guess of rank {path[-1]}<br>accepted in {value:.1%} of steps"


def _lock(tree: Tree, x, y, node: int) -> list[dict]:
    path = list(tree.path_to(node))
    way = {"x": [int(x[each]) for each in path], "y": [float(y[each]) for each in path]}
    ring = {"symbol": "circle-open", "size": 32, "color": COLOURS["self"], "line": {"width": 4}}
    common = {"type": "scatter", "hoverinfo": "skip"}
    return [
        {
            **common,
            **way,
            "mode": "lines",
            "name": "path",
            "line": {"color": COLOURS["ancestor"], "width": 7},
        },
        {
            **common,
            "x": way["x"][-1:],
            "y": way["y"][-1:],
            "mode": "markers",
            "name": "locked",
            "marker": ring,
        },
    ]


def _curves(prospects: Prospects) -> list[dict]:
    rows = list(range(1, prospects.most + 2))
    lines = (
        ("speed-up", [outlook.speedup for outlook in prospects.curve], "times plain decoding"),
        ("tokens / step", [outlook.tokens_per_step for outlook in prospects.curve], "tokens / step"),
    )
    return [
        {
            "type": "scatter",
            "xaxis": "x2",
            "yaxis": "y2",
            "x": rows,
            "y": [round(value, 4) for value in values],
            "mode": "lines",
            "name": f"best trees: {name}",
            "line": {"color": colour, "dash": dash, "width": 3},
            "hovertemplate": f"%{{x}} rows: %{{y:.2f}} {unit}<extra></extra>",
        }
        for (name, values, unit), colour, dash in zip(lines, ramp(2), DASHES)
    ]


def _points(name: str, tree: Tree, outlook: Outlook, symbol: str) -> dict:
    """A tree's speed-up and tokens/step, in the colours of their curves."""
    return {
        "type": "scatter",
        "xaxis": "x2",
        "yaxis": "y2",
        "x": [tree.size, tree.size],
        "y": [round(outlook.speedup, 4), round(outlook.tokens_per_step, 4)],
        "mode": "markers",
        "name": name,
        "marker": {"symbol": symbol, "size": 17, "color": ramp(2), "line": {"width": 2, "color": "#000"}},
        "hovertext": ["times plain decoding", "tokens / step"],
        "hovertemplate": f"{name}, %{{x}} rows: %{{y:.2f}} %{{hovertext}}<extra></extra>",
    }


def _span(tree: Tree) -> list[float]:
    """Range of the height axis, downwards; few leaves stay in the middle."""
    spare = max(0.7, (8 - len(tree.paths)) / 2)
    return [len(tree.paths) - 1 + spare, -spare]


def _framed(figure: go.Figure, prospects: Prospects, tree: Tree, title: str, height: int) -> go.Figure:
    """Both panels' axes: the tree over the whole height, the curve on top of what it needs."""
    most = max(outlook.tokens_per_step for outlook in prospects.curve)
    inner = height - AROUND
    bottom = 1 - CURVE_HEIGHT / inner
    styled(figure, title, height, margin={"l": 30, "r": 30, "t": 100, "b": 70})
    figure.update_layout(
        xaxis={
            "domain": TREE,
            "title": "depth (tokens ahead of the root)",
            "tickvals": list(range(tree.max_depth + 1)),
            "range": [-0.3, tree.max_depth + 0.3],
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={"visible": False, "range": _span(tree)},
        xaxis2={
            "domain": CURVE,
            "anchor": "y2",
            "title": "rows in a step, the root included",
            "range": [0, prospects.most + 4],  # whole symbols at the last row
        },
        yaxis2={"domain": [bottom, 1], "anchor": "x2", "range": [0, 1.08 * most]},
        legend={"x": CURVE[0], "xanchor": "left", "y": bottom - 75 / inner, "yanchor": "top"},
    )
    line = {"type": "line", "xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    line["line"] = {"color": COLOURS["plain"], "width": 2, "dash": "dot"}  # plain decoding
    return figure.update_layout(shapes=[line])
