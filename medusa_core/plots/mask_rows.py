"""A mask whose rows are lit one after another by a slider that needs no kernel."""

from __future__ import annotations

import plotly.graph_objects as go

from medusa_core.plots.masks import fig_mask, lock_shapes, mask_view
from medusa_core.plots.palette import FONT_SIZE
from medusa_core.tree import Tree

SLIDER = 90  # pixels


def fig_mask_rows(
    tree: Tree,
    stage: str = "tree step",
    past: int = 4,
    length: int = 6,
    padding: int = 0,
    window: int | None = None,
    locked_row: int = 0,
) -> go.Figure:
    """`fig_mask` with a slider over its rows, of which `locked_row` is lit at first; arguments as there."""
    state = (tree, stage, past, length, padding, window)
    view, figure = mask_view(*state), fig_mask(*state, locked_row=locked_row)
    split = [shape.to_plotly_json() for shape in fig_mask(*state).layout.shapes]
    steps = [
        {"label": name, "method": "relayout", "args": [{"shapes": [*split, *lock_shapes(view, row)]}]}
        for row, name in enumerate(view.rows)
    ]
    slider = {
        "active": locked_row,
        "steps": steps,
        "currentvalue": {"prefix": "lit query: ", "font": {"size": FONT_SIZE}},
        "pad": {"t": 70},
    }
    return figure.update_layout(
        sliders=[slider], height=figure.layout.height + SLIDER, margin_b=figure.layout.margin.b + SLIDER
    )
