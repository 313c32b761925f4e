"""What a replay figure is put together from: panels of still traces and of traces that change with the step."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS, FONT_SIZE, styled
from medusa_core.plots.trees import visible

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 980, 78, 20, 92, 112  # pixels: the figure and its margins
INNER = WIDTH - LEFT - RIGHT


@dataclass(frozen=True)
class Panel:
    """One drawing among others of a figure.

    still: traces that never change. styles: looks of the traces that do, and moving(step): the changing attributes of
    each of them. x, y: the axes' settings. height: pixels, and below: pixels under it, for its axis.
    """

    title: str
    height: int
    still: list
    styles: list[dict]
    moving: Callable[[int], list[dict]]
    x: dict
    y: dict
    below: int = 36


def compose(panels: list[Panel], step: int, title: str) -> go.Figure:
    """The panels one below the other at a step; the changing traces come last, in order."""
    inner = sum(panel.height + panel.below for panel in panels)
    height = TOP + inner + BOTTOM
    figure, below = go.Figure(), inner
    for number, panel in enumerate(panels, 1):
        domain = [(below - panel.height) / inner, below / inner]
        axes = {f"xaxis{number}": {**panel.x, "anchor": f"y{number}", "domain": [0, 1]}}
        axes[f"yaxis{number}"] = {**panel.y, "anchor": f"x{number}", "domain": [max(domain[0], 0), domain[1]]}
        figure.update_layout(axes)
        figure.add_annotation(
            text=f"<b>{panel.title}</b>",
            x=0,
            y=below / inner,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            xshift=8 - LEFT,
        )
        figure.add_traces([on(trace, number) for trace in panel.still])
        below -= panel.height + panel.below
    for number, panel in enumerate(panels, 1):
        for style, data in zip(panel.styles, panel.moving(step), strict=True):
            figure.add_trace(on(go.Scatter(**style, **data), number))
    margin = {"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}
    legend = {"orientation": "h", "x": 0, "y": 0, "yanchor": "top", "traceorder": "normal"}
    legend["font"] = {"size": FONT_SIZE - 2}
    heading = {"yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 26}}
    look = {"title": heading, "width": WIDTH, "margin": margin, "legend": legend, "barmode": "overlay"}
    return styled(figure, title, height=height).update_layout(look)


def on(trace, number: int):
    """The trace, drawn in panel `number`."""
    return trace.update(xaxis=f"x{number}", yaxis=f"y{number}")


def label(text: str, most: int = 16) -> str:
    """A token's text as a figure may show it: spaces visible, cut, and read neither as markup nor as a formula."""
    return visible(_cut(text, most)).replace("$", "&#36;")


def prose(text: str, most: int) -> str:
    """Running text as a figure may show it: in one line, cut, and read neither as markup nor as a formula."""
    return html.escape(_cut(" ".join(text.split()), most), quote=False).replace("$", "&#36;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def tint(colour: str, share: float) -> str:
    """A colour of the palette mixed into white, light enough to read text on."""
    channels = [int(COLOURS[colour][place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + share * (channel - 255)):02X}" for channel in channels)


def note(size: int = FONT_SIZE - 2, **font) -> dict:
    """Style of a trace that is nothing but text."""
    return {
        "mode": "text",
        "textfont": {"size": size, **font},
        "hoverinfo": "skip",
        "showlegend": False,
        "cliponaxis": False,
    }


def hidden_axis(**settings) -> dict:
    """Settings of an axis that is not drawn."""
    return {"visible": False, "fixedrange": True, **settings}
