"""The dashboard in a notebook: filters change the figure, links hold the summary, and broken files are named."""

import base64
import re
from dataclasses import replace

import fake_results as fake
import pytest
from IPython.utils.capture import capture_output

from medusa_core import runtime
from medusa_core.plots.dashboard_panels import NOTHING, PANELS, View, choices
from medusa_core.results import read
from medusa_core.widgets_dashboard import explore_dashboard


def test_the_shipped_results_fill_every_panel():
    explorer = explore_dashboard(runtime.ARTIFACTS / "results")
    for panel in PANELS:
        explorer.panel.value = panel.name
        assert explorer.message.value == ""
        assert explorer.summary.startswith(panel.name) and explorer.figure.data


def test_filters_change_the_figure(tmp_path):
    explorer = explore_dashboard(fake.write(tmp_path))
    explorer.panel.value = "Tokens a step"
    assert len(explorer.figure.data) == 2
    explorer.filters["acceptance"].value = "typical"
    assert [trace.meta for trace in explorer.figure.data] == [
        {"head": ["medusa1"], "acceptance": ["typical"], "temperature": ["0.7"]}
    ]
    words = "result file benchmark.json, heads all, acceptance typical, temperature all, category all"
    assert explorer.summary == f"Tokens a step: {words}"


def test_filters_that_a_figure_ignores_are_disabled_and_not_named(tmp_path):
    explorer = explore_dashboard(fake.write(tmp_path))
    used = {}
    for panel in PANELS:
        explorer.panel.value = panel.name
        used[panel.name] = {name for name, box in explorer.filters.items() if not box.disabled}
        named = explorer.summary.removeprefix(f"{panel.name}: ").split(", ")
        assert len(named) == len(used[panel.name])
    assert used["Head accuracy by depth"] == used["Tree sizes"] == {"head"}
    assert used["Other programs"] == {"category"}
    assert used["Tokens a step"] == set(explorer.filters)
    assert used["Ours beside the published"] == set(explorer.filters) - {"category"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_a_figure_changes_with_the_fields_that_it_names_and_no_other(tmp_path, panel):
    content = fake.benchmark()
    content["runs"][0]["samples"][1]["seconds"] = 2.0  # or both categories would take the same time
    found = read(fake.write(tmp_path, benchmark=content))
    view = View("benchmark.json")
    before = panel.draw(found, view)
    for name, values in choices(found).items():
        drawn = [panel.draw(found, replace(view, **{name: value})) for value in values]
        assert any(figure != before for figure in drawn) == (name in panel.uses), name


def test_an_empty_choice_is_said_and_the_figure_stays(tmp_path):
    explorer = explore_dashboard(fake.write(tmp_path))
    explorer.panel.value = "Tokens a step"
    before = explorer.figure
    explorer.filters["source"].value = "comparison.json"
    assert NOTHING in explorer.message.value and explorer.figure is before


@pytest.mark.parametrize("stem", ["benchmark", "train_medusa1", "search_trees", "peers", "comparison"])
def test_a_broken_file_is_named_in_the_widget(tmp_path, stem):
    explorer = explore_dashboard(fake.write(tmp_path, **{stem: '{"runs": <b>'}))
    assert f"{stem}.json: not JSON" in explorer.message.value
    for panel in PANELS:
        explorer.panel.value = panel.name


def test_a_folder_without_results_gives_messages(tmp_path):
    explorer = explore_dashboard(tmp_path)
    assert explorer.message.value.count("is not there") == 4
    assert explorer.summary == NOTHING


def test_links_hold_the_summary_and_no_markup_of_names(tmp_path):
    benchmark = fake.benchmark(fake.HOSTILE)
    explorer = explore_dashboard(fake.write(tmp_path, benchmark=benchmark))
    csv = base64.b64decode(re.search(r"data:text/csv;base64,([^\"]+)", explorer.links.value)[1]).decode()
    assert csv.splitlines()[0].startswith("name,acceptance,temperature,speedup")
    assert "<script" not in explorer.links.value + explorer.message.value


def test_it_shows_itself_without_a_front_end(tmp_path, shell):
    with capture_output() as captured:
        explore_dashboard(fake.write(tmp_path)).show()
    assert captured.outputs[-1].data["text/plain"] == "Head accuracy by depth: heads all"
    assert any("application/vnd.plotly.v1+json" in output.data for output in captured.outputs)
