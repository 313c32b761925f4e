"""Figures of joint training hold the numbers of the histories, and tell the runs apart by more than colour."""

import pytest

from medusa_core import plots


def history(kl, perplexity, loss):
    rows = zip((0, 10), kl, perplexity, loss)
    return {"held_out": [{"step": s, "kl": k, "perplexity": p, "loss": x} for s, k, p, x in rows]}


HISTORIES = {
    "two-stage": history((0.0, 0.02), (2.0, 2.1), (10.0, 9.5)),
    "<direct>": history((0.0, 0.5), (2.0, 3.0), (30.0, 12.0)),
}


def test_every_recipe_has_a_line_of_its_scale():
    figure = plots.fig_recipes({"ramp": [0.0, 0.5], "direct": [1.0, 1.0]})
    assert [(trace.name, trace.x, trace.y) for trace in figure.data] == [
        ("ramp", (1, 2), (0.0, 0.5)),
        ("direct", (1, 2), (1.0, 1.0)),
    ]


def test_each_panel_shows_its_number_of_every_run():
    figure = plots.fig_joint(HISTORIES)
    assert [trace.y for trace in figure.data[:3]] == [(0.0, 0.02), (2.0, 2.1), (10.0, 9.5)]
    assert all(trace.x == (0, 10) for trace in figure.data)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["two-stage", "&lt;direct&gt;"]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2", "x3"] * 2
    (line,) = figure.layout.shapes
    assert (line.y0, line.yref) == (2.0, "y2")


@pytest.mark.parametrize("style", ["line.dash", "marker.symbol", "line.color"])
def test_runs_differ_in_dash_symbol_and_colour(style):
    group, name = style.split(".")
    figure = plots.fig_joint(HISTORIES)
    assert len({getattr(getattr(trace, group), name) for trace in figure.data}) == len(HISTORIES)


def test_gain_and_cost_have_a_labelled_marker_a_row_and_the_first_as_a_line():
    rows = [{"heads": "medusa1", "KL": 0.0, "measured": 1.7}, {"heads": "ramp", "KL": 0.1, "measured": 1.8}]
    figure = plots.fig_gain_and_cost(rows, 16, "measured")
    assert [(t.x, t.y, t.text) for t in figure.data] == [
        ((0.0,), (1.7,), ("medusa1",)),
        ((0.1,), (1.8,), ("ramp",)),
    ]
    assert (
        figure.layout.shapes[0].y0 == 1.7
        and figure.layout.yaxis.title.text == "measured tokens / step, 16 nodes"
    )
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > 0.1
