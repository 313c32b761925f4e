"""Figures of a benchmark, from its result JSON alone: tokens a step, a step's time by phase, and speed-up."""

from __future__ import annotations

import html
from collections import Counter

import plotly.graph_objects as go

from medusa_core.plots.palette import COLOURS, PATTERNS, bar, ramp, styled
from medusa_core.results import head_of, temperature_of
from medusa_core.summary import PLAIN
from medusa_core.trace import PHASES

LABELLED = 4  # runs side by side whose bars are wide enough for a number


def fig_tokens_per_step(result: dict) -> go.Figure:
    """Share of steps that produced 1, 2, ... tokens, one group of bars a drafted run."""
    figure = go.Figure()
    runs = [run for run in result["runs"] if run["name"] != PLAIN]
    for run, marker in zip(runs, _markers(runs)):
        counts = Counter()
        for sample in run["samples"]:
            counts.update({int(tokens): n for tokens, n in sample["tokens_per_step_histogram"].items()})
        if not (steps := sum(counts.values())):
            continue  # every answer ended with the prompt's own token
        mean = sum(tokens * n for tokens, n in counts.items()) / steps
        produced = list(range(min(1, *counts), max(counts) + 1))
        figure.add_bar(
            x=produced,
            y=[round(counts[tokens] / steps, 4) for tokens in produced],
            name=f"{_label(run)}: {mean:.2f} tokens/step",
            marker=marker,
            text=[f"{counts[tokens] / steps:.0%}" for tokens in produced] if len(runs) <= LABELLED else None,
            textposition="outside",
            cliponaxis=False,
            customdata=[counts[tokens] for tokens in produced],
            meta=way(run),
            hovertemplate="%{x} tokens: %{y:.1%}, %{customdata} steps<extra></extra>",
        )
    figure.update_xaxes(title="tokens produced by a step", dtick=1)
    figure.update_yaxes(title="share of steps", tickformat=".0%")
    height = _height(len(runs))
    return styled(figure, "How many tokens a step brings", height, barmode="group", legend=_below())


def fig_step_time(result: dict) -> go.Figure:
    """Milliseconds of a step by phase, one stacked bar a run; prefill is not part of a step."""
    figure = go.Figure()
    runs = result["runs"][::-1]  # plotly draws the first bar at the bottom
    names = [_label(run) for run in runs]
    steps = [sum(sample["steps"] for sample in run["samples"]) for run in runs]
    left = [_decode_seconds(run) for run in runs]
    phases = [*PHASES, "rest"]
    for phase, colour, pattern in zip(phases, ramp(len(phases)), _repeat(PATTERNS, len(phases))):
        if phase == "rest":
            seconds = [max(0.0, rest) for rest in left]
        else:
            seconds = [sum(s["times"].get(phase, 0.0) for s in run["samples"]) for run in runs]
            left = [rest - spent for rest, spent in zip(left, seconds)]
        milliseconds = [1e3 * spent / count for spent, count in zip(seconds, steps)]
        figure.add_bar(
            y=names,
            x=[round(value, 3) for value in milliseconds],
            orientation="h",
            name=phase,
            marker=bar(colour, pattern),
            hovertemplate="%{y}<br>" + phase + ": %{x:.2f} ms<extra></extra>",
        )
    totals = [1e3 * _decode_seconds(run) / count for run, count in zip(runs, steps)]
    for name, total in zip(names, totals):
        figure.add_annotation(
            x=total, y=name, text=f"{total:.1f} ms", xanchor="left", xshift=6, showarrow=False
        )
    figure.update_xaxes(title="milliseconds a step", range=[0, 1.15 * max(totals)])
    figure.update_yaxes(automargin=True)
    height = 220 + 60 * len(runs)
    return styled(figure, "Where a step's time goes", height=height, barmode="stack", legend=_below(height))


def fig_speedup(result: dict) -> go.Figure:
    """Speed-up over plain decoding by category and overall, one group of bars a drafted run."""
    figure = go.Figure()
    rows = [row for row in result["summary"] if row["name"] != PLAIN]
    for row, marker in zip(rows, _markers(rows)):
        key = _key(row)
        own = [each for each in result["categories"] if _key(each) == key]
        value = [row["speedup"], *(each["speedup"] for each in own)]
        figure.add_bar(
            x=["<b>all</b>", *(html.escape(each["category"]) for each in own)],
            y=[round(each, 3) for each in value],
            name=f"{_label(row)}: {row['speedup']:.2f}x",
            marker=marker,
            text=[f"{each:.2f}" for each in value] if len(rows) <= LABELLED else None,
            textposition="outside",
            textangle=-90 if len(rows) > 1 else 0,
            cliponaxis=False,
            customdata=[_two_digits(each["tokens_per_step"]) for each in (row, *own)],
            meta=way(row),
            hovertemplate="%{x}: %{y:.2f}x at %{customdata} tokens/step<extra></extra>",
        )
    figure.add_hline(y=1, line={"color": COLOURS["plain"], "width": 2, "dash": "dash"})
    figure.update_yaxes(title="times as fast as plain", rangemode="tozero")
    title, height = "Speed-up by category (dashed: plain decoding)", _height(len(rows))
    return styled(figure, title, height, barmode="group", legend=_below())


def way(row: dict) -> dict:
    """What a dashboard's filters choose the bars of a run, or of a row of its summary, by."""
    return {
        "head": [head_of(row)],
        "acceptance": [row["acceptance"]],
        "temperature": [temperature_of(row)],
    }


def _markers(rows: list[dict]) -> list[dict]:
    """A marker a run; where several guess in several ways, the colour says who does and the pattern how."""
    if not rows:
        return []
    keys = [(row["name"], _key(row)[1:]) for row in rows]
    who, how = (list(dict.fromkeys(part)) for part in zip(*keys))
    if len(who) == 1 or len(how) == 1:
        return [bar(*each) for each in zip(ramp(len(rows)), _repeat(PATTERNS, len(rows)))]
    colours, patterns = ramp(len(who)), _repeat(PATTERNS, len(how))
    return [bar(colours[who.index(name)], patterns[how.index(way)]) for name, way in keys]


def _label(run: dict) -> str:
    temperature = f", T = {run['temperature']:g}" if run["temperature"] else ""
    return html.escape(f"{run['name']}, {run['acceptance']}{temperature}")


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _key(row: dict) -> tuple:
    return row["name"], row["acceptance"], row["temperature"]


def _decode_seconds(run: dict) -> float:
    return sum(sample["seconds"] - sample["times"]["prefill"] for sample in run["samples"])


def _repeat(values, count: int) -> list:
    return [values[i % len(values)] for i in range(count)]


def _height(runs: int) -> int:
    """Pixels of a figure whose legend, below it, has a line a run: the bars keep theirs."""
    return 460 + 24 * max(0, runs - 2)


def _below(height: int = 460) -> dict:
    return {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": -80 / (height - 150),
        "yanchor": "top",
        "traceorder": "normal",
    }
