"""Figures of attention masks: who may look at whom, why, and what the tree saves over unrolled paths."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core import masks
from medusa_core.plots.palette import COLOURS, FONT_SIZE, LETTERS, styled
from medusa_core.tree import Tree

STAGES = ("training", "prefill", "cached step", "tree step")
MOST_LABELLED = 26  # more columns than this and letters or names would overlap
MOST_GAPPED = 64  # more cells a side than this would be narrower than the lines between them
WHY = {
    "prefix": "open: the key comes before the query in the text",
    "ancestor": "open: the key is an ancestor of the query's node",
    "self": "open: a token sees itself",
    "future": "closed: the key comes after the query",
    "sibling branch": "closed: the key is on another branch, a guess that competes with the query's",
    "padding": "closed: the key is padding",
    "outside window": "closed: the key is further back than the sliding window",
}
_MEANING = {why: f"{why}, {words}" for why, words in WHY.items()} | {"repeated": f"self, {WHY['self']}"}


@dataclass(frozen=True)
class MaskView:
    """One mask in words: names and position ids of rows and columns, and the reason of every cell."""

    rows: list[str]
    row_positions: list[int]
    columns: list[str]
    column_positions: list[int]
    reasons: list[list[str]]  # (queries, keys)

    @property
    def open_cells(self) -> int:
        """Cells that may be looked at."""
        return sum(reason in masks.OPEN for row in self.reasons for reason in row)


def mask_view(
    tree: Tree,
    stage: str = "tree step",
    past: int = 4,
    length: int = 6,
    padding: int = 0,
    window: int | None = None,
) -> MaskView:
    """Rows, columns and reasons of a stage's mask.

    A tree step has the tree's nodes as queries; other stages have `length` tokens. Training pads the last
    `padding` of them. Only cached and tree steps have a past. Raises ValueError for a state that cannot be.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} is unknown: choose one of {', '.join(STAGES)}")
    if past < 0 or not 0 <= padding < length:
        raise ValueError(
            f"past {past} must be at least 0 and padding {padding} must leave one of {length} tokens"
        )
    if stage in ("training", "prefill"):
        past = 0
    valid = None
    if stage == "tree step":
        new = ["root", *map(path_name, tree.choices)]
        positions = masks.positions(tree, past).tolist()
    else:
        tree = None
        new = [f"t{past + i}" for i in range(length)]
        positions = list(range(past, past + length))
        if stage == "training":
            valid = np.arange(length) < length - padding
            new[length - padding :] = [f"pad{i + 1}" for i in range(padding)]
    keys = past + len(new)
    return MaskView(
        rows=new,
        row_positions=positions,
        columns=[f"t{i}" for i in range(past)] + new,
        column_positions=list(range(past)) + positions,
        reasons=[
            [masks.reason(q, k, past, tree, valid, window) for k in range(keys)] for q in range(len(new))
        ],
    )


def path_name(path: tuple[int, ...]) -> str:
    """Ranks joined by dots: "0.2" is the first head's best guess, then the second head's third."""
    return ".".join(map(str, path))


def fig_mask(
    tree: Tree,
    stage: str = "tree step",
    past: int = 4,
    length: int = 6,
    padding: int = 0,
    window: int | None = None,
    locked_row: int | None = None,
) -> go.Figure:
    """The mask of one stage; hover says why a cell is open or closed, `locked_row` lights one query's path.

    Arguments as in `mask_view`. Raises ValueError for a locked row that is not there.
    """
    view = mask_view(tree, stage, past, length, padding, window)
    if locked_row is not None and not 0 <= locked_row < len(view.rows):
        raise ValueError(f"row {locked_row} cannot be locked: this mask has rows 0 to {len(view.rows) - 1}")
    figure = go.Figure(_heatmap(view.reasons, *_hovers(view)))
    _add_legend(figure, view.reasons)
    past = len(view.columns) - len(view.rows)
    if past:
        _add_split(figure, past, len(view.rows), "tree" if stage == "tree step" else "new tokens")
    if locked_row is not None:
        figure.layout.shapes += tuple(map(go.layout.Shape, lock_shapes(view, locked_row)))
    _name_axes(figure, view)
    size = f"{len(view.rows)} queries x {len(view.columns)} keys"
    title = f"{stage.capitalize()} mask: {size}, {view.open_cells} cells open"
    return _square(styled(figure, title), len(view.rows), len(view.columns))


def unrolled_rows(tree: Tree) -> list[tuple[int, int, bool]]:
    """Rows (path, node, repeated) of the naive batch that verifies every path on its own."""
    seen, rows = set(), []
    for number, path in enumerate(tree.paths[::-1].tolist()):  # first leaf first reads better
        for node in path:
            if node >= 0:
                rows.append((number, node, node in seen))
                seen.add(node)
    return rows


def fig_unrolled(tree: Tree) -> go.Figure:
    """The mask of all paths written out one after another, beside the tree's, with the nodes saved."""
    rows, names = unrolled_rows(tree), ["root", *map(path_name, tree.choices)]
    reasons = [[_unrolled_reason(tree, rows, q, k) for k in range(len(rows))] for q in range(len(rows))]
    notes = ["<br>computed again: an earlier path holds this node" if again else "" for _, _, again in rows]
    queries = [f"query {names[node]} of path {path + 1}{note}" for (path, node, _), note in zip(rows, notes)]
    keys = [f"key {names[node]} of path {path + 1}" for path, node, _ in rows]
    view = mask_view(tree, "tree step", past=0)
    saved = len(rows) - tree.size
    figure = make_subplots(
        cols=2,
        subplot_titles=(f"{len(tree.paths)} paths unrolled: {len(rows)} rows", f"one tree: {tree.size} rows"),
        horizontal_spacing=0.1,
    )
    figure.add_trace(_heatmap(reasons, queries, keys), row=1, col=1)
    figure.add_trace(_heatmap(view.reasons, *_hovers(view)), row=1, col=2)
    for column, labels in ((1, [names[node] for _, node, _ in rows]), (2, names)):
        shown = {"showticklabels": False}  # or plotly writes the hovers along the axes
        if len(labels) <= MOST_LABELLED:
            shown = {"tickvals": list(range(len(labels))), "ticktext": labels}
        figure.update_xaxes(showgrid=False, zeroline=False, tickangle=-90, **shown, row=1, col=column)
        figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", **shown, row=1, col=column)
    _add_legend(figure, reasons + view.reasons)
    title = f"The tree saves {saved} of {len(rows)} rows: shared beginnings are computed once"
    return styled(figure, title, height=560, legend={"orientation": "h", "y": -0.22, "x": 0})


def _unrolled_reason(tree: Tree, rows, query: int, key: int) -> str:
    path, node, repeated = rows[query]
    other, ancestor, _ = rows[key]
    if key == query:
        return "repeated" if repeated else "self"
    if other != path:
        return "sibling branch"
    return "ancestor" if tree.mask[node, ancestor] else "future"


def _category(reason: str) -> str:
    return reason if reason in LETTERS else "closed"


def _heatmap(reasons, queries: list[str], keys: list[str]) -> go.Heatmap:
    """Cells in the colours of their reasons; rows and columns are named once, so that a hover repeats no text."""
    # Arrays of objects are not looked at one by one, as lists are, and are written as lists.
    kinds = list(LETTERS)
    steps = [(i / len(kinds), COLOURS[kind]) for i, kind in enumerate(kinds)]
    ends = [((i + 1) / len(kinds), COLOURS[kind]) for i, kind in enumerate(kinds)]
    letters = len(reasons[0]) <= MOST_LABELLED
    gap = int(len(reasons[0]) <= MOST_GAPPED)
    return go.Heatmap(
        x=keys,
        y=queries,
        z=np.array([[kinds.index(_category(reason)) for reason in row] for row in reasons], object),
        zmin=-0.5,
        zmax=len(kinds) - 0.5,
        colorscale=[stop for pair in zip(steps, ends, strict=True) for stop in pair],
        showscale=False,
        xgap=gap,
        ygap=gap,
        text=[[LETTERS[_category(reason)] for reason in row] for row in reasons] if letters else None,
        texttemplate="%{text}" if letters else None,
        hovertext=np.array([[_MEANING[reason] for reason in row] for row in reasons], object),
        hovertemplate="%{y}<br>%{x}<br>%{hovertext}<extra></extra>",
    )


def _hovers(view: MaskView) -> tuple[list[str], list[str]]:
    """What a hover says of each row and of each column."""
    seen = [sum(reason in masks.OPEN for reason in row) for row in view.reasons]
    queries = [
        f"query {name} at position {position} (sees {count} keys)"
        for name, position, count in zip(view.rows, view.row_positions, seen, strict=True)
    ]
    keys = [f"key {n} at position {p}" for n, p in zip(view.columns, view.column_positions, strict=True)]
    return queries, keys


def _add_legend(figure: go.Figure, reasons) -> None:
    present = {_category(reason) for row in reasons for reason in row}
    for kind, letter in LETTERS.items():
        if kind in present:
            marker = {
                "symbol": "square",
                "size": 16,
                "color": COLOURS[kind],
                "line": {"width": 1, "color": "#555"},
            }
            name = f"{letter} {kind}" if letter else kind
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name))


def _add_split(figure: go.Figure, past: int, rows: int, label: str) -> None:
    figure.add_shape(
        type="line", x0=past - 0.5, x1=past - 0.5, y0=-0.5, y1=rows - 0.5, line={"width": 4, "color": "#000"}
    )
    for x, text, anchor in ((past - 0.6, "prefix", "right"), (past - 0.4, label, "left")):
        figure.add_annotation(
            x=x, y=-0.5, yanchor="bottom", xanchor=anchor, text=f"<b>{text}</b>", showarrow=False
        )


def lock_shapes(view: MaskView, row: int) -> list[dict]:
    """Shapes that veil all rows but one and frame its open cells."""
    right, shapes = len(view.columns) - 0.5, []
    for top, bottom in ((-0.5, row - 0.5), (row + 0.5, len(view.rows) - 0.5)):
        if bottom > top:
            veil = {"fillcolor": "rgba(255,255,255,0.65)", "line": {"width": 0}}
            shapes.append({"type": "rect", "x0": -0.5, "x1": right, "y0": top, "y1": bottom, **veil})
    for key, reason in enumerate(view.reasons[row]):
        if reason in masks.OPEN:
            cell = {"x0": key - 0.5, "x1": key + 0.5, "y0": row - 0.5, "y1": row + 0.5}
            shapes.append({"type": "rect", **cell, "line": {"width": 3, "color": "#000"}})
    return shapes


def _name_axes(figure: go.Figure, view: MaskView) -> None:
    named = len(view.columns) <= MOST_LABELLED
    what = "name and position id" if named else "position id"
    for axis, separator, names, positions in (
        ("xaxis", "<br>", view.columns, view.column_positions),
        ("yaxis", ", ", view.rows, view.row_positions),
    ):
        # Without room for every name, an axis shows each position id once.
        shown = range(len(names)) if named else _sparse(positions)
        labels = [f"{names[i]}{separator}{positions[i]}" if named else str(positions[i]) for i in shown]
        figure.layout[axis].update(tickvals=list(shown), ticktext=labels, showgrid=False, zeroline=False)
        figure.layout[axis].update(tickangle=0, tickfont={"size": FONT_SIZE - 2})
    figure.update_xaxes(title=f"key ({what})")
    figure.update_yaxes(title=f"query ({what})", autorange="reversed")


def _sparse(positions: list[int]) -> list[int]:
    """The middle of each run of equal positions, where it is clear of the label before."""
    runs = [list(run) for _, run in groupby(range(len(positions)), key=positions.__getitem__)]
    shown = []
    for middle in (run[len(run) // 2] for run in runs):
        if not shown or middle - shown[-1] >= 3:
            shown.append(middle)
    return shown


def _square(figure: go.Figure, rows: int, columns: int) -> go.Figure:
    side = min(44, 900 // columns)
    return figure.update_layout(height=rows * side + 240, width=max(620, columns * side + 320))
