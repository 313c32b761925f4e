"""The palette and layout of all figures: Okabe-Ito colours, one meaning each, at sizes a projector keeps."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

# Okabe-Ito. A colour never stands alone: cells carry the letter, nodes the symbol, of the same row.
COLOURS = {
    "prefix": "#56B4E9",
    "ancestor": "#0072B2",
    "self": "#E69F00",
    "accepted": "#009E73",
    "rejected": "#D55E00",
    "bonus": "#CC79A7",
    "repeated": "#F0E442",
    "closed": "#E4E4E4",
    "plain": "#767676",
}
LETTERS = {"prefix": "P", "ancestor": "A", "self": "S", "repeated": "R", "closed": ""}
FONT_SIZE = 15
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")
PATTERNS = ("", "/", "x", ".", "\\", "+")
_AXIS = {
    "gridcolor": "#EBF0F8",
    "linecolor": "#EBF0F8",
    "zerolinecolor": "#EBF0F8",
    "zerolinewidth": 2,
    "ticks": "",
    "title": {"standoff": 15},
    "automargin": True,
}
# Laid over a bar: in the place of its colour, white patterns would hide it.
_PATTERN = {"fillmode": "overlay", "size": 10, "solidity": 0.2}
# As plotly_white, which is ten times as large: every answer to a slider makes, sends and reads its template.
TEMPLATE = go.layout.Template(
    layout={
        "hovermode": "closest",
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "annotationdefaults": {"arrowcolor": "#2A3F5F", "arrowhead": 0, "arrowwidth": 1},
        "shapedefaults": {"line": {"color": "#2A3F5F"}},
    },
    data={"bar": [{"marker": {"line": {"color": "white", "width": 0.5}, "pattern": _PATTERN}}]},
)


def bar(colour: str, pattern: str) -> dict:
    """Marker of bars that are told apart by pattern as well as by colour."""
    return {"color": colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF", "size": 9, "solidity": 0.2}}


def ramp(count: int) -> list[str]:
    """`count` colours of an ordered series (heads, depths, phases): a lightness ramp, so no hue is needed."""
    places = [0.5] if count == 1 else [0.1 + 0.75 * i / (count - 1) for i in range(count)]
    return sample_colorscale("Cividis", places)


def series(number: int, count: int) -> dict:
    """Line and marker of series `number` of `count`, told apart by dash and symbol as well as by colour."""
    colour = ramp(count)[number]
    return {
        "line": {"color": colour, "width": 3, "dash": DASHES[number % len(DASHES)]},
        "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[number % len(SYMBOLS)]},
    }


def styled(figure: go.Figure, title: str, height: int = 460, **layout) -> go.Figure:
    """Apply the common fonts, margins and white ground; returns the same figure."""
    figure.update_layout(
        template=TEMPLATE,
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": FONT_SIZE + 3}},
        font={"size": FONT_SIZE, "color": "#1A1A1A"},
        hoverlabel={"font_size": FONT_SIZE, "align": "left"},
        margin={"l": 80, "r": 30, "t": 80, "b": 70},
        height=height,
    )
    figure.update_layout(**layout)
    return figure
