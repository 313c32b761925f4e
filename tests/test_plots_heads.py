"""Figures of kinds of heads hold the numbers given, and tell the kinds apart by more than colour."""

import numpy as np
import pytest

from medusa_core.plots import heads as plots

HISTORY = {"held_out": [{"step": s, "head_loss": [x, x + 1]} for s, x in ((0, 9.0), (10, 3.0))]}
TABLE = np.array([[0.5, 0.1, 0.1, 0.05, 0.05, 0.01], [0.4, 0.1, 0.0, 0.0, 0.0, 0.0]])


def test_losses_show_the_nearest_and_the_furthest_guess_of_every_kind():
    figure = plots.fig_kind_losses({"gru": HISTORY, "<b>": HISTORY})
    assert [trace.y for trace in figure.data[:2]] == [(9.0, 3.0), (10.0, 4.0)]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"] * 2
    assert [trace.name for trace in figure.data if trace.showlegend] == ["gru", "&lt;b&gt;"]


def test_accuracy_by_guess_is_the_first_and_the_sum_of_five_ranks():
    first, five = plots.fig_depth_accuracy({"gru": TABLE}).data
    assert first.x == (1, 2) and first.y == (0.5, 0.4) and five.y == (0.8, 0.5)


def test_tokens_stand_over_the_sizes_of_the_trees():
    figure = plots.fig_tokens_by_nodes({"gru": {4: 1.5, 8: 1.75}, "lstm": {4: 1.25, 8: 1.5}})
    assert [(trace.x, trace.y) for trace in figure.data] == [((4, 8), (1.5, 1.75)), ((4, 8), (1.25, 1.5))]
    assert figure.layout.xaxis.tickvals == (4, 8)


@pytest.mark.parametrize("style", ["line.dash", "marker.symbol", "line.color"])
def test_kinds_differ_in_dash_symbol_and_colour(style):
    group, name = style.split(".")
    figure = plots.fig_tokens_by_nodes({str(n): {4: 1.0} for n in range(5)})
    assert len({getattr(getattr(trace, group), name) for trace in figure.data}) == 5


def test_a_parameter_without_a_gradient_is_marked_with_a_zero():
    starts = {"seed": {"inner": 0.0, "bias": 1e-3}, "ours": {"inner": 2e-2, "bias": 1e-3}}
    seed, ours = plots.fig_gradients(starts).data
    assert seed.text == ("0", "") and ours.text == ("", "")
    assert seed.customdata == (0.0, 1e-3) and 0 < seed.y[0] < 1e-3 and ours.y == (2e-2, 1e-3)


def test_gradients_that_are_all_zero_make_a_figure_too():
    (bars,) = plots.fig_gradients({"seed": {"router": 0.0}}).data
    assert bars.text == ("0",) and bars.y[0] > 0


def test_expert_loads_are_stacked_for_each_head_with_the_entropy_above():
    load = (np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0.5, 0.69]))
    figure = plots.fig_expert_load({"k = 1": load, "k = 2": load})
    assert [trace.y for trace in figure.data[:2]] == [(0.75, 0.5), (0.25, 0.5)]
    assert sum(trace.showlegend for trace in figure.data) == 2
    assert [note.text for note in figure.layout.annotations] == ["k = 1", "k = 2", *["0.50", "0.69"] * 2]


def test_an_ablation_has_a_line_for_each_teacher_weight():
    rows = [
        {"teacher weight": teacher, "feature weight": feature, "tokens/step": 1 + teacher + feature}
        for teacher in (0.5, 0.0)
        for feature in (0.0, 0.1)
    ]
    figure = plots.fig_ablation(rows)
    none, half = figure.data
    assert none.name == "teacher weight 0" and none.x == ("0", "0.1") and none.y == (1.0, 1.1)
    assert half.y == (1.5, 1.6)
    low, high = figure.layout.yaxis.range
    assert low == 1 and high > 1.6  # gains keep their size beside plain decoding


def test_cost_and_gain_are_labelled_markers():
    rows = [{"heads": "medusa", "MB": 12.0, "gain": 1.5}, {"heads": "<moe>", "MB": 12.5, "gain": 1.5}]
    figure = plots.fig_cost_and_gain(rows, "MB", "gain")
    assert [(trace.x, trace.y, trace.text) for trace in figure.data] == [
        ((12.0,), (1.5,), ("medusa",)),
        ((12.5,), (1.5,), ("&lt;moe&gt;",)),
    ]
    low, high = figure.layout.yaxis.range
    assert low < 1.5 < high
