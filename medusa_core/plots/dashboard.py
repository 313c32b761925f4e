"""Figures of the dashboard that a benchmark's runs fill, with filters: heads, acceptance, temperature and category.

Every trace says in its `meta` for which heads, acceptances and temperatures it is shown, or in meta["points"] for
which its points are. `narrow` filters by that, and a figure hands it the `wanted` that it is given; the page of the
static site does the same in its browser (pages/dashboard.js).
"""

from __future__ import annotations

import html

import plotly.graph_objects as go

from medusa_core import peer_summary, published
from medusa_core.plots.bench import fig_speedup, fig_tokens_per_step, way
from medusa_core.plots.palette import COLOURS, PATTERNS, SYMBOLS, bar, ramp, styled
from medusa_core.plots.peers import fig_peers
from medusa_core.results import is_plain, temperature_of
from medusa_core.trace import PHASES

POINTWISE = ("x", "y", "text", "customdata")
# Legends of any length lie on the lower edge; what is drawn makes room for them.
BELOW = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "traceorder": "normal"}
FAMILIES = {  # of published methods; what is not here trains heads of another kind
    "medusa-1": "Medusa-1",
    "medusa-2": "Medusa-2",
    "prompt lookup": "nothing trained",
    "lookahead": "nothing trained",
    "draft model": "draft model",
}
OTHER = "other heads"


def narrow(figure: go.Figure, **wanted: str | None) -> go.Figure:
    """The figure with only what is shown for `wanted`: head, acceptance, temperature. Changes it in place.

    None, or nothing, stands for all.
    """

    def fits(meta: dict | None) -> bool:
        own = {key: (meta or {}).get(key) for key in wanted}
        return all(value is None or own[key] is None or value in own[key] for key, value in wanted.items())

    kept = []
    for trace in figure.data:
        meta = trace.meta
        if meta and "points" in meta:
            places = [place for place, each in enumerate(meta["points"]) if fits(each)]
            for name in POINTWISE:
                if trace[name] is not None:
                    trace[name] = [trace[name][place] for place in places]
            trace.meta = {"points": [meta["points"][place] for place in places]}
            kept += [trace] if places else []
        elif fits(meta):
            kept.append(trace)
    figure.data = kept
    return figure


def fig_step_tokens(bench: dict, category=None, **wanted) -> go.Figure | None:
    """Histogram of tokens a step (plots/bench.py), filtered; None where the file keeps no steps."""
    drafted = [run for run in _runs(bench, category) if not is_plain(run)]
    if not drafted:
        return None
    return narrow(_fitted(fig_tokens_per_step({"runs": drafted})), **wanted)


def fig_category_speedup(bench: dict, category=None, **wanted) -> go.Figure | None:
    """Speed-up overall and by category (plots/bench.py), filtered."""
    drafted = [row for row in bench["summary"] if not is_plain(row)]
    own = [row for row in bench["categories"] if category in (None, row["category"])]
    figure = fig_speedup({"summary": drafted, "categories": own})
    return narrow(_fitted(figure), **wanted) if drafted else None


def fig_time(bench: dict, per: str = "step", category=None, **wanted) -> go.Figure | None:
    """Milliseconds a step, or a token, by phase, the prompt's forward (prefill) spread over all; None without times.

    per: "step" or "token".
    """
    runs = _runs(bench, category)
    if not runs:
        return None
    figure = go.Figure()
    phases = ("prefill", *PHASES, "rest")
    names = [_name(run) for run in runs]
    points = [_beside(runs, run["temperature"]) if is_plain(run) else way(run) for run in runs]
    counts = [sum(sample[f"{per}s"] for sample in run["samples"]) for run in runs]
    left = [sum(sample["seconds"] for sample in run["samples"]) for run in runs]
    totals = [1e3 * seconds / count for seconds, count in zip(left, counts)]
    for number, (phase, colour) in enumerate(zip(phases, ramp(len(phases)))):
        spent = [sum(sample["times"].get(phase, 0.0) for sample in run["samples"]) for run in runs]
        spent = [max(0.0, rest) for rest in left] if phase == "rest" else spent
        left = [rest - seconds for rest, seconds in zip(left, spent)]
        figure.add_bar(
            y=names,
            x=[round(1e3 * seconds / count, 3) for seconds, count in zip(spent, counts)],
            orientation="h",
            name=phase,
            marker=bar(colour, PATTERNS[number % len(PATTERNS)]),
            meta={"points": points},
            hovertemplate="%{y}<br>" + phase + ": %{x:.2f} ms<extra></extra>",
        )
    figure.add_scatter(
        y=names, x=[round(total, 3) for total in totals], text=[f" {total:.1f} ms" for total in totals],
        mode="text", textposition="middle right", cliponaxis=False, showlegend=False, hoverinfo="skip",
        meta={"points": points},
    )  # fmt: skip
    figure.update_xaxes(title=f"milliseconds a {per}", range=[0, 1.25 * max(totals)], automargin=True)
    figure.update_yaxes(automargin=True, autorange="reversed", type="category")
    styled(
        figure, f"Where the time of a {per} goes, prompt included", height=500, barmode="stack", legend=BELOW
    )
    return narrow(figure, **wanted)


def fig_published(bench: dict, **wanted) -> go.Figure:
    """Tokens a step over overhead, ours beside the published; dotted lines join equal speed-ups."""
    figure = go.Figure()
    records = [each for each in published.RECORDS if each.quotient and each.tokens_per_step]
    drafted = [row for row in bench["summary"] if not is_plain(row)]
    rows = [row for row in drafted if row["overhead"] and row["tokens_per_step"]]
    right = 0.1 + max(2.0, *(each.quotient for each in records), *(row["overhead"] for row in rows))
    top = 0.3 + max(
        5.0, *(each.tokens_per_step for each in records), *(row["tokens_per_step"] for row in rows)
    )
    for factor in (1, 1.5, 2, 3, 4):
        figure.add_scatter(
            x=[0.9, right], y=[0.9 * factor, right * factor], mode="lines", hoverinfo="skip", showlegend=False,
            line={"color": COLOURS["plain"], "dash": "dot", "width": 1},
        )  # fmt: skip
        figure.add_annotation(
            x=min(0.97 * right, 0.95 * top / factor), y=min(0.97 * right * factor, 0.95 * top),
            text=f"{factor:g}x", showarrow=False, bgcolor="#FFFFFF", font={"color": "#4A4A4A"},
        )  # fmt: skip
    families = dict.fromkeys([*FAMILIES.values(), OTHER])
    for number, (family, colour) in enumerate(zip(families, ramp(len(families)))):
        own = [each for each in records if FAMILIES.get(each.method, OTHER) == family]
        figure.add_scatter(
            x=[round(each.quotient, 3) for each in own],
            y=[each.tokens_per_step for each in own],
            text=[html.escape(_origin(each)) for each in own],
            name=f"published: {family}",
            mode="markers",
            marker={"size": 10, "symbol": f"{SYMBOLS[number]}-open", "color": colour, "line": {"width": 2}},
            hovertemplate="%{text}<br>%{y:.2f} tokens/step, overhead %{x:.2f}<extra></extra>",
        )
    figure.add_scatter(
        x=[round(row["overhead"], 3) for row in rows],
        y=[round(row["tokens_per_step"], 3) for row in rows],
        text=[f"{_name(row)}: {row['speedup']:.2f}x" for row in rows],
        name="ours",
        mode="markers",
        marker={
            "size": 16,
            "symbol": SYMBOLS[5],
            "color": COLOURS["accepted"],
            "line": {"width": 1, "color": "#000"},
        },
        meta={"points": [way(row) for row in rows]},
        hovertemplate="ours: %{text}<br>%{y:.2f} tokens/step, overhead %{x:.2f}<extra></extra>",
    )
    figure.update_xaxes(title="overhead: time of a step, in plain steps", range=[0.9, right], automargin=True)
    figure.update_yaxes(title="tokens / step", range=[0.8, top])
    styled(figure, "Ours beside the published (dotted: equal speed-up)", height=560, legend=BELOW)
    return narrow(figure, **wanted)


def fig_peer_speed(peers: dict, category=None) -> go.Figure | None:
    """Tokens a second beside other programs (plots/peers.py), of all questions or of one category."""
    if category is None:
        return _short_axis(fig_peers(peers))
    kept = [
        {**peer, "samples": [sample for sample in peer["samples"] if sample["category"] == category]}
        for peer in peers["peers"]
    ]
    if not all(peer["samples"] for peer in kept):
        return None
    rows = peer_summary.summarise({**peers, "peers": kept})["summary"]
    return _short_axis(fig_peers({**peers, "summary": rows}))


def _short_axis(figure: go.Figure) -> go.Figure:
    """For a panel half a page wide."""
    figure.update_annotations(bgcolor="#FFFFFF")  # a number may lie on the dashed line
    return figure.update_xaxes(title="tokens/s (whiskers: 10% to 90%)")


def _runs(bench: dict, category: str | None) -> list[dict]:
    """Runs with their answers of one category; those without any are left out."""
    kept = [
        {**run, "samples": [sample for sample in run["samples"] if category in (None, sample["category"])]}
        for run in bench["runs"]
    ]
    return [run for run in kept if run["samples"]]


def _fitted(figure: go.Figure) -> go.Figure:
    """Bars whose numbers stand upright, since there may be many."""
    figure.update_traces(textangle=-90, constraintext="none", textfont={"size": 13})
    return figure.update_xaxes(automargin=True).update_layout(legend=BELOW, height=500)


def _beside(runs: list[dict], temperature: float) -> dict:
    """What plain decoding is shown beside: every acceptance at its temperature."""
    beside = [run for run in runs if run["temperature"] == temperature]
    return {"acceptance": [run["acceptance"] for run in beside], "temperature": [temperature_of(beside[0])]}


def _name(row: dict) -> str:
    temperature = f", T = {temperature_of(row)}" if row["temperature"] else ""
    return html.escape(f"{row['name']}, {row['acceptance']}{temperature}")


def _origin(record: published.Record) -> str:
    return f"{record.method}, {record.model}, {record.machine or 'machine not named'}: {record.origin}"
