"""Figures of a recorded run: how each token came, what a step's tree was worth, and when both lanes got where.

Every figure is of one step; `fig_replay` and `fig_thresholds` hold all states, with a slider that needs no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from medusa_core.accept import Verdict
from medusa_core.plots.palette import COLOURS, FONT_SIZE, SYMBOLS, ramp, styled
from medusa_core.plots.replay_lanes import lanes_panel
from medusa_core.plots.replay_parts import Panel, compose, prose
from medusa_core.plots.replay_text import text_panel
from medusa_core.plots.replay_tree import tree_panel
from medusa_core.replay import DELTA, EPSILON, RECORDED, ReplayError, decide_all, leniency, who
from medusa_core.trace import Trace

PLAY_MS = 1200  # a step, when the slider plays by itself
CONTROLS = 90  # pixels of slider and buttons


def fig_text(trace: Trace, step: int | None = None) -> go.Figure:
    """The answer, each token coloured and marked by how it came; tokens after `step` (default: the last) are veiled."""
    step = _checked(trace, step)
    return compose([text_panel(trace)], step, _title(trace))


def fig_step(
    trace: Trace, step: int, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA
) -> go.Figure:
    """The tree of one step with probability, threshold and verdict of every guess, decided by `criterion`."""
    step = _checked(trace, step)
    panel = _tree(trace, criterion, decide_all(trace, criterion, epsilon, delta))
    return compose([panel], step, _title(trace, criterion, epsilon, delta))


def fig_lanes(trace: Trace, step: int | None = None) -> go.Figure:
    """The run and plain decoding on one clock, as measured; a line marks the end of `step` (default: the last)."""
    step = _checked(trace, step)
    return compose([lanes_panel(trace)], step, _title(trace))


def fig_moment(
    trace: Trace, step: int, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA
) -> go.Figure:
    """One step in three panels: text, tree and clock. Raises ReplayError where the criterion cannot decide again.

    Text and clock are always those of the recording; the tree's verdict is the criterion's.
    """
    step = _checked(trace, step)
    panels = _panels(trace, criterion, epsilon, delta)
    return compose(panels, step, _title(trace, criterion, epsilon, delta))


def fig_replay(
    trace: Trace, step: int = 0, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA
) -> go.Figure:
    """`fig_moment` of every step as frames, with a slider and buttons that work on a page without a kernel."""
    step = _checked(trace, step)
    panels = _panels(trace, criterion, epsilon, delta)
    figure = compose(panels, step, _title(trace, criterion, epsilon, delta))
    frames = {
        str(number): [data for panel in panels for data in panel.moving(number)]
        for number in range(len(trace.steps))
    }
    return _with_slider(figure, frames, "step ", step)


def fig_thresholds(
    trace: Trace, step: int, epsilons: Sequence[float], epsilon: float = EPSILON, delta: float = DELTA
) -> go.Figure:
    """The tree of one step decided by typical acceptance at every epsilon, with a slider that needs no kernel.

    epsilon: the one that is shown at first. Raises ReplayError where it is none of `epsilons`, or as `fig_step` does.
    """
    step = _checked(trace, step)
    if epsilon not in epsilons:
        raise ReplayError(f"epsilon {epsilon:g} is none of {', '.join(f'{each:g}' for each in epsilons)}")
    panels = {f"{e:g}": _tree(trace, "typical", decide_all(trace, "typical", e, delta)) for e in epsilons}
    settings = (
        f"decided again: typical, delta {delta:g}, T = {trace.settings.get('reading_temperature', 1):g}"
    )
    title = f"{_question(trace)}<br><sup>{settings}</sup>"
    figure = compose([panels[f"{epsilon:g}"]], step, title)
    frames = {name: panel.moving(step) for name, panel in panels.items()}
    return _with_slider(figure, frames, "epsilon ", list(epsilons).index(epsilon))


def _with_slider(figure: go.Figure, frames: dict[str, list[dict]], prefix: str, active: int) -> go.Figure:
    """Frames by name, each the changing attributes of the figure's last traces, with a slider and buttons above."""
    for name, moving in frames.items():
        traces = list(range(len(figure.data) - len(moving), len(figure.data)))
        figure.frames += (go.Frame(name=name, data=[go.Scatter(**data) for data in moving], traces=traces),)
    at_once = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    playing = {
        "fromcurrent": True,
        "frame": {"duration": PLAY_MS, "redraw": True},
        "transition": {"duration": 0},
    }
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    place = {"y": 1 + (CONTROLS + 18) / inner, "yanchor": "top"}  # above the panels, where it stays put
    slider = {
        "active": active,
        "steps": [{"label": name, "method": "animate", "args": [[name], at_once]} for name in frames],
        "currentvalue": {"prefix": prefix, "font": {"size": FONT_SIZE}},
        "x": 0.14,
        "len": 0.86,
        "pad": {"t": 0},
        "transition": {"duration": 0},
        **place,
    }
    buttons = {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "xanchor": "left",
        "pad": {"t": 14, "l": -60},
        "buttons": [
            {"label": "Play", "method": "animate", "args": [None, playing]},
            {"label": "Pause", "method": "animate", "args": [[None], at_once]},
        ],
        **place,
    }
    return figure.update_layout(
        sliders=[slider],
        updatemenus=[buttons],
        height=figure.layout.height + CONTROLS,
        margin_t=figure.layout.margin.t + CONTROLS,
    )


def fig_leniency(traces: list[Trace], epsilons: list[float], deltas: list[float]) -> go.Figure:
    """Tokens a step and the share of tokens that greedy acceptance would not say, against epsilon, a line for a delta.

    Every recorded step is decided again by typical acceptance; dashed: by greedy.
    """
    figure = make_subplots(cols=2, subplot_titles=("tokens / step", "tokens that are not the likeliest"))
    looks = zip(deltas, ramp(len(deltas)), SYMBOLS)
    lines = [(f"delta = {delta:g}", delta, colour, symbol) for delta, colour, symbol in looks]
    for column in (1, 2):
        for name, delta, colour, symbol in lines:
            values = [leniency(traces, "typical", epsilon, delta)[column - 1] for epsilon in epsilons]
            look = {"line": {"color": colour, "width": 3}, "marker": {"symbol": symbol, "size": 10}}
            _curve(figure, column, epsilons, values, name, "lines+markers", **look)
        values = [leniency(traces, "greedy")[column - 1]] * len(epsilons)
        line = {"color": COLOURS["plain"], "width": 3, "dash": "dash"}
        _curve(figure, column, epsilons, values, "greedy", "lines", line=line)
    ticks = {"tickvals": epsilons, "ticktext": [f"{epsilon:g}" for epsilon in epsilons]}
    figure.update_xaxes(title="epsilon", type="log", **ticks)
    figure.update_yaxes(tickformat=".0%", col=2)
    legend = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "traceorder": "normal"}
    return styled(figure, "Typical acceptance: what a lower threshold brings and costs", legend=legend)


def _curve(figure: go.Figure, column: int, x: list, values: list, name: str, mode: str, **look) -> None:
    y, where = [round(value, 4) for value in values], {"row": 1, "col": column}
    hover = "epsilon %{x:g}: %{y}<extra>" + name + "</extra>"
    figure.add_scatter(
        x=x, y=y, mode=mode, name=name, showlegend=column == 1, hovertemplate=hover, **look, **where
    )


def _panels(trace: Trace, criterion: str, epsilon: float, delta: float) -> list[Panel]:
    verdicts = decide_all(trace, criterion, epsilon, delta)
    return [text_panel(trace, verdicts), _tree(trace, criterion, verdicts), lanes_panel(trace)]


def _tree(trace: Trace, criterion: str, verdicts: list[Verdict]) -> Panel:
    deciding = trace.settings.get("acceptance", "greedy") if criterion == RECORDED else criterion
    return tree_panel(trace, verdicts, deciding)


def _title(trace: Trace, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA) -> str:
    """The question, and below it who decided; settings of a trace are free text like any other."""
    settings = trace.settings
    line = f"recorded: {who(trace)}"
    if settings.get("temperature"):
        line += f", T = {settings['temperature']:g}"
    if criterion == "greedy":
        line += "; decided again: greedy"
    elif criterion == "typical":
        line += f"; decided again: typical, epsilon {epsilon:g}, delta {delta:g}"
        line += f", T = {settings.get('reading_temperature', 1):g}"
    return f"{_question(trace)}<br><sup>{prose(line, 120)}</sup>"


def _question(trace: Trace) -> str:
    return prose(trace.settings.get("question", "A recorded answer"), 66)


def _checked(trace: Trace, step: int | None) -> int:
    if not trace.steps:
        raise ReplayError("the trace has no steps, so there is nothing to show")
    step = len(trace.steps) - 1 if step is None else step
    if not 0 <= step < len(trace.steps):
        raise ReplayError(f"step {step} is not there: this trace has steps 0 to {len(trace.steps) - 1}")
    return step
