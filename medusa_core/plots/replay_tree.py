"""A step's tree as a panel: the guesses, what the base thought of each, the threshold, the verdict, the path kept."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from medusa_core.accept import Verdict
from medusa_core.plots.masks import path_name
from medusa_core.plots.palette import COLOURS, FONT_SIZE
from medusa_core.plots.replay_parts import Panel, hidden_axis, label, note
from medusa_core.plots.trees import OUTCOME_OF, OUTCOMES, layout
from medusa_core.trace import Step, Trace
from medusa_core.tree import Tree

ROW, DENSE_ROW = 46, 20  # pixels of a leaf, with and without numbers below the guesses
MOST_ROWS = 14  # trees with more leaves show their numbers on hover only
BEND = 0.07  # columns before a node where its edge turns


def tree_panel(trace: Trace, verdicts: list[Verdict], criterion: str) -> Panel:
    """The tree of each step, from left to right; criterion: "greedy", "typical" or "exact", who made the verdicts."""
    leaves = max((len(step.tree.paths) for step in trace.steps), default=1) + 1
    depth = max((step.tree.max_depth for step in trace.steps), default=0)
    dense = leaves > MOST_ROWS
    line = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "cliponaxis": False}
    text = {
        "mode": "markers+text",
        "textposition": "top right",
        "textfont": {"size": FONT_SIZE - 1, "family": "monospace"},
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
        "cliponaxis": False,
    }
    styles = [
        {**line, "line": {"color": COLOURS["plain"], "width": 1}},
        {**line, "line": {"color": COLOURS["accepted"], "width": 5}},
        {**line, "line": {"color": COLOURS["bonus"], "width": 3, "dash": "dot"}},
        *({**_looks(name), **text} for name in OUTCOMES),
        {**note(FONT_SIZE - 3), "textposition": "bottom right"},
        {**note(FONT_SIZE), "textposition": "middle right"},
    ]
    return Panel(
        title="Step",
        height=(DENSE_ROW if dense else ROW) * leaves + 40,
        # A legend that stays the same whatever outcomes a step has.
        still=[go.Scatter(x=[None], y=[None], **_looks(name), name=name) for name in OUTCOMES],
        styles=styles,
        moving=lambda step: _moving(trace, step, verdicts[step], criterion, dense),
        x={
            "title": {"text": "tokens ahead of the root", "standoff": 4},
            "tickvals": list(range(depth + 1)),
            "range": [-0.12, depth + 2.0],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        y=hidden_axis(range=[leaves - 0.4, -1.5 if dense else -0.95]),
        below=66,
    )


def step_title(trace: Trace, place: int, verdict: Verdict) -> str:
    """A step in a line: what it accepted, and what the run did where that differs."""
    step = trace.steps[place]
    if not step.length:
        return f"Step {place}: the prompt is read; the base itself chooses the first token"
    kept, recorded = len(verdict.path) - 1, len(step.path) - 1
    line = f"Step {place}: {kept} of {len(step.parents) - 1} guesses accepted"
    if verdict.path != step.path:
        same = " others" if kept == recorded else f" {recorded}"
        line += f"; in the recording{same}"
    return line


def _looks(outcome: str) -> dict:
    """Style of the nodes with an outcome."""
    colour, symbol = OUTCOMES[outcome]
    edge = {"width": 3} if "open" in symbol else {"width": 1, "color": "#444"}
    size = 18 if outcome == "bonus" else 15
    marker = {"color": COLOURS[colour], "symbol": symbol, "size": size, "line": edge, "opacity": 1}
    return {"mode": "markers", "marker": marker}


def _moving(trace: Trace, place: int, verdict: Verdict, criterion: str, dense: bool) -> list[dict]:
    step = trace.steps[place]
    tree, last = step.tree, verdict.path[-1]
    shown, places = _with_bonus(tree, last) if verdict.next_token >= 0 else (tree, list(range(tree.size)))
    x, y = shown.depth.astype(float).tolist(), layout(shown).tolist()  # of the tree with its bonus
    x, y = [x[i] for i in places], [y[i] for i in places]  # of the tree's nodes, and then of the bonus
    won = set(verdict.path)
    ends = [(step.parents[node], node) for node in range(1, tree.size)]
    groups = [
        [e for e in ends if e[1] not in won],
        [e for e in ends if e[1] in won],
        [(last, tree.size)][: len(places) - tree.size],
    ]
    names = [_name(trace, int(token)) for token in step.node_tokens]
    nodes = {
        name: [n for n in range(tree.size) if OUTCOME_OF[verdict.reason[n]] == name] for name in OUTCOMES
    }
    traces = [_edges(x, y, group) for group in groups]
    for own in nodes.values():
        hovers = [_hover(trace, step, verdict, node, names[node]) for node in own]
        traces.append(_points(x, y, own, [names[node] for node in own], hovers))
    if len(places) > tree.size:
        bonus = _name(trace, verdict.next_token)
        traces[-1] = _points(
            x, y, [tree.size], [bonus], [f"<b>{bonus}</b><br>bonus: the base's own next token"]
        )
    below = [] if dense else list(range(1, tree.size))
    numbers = [_numbers(trace, step, verdict, node, criterion) for node in below]
    traces.append({"x": [x[n] + 0.05 for n in below], "y": [y[n] + 0.09 for n in below], "text": numbers})
    traces.append(
        {"x": [-0.05], "y": [-1.2 if dense else -0.75], "text": [step_title(trace, place, verdict)]}
    )
    return traces


def _with_bonus(tree: Tree, last: int) -> tuple[Tree, list[int]]:
    """The tree with one more child below `last`, and where in it the tree's nodes and that child are."""
    paths = [(), *tree.choices]
    rank = max((paths[child][-1] + 1 for child in tree.children[last]), default=0)
    bonus = (*paths[last], rank)
    shown = Tree.from_paths([*tree.choices, bonus])
    index = {path: i for i, path in enumerate([(), *shown.choices])}
    return shown, [index[path] for path in [*paths, bonus]]


def _edges(x: list, y: list, ends: list[tuple[int, int]]) -> dict:
    """Edges that leave a node straight, so that its name can stand on them, and bend before the child."""
    xs = [v for a, b in ends for v in (x[a], x[b] - 2 * BEND, x[b] - BEND, x[b], None)]
    ys = [v for a, b in ends for v in (y[a], y[a], y[b], y[b], None)]
    return {"x": [v if v is None else round(v, 3) for v in xs], "y": ys}


def _points(x: list, y: list, nodes: list[int], names: list[str], hovers: list[str]) -> dict:
    return {"x": [x[n] for n in nodes], "y": [y[n] for n in nodes], "text": names, "hovertext": hovers}


def _name(trace: Trace, token: int) -> str:
    return "(empty)" if token < 0 else label(trace.texts.get(token, f"#{token}"), 14)


def _numbers(trace: Trace, step: Step, verdict: Verdict, node: int, criterion: str) -> str:
    """What was compared, in words short enough to stand below a guess."""
    outcome, p = OUTCOME_OF[verdict.reason[node]], verdict.probability[node]
    if outcome == "not reached":
        return "not reached"
    mark = "\N{MULTIPLICATION SIGN}" if outcome == "rejected" else "\N{CHECK MARK}"
    if criterion == "greedy":
        if outcome != "rejected" or step.reading is None:
            return f"{mark} {'not ' if outcome == 'rejected' else ''}the base's"
        return f"{mark} base: {_name(trace, int(step.reading.best[step.parents[node]]))}"
    if np.isnan(verdict.threshold[node]):
        return f"{mark} p = {p:.3f}"
    return f"{mark} {p:.3f} {'≤' if outcome == 'rejected' else '>'} {verdict.threshold[node]:.3f}"


def _hover(trace: Trace, step: Step, verdict: Verdict, node: int, name: str) -> str:
    if not node:
        return f"<b>{name}</b><br>root: the last token so far"
    parent, tree = step.parents[node], step.tree
    lines = [f"<b>{name}</b>, path {path_name(tree.choices[node - 1])}: {verdict.reason[node]}"]
    lines.append(f"guessed by {step.source[node]} with p = {np.exp(step.node_logprob[node]):.3f}")
    if not np.isnan(verdict.probability[node]):
        bar = verdict.threshold[node]
        lines.append(
            f"p = {verdict.probability[node]:.4f}" + ("" if np.isnan(bar) else f", must exceed {bar:.4f}")
        )
    if (reading := step.reading) is not None:
        wanted = _name(trace, int(reading.best[parent]))
        lines.append(
            f"base at T = 1: p = {np.exp(reading.logprob[node]):.4f}, entropy {reading.entropy[parent]:.2f}"
        )
        lines.append(f"the base's likeliest here: {wanted}")
    return "<br>".join(lines)
