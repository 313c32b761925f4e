"""Two lanes on one clock as a panel: the steps of the run, those of plain decoding, and where both stand."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS
from medusa_core.plots.replay_parts import Panel, note, tint
from medusa_core.trace import Trace

_BAR = {
    "orientation": "h",
    "width": 0.62,
    "textposition": "inside",
    "insidetextanchor": "middle",
    "textangle": 0,
}


def lanes_panel(trace: Trace) -> Panel:
    """Every step as a bar as long as it took, with its number of tokens; time 0 is when the first token was there."""
    seconds = [sum(step.times.values()) for step in trace.steps[1:]]
    tokens = [len(step.tokens) for step in trace.steps[1:]]
    lanes = {"Medusa": [0.0, *accumulate(seconds)]}  # ends of the steps, the prefill's first
    still = [_medusa_bars(trace, lanes["Medusa"], tokens)] if tokens else []
    if trace.plain_seconds:
        lanes["plain"] = [0.0, *accumulate(trace.plain_seconds[1:])]
        still.append(_plain_bars(lanes["plain"]))
    last = 1e3 * max(ends[-1] for ends in lanes.values()) or 1.0
    written = [sum(tokens[:step]) + 1 for step in range(len(trace.steps) or 1)]

    def moving(step: int) -> list[dict]:
        now = lanes["Medusa"][step] if trace.steps else 0.0
        parts = [f"after {1e3 * now:.0f} ms: Medusa {written[step]} tokens"]
        if "plain" in lanes:
            parts.append(f"plain {bisect_right(lanes['plain'], now + 1e-12)}")
        x, side = round(1e3 * now, 3), "left" if 1e3 * now > last / 2 else "right"
        line = {"x": [x, x], "y": [-0.5, 1.62]}
        return [line, {"x": [x], "y": [1.62], "text": [", ".join(parts)], "textposition": f"top {side}"}]

    return Panel(
        title="Clock",
        height=120,
        still=still,
        styles=[
            {
                "mode": "lines",
                "line": {"color": "#000000", "width": 3},
                "hoverinfo": "skip",
                "showlegend": False,
            },
            note(),
        ],
        moving=moving,
        x={
            "title": {"text": "milliseconds since the first token", "standoff": 4},
            "range": [-0.005 * last, 1.02 * last],
            "zeroline": False,
        },
        y={
            "tickvals": [1, 0] if "plain" in lanes else [1],
            "ticktext": list(lanes),
            "range": [-0.5, 1.9],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        below=66,
    )


def _medusa_bars(trace: Trace, ends: list[float], tokens: list[int]) -> go.Bar:
    kinds = ["accepted" if count > 1 else "bonus" for count in tokens]
    hovers = [
        f"step {number}: {len(step.tokens)} tokens<br>"
        + "<br>".join(f"{phase} {1e3 * spent:.2f} ms" for phase, spent in step.times.items())
        for number, step in enumerate(trace.steps)
    ]
    return go.Bar(
        **_bars(ends, 1),
        text=[str(count) for count in tokens],
        marker={
            "color": [tint(k, 0.2) for k in kinds],
            "line": {"color": [COLOURS[k] for k in kinds], "width": 1.5},
        },
        hovertext=hovers[1:],
        showlegend=False,
    )


def _plain_bars(ends: list[float]) -> go.Bar:
    look = {"color": COLOURS["closed"], "line": {"color": COLOURS["plain"], "width": 1.5}}
    hovers = [
        f"token {place + 2}: {1e3 * (b - a):.2f} ms" for place, (a, b) in enumerate(zip(ends, ends[1:]))
    ]
    return go.Bar(**_bars(ends, 0), marker=look, hovertext=hovers, showlegend=False)


def _bars(ends: list[float], lane: int) -> dict:
    return {
        **_BAR,
        "base": [round(1e3 * begin, 3) for begin in ends[:-1]],
        "x": [round(1e3 * (end - begin), 3) for begin, end in zip(ends, ends[1:])],
        "y": [lane] * (len(ends) - 1),
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
