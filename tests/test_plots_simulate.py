"""Figures of the simulator hold the numbers they are given, and their sliders the other states."""

import numpy as np
import pytest

from medusa_core import published, scenarios, validation
from medusa_core.plots import simulate as plots
from medusa_core.plots import validation as measured_plots
from medusa_core.simulate import Prediction, Scenario, Sweep, predict, sweep

SMALL = Sweep(np.array([1.0, 1.5, 1.8]), np.array([1.0, 1.1, 1.5]))  # speed-up 1, 1.36, 1.2
FLAT = Sweep(np.array([1.0, 1.2, 1.4]), np.array([1.0, 1.0, 1.0]))
STATES = {"1": {"slow": SMALL, "fast": FLAT}, "8": {"slow": FLAT, "fast": SMALL}}


def visible(figure):
    return [trace for trace in figure.data if trace.visible]


def slide(figure, place):
    """Apply a step of the slider as plotly.js does: first the traces, then the layout."""
    step = figure.layout.sliders[0].steps[place]
    assert step.method == "update"
    traces, layout = step.args
    for trace, shown in zip(figure.data, traces["visible"], strict=True):
        trace.visible = shown
    figure.update_layout(**{key.replace(".", "_"): value for key, value in layout.items()})


def test_speedups_are_drawn_by_rows_with_the_best_marked():
    line, best, other, other_best = visible(plots.fig_nodes(STATES, "batch size"))
    assert (list(line.x), list(line.y)) == ([1, 2, 3], SMALL.speedup.round(4).tolist())
    assert (list(best.x), list(best.y)) == ([2], [1.3636])
    assert (list(other.y), list(other_best.x)) == ([1.0, 1.2, 1.4], [3])
    assert [trace.name for trace in (line, best, other, other_best)] == ["slow", "slow", "fast", "fast"]


def test_a_slider_switches_traces_and_title():
    figure = plots.fig_nodes(STATES, "batch size")
    assert "batch size 1 " in figure.layout.title.text
    slide(figure, 1)
    assert "batch size 8 " in figure.layout.title.text
    assert list(visible(figure)[0].y) == [1.0, 1.2, 1.4]
    assert [step.label for step in figure.layout.sliders[0].steps] == ["1", "8"]


def test_a_figure_can_start_in_any_state():
    figure = plots.fig_nodes(STATES, "batch size", shown="8")
    assert figure.layout.sliders[0].active == 1 and "batch size 8 " in figure.layout.title.text
    assert list(visible(figure)[0].y) == [1.0, 1.2, 1.4]
    with pytest.raises(ValueError, match="state '3' is not there: choose one of 1, 8"):
        plots.fig_nodes(STATES, "batch size", shown="3")


def test_names_cannot_be_read_as_markup():
    figure = plots.fig_nodes({"1": {"<b>x": SMALL}}, "batch size")
    assert figure.data[0].name == "&lt;b&gt;x"


def test_the_map_shows_nodes_and_marks_machines():
    grids = {"100%": np.array([[3, 7], [0, 1]]), "50%": np.array([[1, 3], [0, 0]])}
    machines = {"close": 16.5, "A": 16.0, "far": 30.0}
    figure = plots.fig_best_tree(grids, [16.0, 32.0], [1, 8], machines, "accuracy")
    (shown,) = visible(figure)
    assert [list(row) for row in shown.text] == [[3, 7], [0, 1]]
    assert [list(row) for row in shown.z] == [[2.0, 3.0], [0.0, 1.0]]
    assert (list(shown.x), list(shown.y)) == ([4.0, 5.0], ["1", "8"])
    assert [note.text for note in figure.layout.annotations] == ["A, close", "far"]
    assert [note.x for note in figure.layout.annotations] == pytest.approx([4.0, np.log2(30)])
    slide(figure, 1)
    assert [list(row) for row in visible(figure)[0].text] == [[1, 3], [0, 0]]


def test_a_steps_parts_are_stacked_in_plain_steps():
    plain = {"layers": 0.8, "attention": 0.1, "LM head": 0.1}
    step = {"layers": 1.0, "attention": 0.2, "LM head": 0.1, "draft": 0.3}
    states = {
        "3": {"m": Prediction(plain, step, 2.0), "n": Prediction(plain, plain, 1.0)},
        "7": {"m": Prediction(plain, plain, 1.0), "n": Prediction(plain, plain, 1.0)},
    }
    figure = plots.fig_step_parts(states, "nodes")
    *bars, totals = visible(figure)
    assert [bar.name for bar in bars] == list(plots.PARTS)
    assert list(bars[0].y) == ["n", "m"]  # from the bottom up
    assert [bar.x[1] for bar in bars] == [1.0, 0.2, 0.1, 0.3]
    assert bars[3].customdata[1] == 300.0  # ms
    assert list(totals.text) == [" 1.00", " 1.60"]
    assert figure.layout.xaxis.range[1] > 1.6
    slide(figure, 1)
    assert figure.layout.xaxis.range[1] < 1.2


def test_published_speedups_are_drawn_against_predictions_with_both_bounds():
    rows = validation.published_rows()
    figure = measured_plots.fig_published(rows)
    markers = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in markers] == list(dict.fromkeys(row["source"] for row in rows))
    assert sum(len(trace.x) for trace in markers) == len(rows)
    first, row = markers[0], rows[0]
    assert (first.x[0], first.y[0]) == (row["published"], round(row["speed-up"], 4))
    assert first.y[0] - first.error_y.arrayminus[0] == pytest.approx(row["no overlap"], abs=1e-3)
    assert "published 2.83x, predicted 3.12x (+10%)" in first.hovertext[0]
    low, high = figure.layout.xaxis.range
    assert all(low < value < high for trace in markers for value in (*trace.x, *trace.y))


def test_times_by_rows_show_measurement_and_bounds():
    curves = {"rows": [1, 2, 64], "measured": [1, 1.1, 3], "overlap": [1, 1, 2], "no overlap": [1, 1.2, 4]}
    overlap, apart, measured = measured_plots.fig_rows(curves, "Time").data
    assert (list(overlap.y), list(apart.y), list(measured.y)) == ([1, 1, 2], [1, 1.2, 4], [1, 1.1, 3])
    assert list(measured.x) == [1, 2, 64]


def test_a_scenario_shows_its_sweep_its_mark_and_both_steps():
    model = scenarios.model("Vicuna 7B")
    case = Scenario(model, scenarios.medusa_heads(model, 2), scenarios.machine("H100"))
    accuracy = [[0.5, 0.1], [0.3, 0.1]]
    prediction = predict(case, 2, accuracy)
    figure = plots.fig_scenario(sweep(case, accuracy, 5), prediction, 2, "A title")
    lines, marks = figure.data[:6:2], figure.data[1:6:2]
    assert [line.name for line in lines] == ["tokens/step", "overhead", "speed-up"]
    assert [len(line.x) for line in lines] == [6, 6, 6]
    assert [mark.x[0] for mark in marks] == [3, 3, 3]
    values = (prediction.tokens_per_step, prediction.overhead, prediction.speedup)
    assert [mark.y[0] for mark in marks] == [round(value, 4) for value in values]
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars] == list(plots.PARTS)
    assert sum(bar.y[1] for bar in bars) == pytest.approx(1e3 * prediction.step_seconds, abs=1e-3)
    assert bars[3].y[0] == 0  # plain decoding drafts nothing


def test_a_large_overhead_leaves_the_axis_to_tokens_and_speed():
    model, accuracy = scenarios.model("Vicuna 7B"), published.ACCURACY["Vicuna 7B"]
    ranges = []
    for batch in (1, 64):
        case = Scenario(model, scenarios.medusa_heads(model), scenarios.machine("A100-80GB"), batch=batch)
        sizes = sweep(case, accuracy)
        ranges.append(plots.fig_scenario(sizes, predict(case, 3, accuracy), 3, "A title").layout.yaxis.range)
    assert ranges[0] is None
    assert ranges[1][0] == 0 and sizes.tokens_per_step.max() < ranges[1][1] < sizes.overhead.max()
