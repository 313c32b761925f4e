"""Figures of the comparison hold the numbers of its result, heads by name, in the file's order."""

import pytest

from medusa_core import plots


def row(name, acceptance, speedup, **more):
    return {
        "name": name,
        "acceptance": acceptance,
        "speedup": speedup,
        "tokens_per_step": 1.5,
        "overhead": 1.2,
        **more,
    }


@pytest.fixture
def result():
    heads = [
        {
            "name": name,
            "parameters": 10**6,
            "top1": [0.3, 0.2],
            "top5": [0.6, 0.4],
            "tokens_per_step": {"4": value, "8": value + 0.1},
            "draft_ms": {"4": 0.5, "8": 0.7},
        }
        for name, value in (("medusa1", 1.4), ("medusa2", 1.6))
    ]
    summary = [row("plain", "greedy", 1.0), row("plain medusa2", "greedy", 1.0)]
    summary += [row(name, "greedy", value) for name, value in (("medusa1", 1.1), ("medusa2", 1.2))]
    summary += [row(f"{name} + context", "greedy", 1.3) for name in ("medusa1", "medusa2")]
    categories = [row(each["name"], "greedy", 2.0 + place, category=category)
                  for each in summary for place, category in enumerate(("coding", "math"))]  # fmt: skip
    return {"heads": heads, "step_seconds": [0.01], "bench": {"summary": summary, "categories": categories}}


def test_the_best_heads_are_named_first(result):
    figure = plots.fig_heads_tokens(result)
    assert [trace.name for trace in figure.data] == ["medusa2", "medusa1"]
    assert list(figure.data[0].x) == [4, 8] and list(figure.data[0].y) == [1.6, 1.7]


def test_accuracy_shows_the_best_guess_and_the_best_five(result):
    figure = plots.fig_heads_accuracy(result)
    assert list(figure.data[0].y) == [0.3, 0.2] and list(figure.data[1].y) == [0.6, 0.4]
    assert figure.data[0].offsetgroup == figure.data[1].offsetgroup != figure.data[2].offsetgroup


def test_cost_stands_against_gain(result):
    (points,) = plots.fig_heads_cost(result, 8).data
    assert list(points.x) == [0.7, 0.7] and list(points.y) == [1.5, 1.7]
    assert list(points.text) == ["medusa1", "medusa2"]


def test_speed_is_drawn_for_every_way_and_never_for_plain_decoding(result):
    figure = plots.fig_heads_speed(result)
    assert [(trace.name, list(trace.y)) for trace in figure.data] == [
        ("greedy", [1.1, 1.2]),
        ("greedy + context", [1.3, 1.3]),
    ]


def test_categories_have_a_cell_each(result):
    (cells,) = plots.fig_heads_categories(result).data
    assert [list(line) for line in cells.z] == [[2.0, 3.0], [2.0, 3.0]]
    assert list(cells.x) == ["coding", "math"] and list(cells.y) == ["medusa1", "medusa2"]
