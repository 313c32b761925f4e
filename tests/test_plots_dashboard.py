"""The dashboard's figures: every panel draws, filters leave what was asked for, and names cannot be markup."""

import fake_results as fake
import pytest

from medusa_core import results
from medusa_core.plots import dashboard, dashboard_heads
from medusa_core.plots.dashboard_panels import PANELS, View, choices, first_view


@pytest.fixture
def found(tmp_path):
    return results.read(fake.write(tmp_path))


def names(figure):
    return [trace.name for trace in figure.data if trace.name]


def test_every_panel_draws_the_first_view(found):
    view = first_view(found)
    assert view == View("benchmark.json", acceptance="greedy")
    for panel in PANELS:
        assert panel.draw(found, view).data, panel.name


def test_choices_are_what_the_files_hold(found):
    assert choices(found) == {
        "source": ["benchmark.json", "comparison.json"],
        "head": ["medusa1", "gru"],
        "acceptance": ["greedy", "typical"],
        "temperature": ["0", "0.7"],
        "category": ["coding", "math"],
    }


def test_filters_leave_what_was_asked_for(found):
    bench = found.benches["benchmark.json"]
    assert len(dashboard.fig_step_tokens(bench).data) == 3
    (only,) = dashboard.fig_step_tokens(bench, "math", head="medusa1", acceptance="typical").data
    assert only.name.startswith("medusa1, typical") and list(only.customdata) == [2, 3]
    (bars,) = dashboard.fig_category_speedup(bench, "math", acceptance="typical").data
    assert list(bars.x) == ["<b>all</b>", "math"]
    assert names(dashboard.fig_step_tokens(bench, "math", temperature="0.7")) == [only.name]
    assert not dashboard.fig_step_tokens(bench, head="gru").data
    assert dashboard.fig_step_tokens(bench, category="unknown") is None


def test_a_steps_time_adds_up_and_plain_decoding_of_its_temperature_stays(found):
    bench = found.benches["benchmark.json"]
    *phases, totals = dashboard.fig_time(bench, "step", acceptance="typical").data
    assert list(totals.y) == ["plain, sampling, T = 0.7", "medusa1, typical, T = 0.7"]
    assert [trace.name for trace in phases] == ["prefill", "verify", "accept", "commit", "draft", "rest"]
    assert list(dashboard.fig_time(bench, temperature="0").data[-1].y)[0] == "plain, greedy"
    assert sum(trace.x[1] for trace in phases) == pytest.approx(1e3 * 2.0 / 10, abs=0.01) == totals.x[1]
    assert dashboard.fig_time(bench, "token").data[-1].x[0] == pytest.approx(1e3 * 2.0 / 20)


def test_a_file_without_steps_draws_speed_alone(found):
    view = View("comparison.json")
    drawn = {panel.name: panel.draw(found, view) is not None for panel in PANELS}
    assert drawn["Speed-up by category"] and drawn["Ours beside the published"]
    assert not drawn["Tokens a step"] and not drawn["Time of a step"]


def test_a_file_whose_drafted_answers_are_one_token_draws_what_it_can(tmp_path):
    found = results.read(fake.write(tmp_path, benchmark=fake.one_token_answers()))
    assert found.problems == []
    drawn = {panel.name: panel.draw(found, View("benchmark.json")) for panel in PANELS}
    assert {name for name, figure in drawn.items() if figure is None} == {"Tokens a step"}
    assert set(drawn["Speed-up by category"].data[0].customdata) == {"-"}
    assert "ours" not in names(drawn["Ours beside the published"])


def test_a_run_without_steps_does_not_shift_the_filters_of_the_others(tmp_path):
    bench = fake.benchmark()
    first = bench["runs"][2]  # medusa1, greedy: the first that is drafted
    first["samples"] = [{**sample, "tokens_per_step_histogram": {}} for sample in first["samples"]]
    assert len(dashboard.fig_step_tokens(bench).data) == 2
    (typical,) = dashboard.fig_step_tokens(bench, acceptance="typical").data
    assert typical.name.startswith("medusa1, typical")


def test_heads_of_every_file_have_lines(found):
    assert names(dashboard_heads.fig_depth_accuracy(found.accuracy)) == ["medusa1", "gru"] * 2
    assert names(dashboard_heads.fig_depth_accuracy(found.accuracy, "gru")) == ["gru"] * 2
    figure = dashboard_heads.fig_tree_sweep(found.sweeps, "medusa1")
    assert list(figure.data[1].y) == pytest.approx([1.0, 1.1667, 1.2308, 1.1333])
    assert names(figure)[-1] == "medusa1, measured"


def test_other_programs_of_one_category_are_medians_over_it(found):
    assert dashboard.fig_peer_speed(found.peers, "math").data[0].x[0] == pytest.approx(10.0)
    assert dashboard.fig_peer_speed(found.peers, "unknown") is None


def test_ours_stand_beside_every_published_method(found):
    figure = dashboard.fig_published(found.benches["benchmark.json"], acceptance="greedy")
    ours = figure.data[-1]
    assert ours.name == "ours" and list(ours.y) == [1.5, 1.5] and list(ours.x) == [1.25, 1.25]
    assert {"published: Medusa-1", "published: Medusa-2", "published: other heads"} <= set(names(figure))


def test_names_are_never_markup(tmp_path):
    name = fake.HOSTILE
    found = results.read(
        fake.write(
            tmp_path,
            benchmark=fake.benchmark(name, (name, "math")),
            comparison=fake.comparison((name, "gru")),
            search_trees=fake.search(name),
            peers=fake.peers(name, (name, "math")),
        )
    )
    for source in found.benches:
        for panel in PANELS:
            if (figure := panel.draw(found, View(source))) is not None:
                figure.for_each_trace(lambda trace: trace.update(meta=None, legendgroup=None))
                assert "<img" not in figure.to_json().replace(r"\u003c", "<"), panel.name
