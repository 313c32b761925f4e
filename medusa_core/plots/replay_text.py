"""The answer's tokens as a panel: how each came, which the step at hand brought, and what is still to come."""

from __future__ import annotations

import plotly.graph_objects as go

from medusa_core.accept import Verdict
from medusa_core.plots.palette import COLOURS, FONT_SIZE
from medusa_core.plots.replay_parts import INNER, Panel, hidden_axis, label, tint
from medusa_core.replay import Origin, changed, origins
from medusa_core.trace import Trace

UNIT = 8.7  # pixels of a monospaced character at FONT_SIZE - 1
COLUMNS = int(INNER / UNIT)
ROW = 32  # pixels of a line of text
# Source -> (mark on the chip, name in the legend, colour, pattern). The mark of a guess goes on with its depth.
SOURCES = {
    "heads": ("", "a head's guess, accepted (number: its depth)", "accepted", ""),
    "context": ("c", "a guess from the context, accepted (c)", "accepted", "/"),
    "corpus": ("o", "a guess from other answers, accepted (o)", "accepted", "\\"),
    "both": ("b", "guessed by a head and by a text (b: both)", "accepted", "x"),
    "bonus": ("+", "the base's own token (+)", "bonus", ""),
}
_FUTURE = "rgba(255,255,255,0.78)"


def text_panel(trace: Trace, verdicts: list[Verdict] | None = None) -> Panel:
    """Tokens in lines, coloured and marked by origin; with verdicts, steps that they would change are marked."""
    found = [(step, origin) for step, own in enumerate(trace.steps) for origin in origins(own)]
    texts = [trace.texts.get(token, f"#{token}") for token in trace.tokens]
    chips = [f"{label(text)}<sup>{_mark(origin)}</sup>" for text, (_, origin) in zip(texts, found)]
    boxes = _lines(texts, [len(_mark(origin)) for _, origin in found])
    rows = max((row for _, _, row in boxes), default=0) + 1
    still = []
    for source, (_, name, colour, pattern) in SOURCES.items():
        own = [place for place, (_, origin) in enumerate(found) if origin.source == source]
        if not own:
            continue
        still.append(
            go.Bar(
                orientation="h",
                base=[boxes[i][0] for i in own],
                x=[round(boxes[i][1] - boxes[i][0] - 0.25, 3) for i in own],
                y=[boxes[i][2] for i in own],
                width=0.8,
                text=[chips[i] for i in own],
                textposition="inside",
                insidetextanchor="middle",
                constraintext="none",
                textangle=0,
                insidetextfont={"family": "monospace", "size": FONT_SIZE - 1, "color": "#1A1A1A"},
                marker={
                    "color": [tint(colour, _strength(found[i][1].depth)) for i in own],
                    "line": {"color": COLOURS[colour], "width": 1.5},
                    "pattern": {"shape": pattern, "fgcolor": COLOURS[colour], "size": 7, "solidity": 0.12},
                },
                hovertext=[_hover(texts[i], i, *found[i]) for i in own],
                hovertemplate="%{hovertext}<extra></extra>",
                name=name,
            )
        )
    if verdicts is not None and (steps := changed(trace, verdicts)):
        still.append(_changed_marks(steps, found, boxes))
    steps = [step for step, _ in found]
    return Panel(
        title="Text",
        height=ROW * rows,
        still=still,
        styles=[
            {"mode": "lines", "fill": "toself", "fillcolor": _FUTURE, "line": {"width": 0}, **_SILENT},
            {"mode": "lines", "line": {"color": "#000000", "width": 3}, **_SILENT},
        ],
        moving=lambda step: [_cover(boxes, steps, step, rows), _frame(boxes, steps, step)],
        x=hidden_axis(range=[-0.1, COLUMNS]),
        y=hidden_axis(range=[rows - 0.5, -0.5]),
    )


_SILENT = {"hoverinfo": "skip", "showlegend": False, "cliponaxis": False}


def _mark(origin: Origin) -> str:
    return f"{SOURCES[origin.source][0]}{origin.depth or ''}"


def _strength(depth: int) -> float:
    """How strong the colour of a token is: the deeper the guess, the stronger."""
    return 0.08 + 0.12 * min(max(depth, 1), 4)


def _lines(texts: list[str], marks: list[int]) -> list[tuple[float, float, int]]:
    """Left end, right end and line of every token, wrapped at COLUMNS and after line ends."""
    boxes, x, row = [], 0.0, 0
    for text, mark in zip(texts, marks):
        # A visible line end or tab takes two characters, and the mark is set smaller.
        shown = min(len(text), 16) + text[:16].count("\n") + text[:16].count("\t")
        wide = round(shown + 0.75 * mark + 1.0, 3)
        if x and x + wide > COLUMNS:
            x, row = 0.0, row + 1
        boxes.append((x, round(x + wide, 3), row))
        x = round(x + wide, 3)
        if "\n" in text:
            x, row = 0.0, row + 1
    return boxes


def _hover(text: str, place: int, step: int, origin: Origin) -> str:
    came = {
        "heads": f"guessed by head {origin.depth}",
        "context": f"guessed from the context, {origin.depth} ahead",
        "corpus": f"guessed from other answers, {origin.depth} ahead",
        "both": f"guessed by head {origin.depth} and by a text",
        "bonus": "the base's own choice",
    }[origin.source]
    return f"<b>{label(text, 40)}</b><br>token {place + 1}, step {step}<br>{came}"


def _changed_marks(changes: list[int], found, boxes) -> go.Scatter:
    first = {}
    for place, (step, _) in enumerate(found):
        first.setdefault(step, place)
    own = [boxes[first[step]] for step in changes if step in first]
    return go.Scatter(
        x=[x0 + 0.55 for x0, _, _ in own],
        y=[row - 0.42 for *_, row in own],
        mode="markers",
        marker={"symbol": "triangle-down", "size": 10, "color": "#000000"},
        hoverinfo="skip",
        cliponaxis=False,
        name="a step that would now be decided otherwise",
    )


def _cover(boxes, steps: list[int], step: int, rows: int) -> dict:
    """Outline of all tokens after a step, to be veiled."""
    shown = [box for box, own in zip(boxes, steps) if own <= step]
    _, x, row = shown[-1] if shown else (0, 0.0, 0)
    if len(shown) == len(boxes):
        return {"x": [], "y": []}
    right, top, bottom = COLUMNS + 0.3, row - 0.5, row + 0.5
    xs, ys = [x, right, right, x, x], [top, top, bottom, bottom, top]
    if row + 1 < rows:
        xs += [None, -0.3, right, right, -0.3, -0.3]
        ys += [None, bottom, bottom, rows, rows, bottom]
    return {"x": xs, "y": ys}


def _frame(boxes, steps: list[int], step: int) -> dict:
    """Outlines of a step's tokens, one for each line that they are on."""
    own = [box for box, number in zip(boxes, steps) if number == step]
    xs, ys = [], []
    for row in sorted({box[2] for box in own}):
        left = min(box[0] for box in own if box[2] == row) - 0.1
        right = max(box[1] for box in own if box[2] == row) - 0.15
        xs += [left, right, right, left, left, None]
        ys += [row - 0.46, row - 0.46, row + 0.46, row + 0.46, row - 0.46, None]
    return {"x": xs, "y": ys}
