"""The tree explorer: controls drive tree, figure and tables, and broken input gets words instead of a traceback."""

import html
import json
import re

import pytest
from IPython.utils.capture import capture_output
from live_charts import answer, title_in
from test_prospects import ACCURACY, BROKEN, COST, FILE, MEASURED

from medusa_core import prospects, tree_files
from medusa_core.plots.tree_table import html_buffers, html_comparison
from medusa_core.prospects import COUNTED, PRODUCT, Measured, Prospects, ProspectsError
from medusa_core.tree import Tree
from medusa_core.widgets_trees import KEPT, NOTHING, explore_trees, summary_tree

FOUND = Prospects(MEASURED, COUNTED)
PLOTLY = "application/vnd.plotly.v1+json"


def explorer():
    return explore_trees({"here": MEASURED})


def test_default_state_is_the_fastest_tree_of_the_first_measurements():
    view = explorer()
    assert view.tree.choices == FOUND.best(FOUND.fastest).choices and view.nodes.value == FOUND.fastest
    assert view.summary == summary_tree("here", FOUND, view.tree) and view.message.value == ""
    assert view.nodes.max == FOUND.most


def test_the_budget_slider_searches_and_writes_the_choices():
    view = explorer()
    for nodes in (0, 4, 1):
        view.nodes.value = nodes
        assert view.tree.choices == FOUND.best(nodes).choices
        assert json.loads(view.choices.value) == [list(path) for path in view.tree.choices]
        assert f"{nodes} node" in view.figure.layout.title.text


def test_typed_choices_are_shown_and_survive_another_rule():
    view = explorer()
    view.choices.value = "[[0], [2]]"
    assert view.tree.choices == ((0,), (2,)) and view.nodes.value == 2
    counted = view.summary
    view.rule.value = PRODUCT
    assert view.tree.choices == ((0,), (2,)) and view.summary != counted
    view.nodes.value = 3  # a budget searches again
    assert view.tree.choices == Prospects(MEASURED).best(3).choices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[0], [1, 0]]", "path [1, 0] has no parent: add [1] to the tree"),
        ("[[0], [0]]", "path [0] is given twice"),
        ("[[0], ", "not a list of paths (character 7)"),
        ("[[3]]", "path [3]: rank 3 is beyond the 3 guesses of a head"),
        ("[[0], [0, 0], [0, 0, 0]]", "path [0, 0, 0] is 3 deep, but there are 2 heads"),
        ("[[0], [1], [2], [0, 0], [0, 1]]", "steps were timed up to 5 rows"),
        ('["<img src=x>"]', "<img src=x>"),
    ],
)
def test_wrong_choices_give_a_message_and_leave_the_rest(text, message):
    view = explorer()
    before = (view.tree, view.figure, view.table, view.summary)
    view.choices.value = text
    assert message in html.unescape(view.message.value) and "<img" not in view.message.value
    assert (view.tree, view.figure, view.table, view.summary) == before
    view.choices.value = "[[0]]"
    assert view.message.value == "" and view.tree.choices == ((0,),)


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_result_file_gives_a_message_and_leaves_the_rest(tmp_path, content, message):
    file = tmp_path / "broken.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    view = explore_trees({"here": MEASURED, "broken": file})
    before = (view.tree, view.figure, view.summary)
    view.source.value = "broken"
    assert re.search(message, html.unescape(view.message.value)) and "broken.json" in view.message.value
    assert (view.tree, view.figure, view.summary) == before
    for control, value in (
        (view.nodes, 1),
        (view.choices, "[[2]]"),
        (view.other, "dense 4 x 2"),
        (view.other, NOTHING),
    ):
        control.value = value
        assert view.message.value, "what is shown is still of the measurements before"
        assert view.summary == summary_tree("here", FOUND, view.tree)
    assert view.tree.choices == ((2,),) and "broken.json" in view.message.value
    view.source.value = "here"
    assert view.message.value == ""


def test_a_broken_first_file_leaves_controls_to_choose_another(tmp_path):
    file = tmp_path / "result.json"
    view = explore_trees({"broken": file, "here": MEASURED})
    assert "cannot be read" in view.message.value and view.summary == "no result to show"
    view.rule.value = PRODUCT
    view.choices.value = "[[0]]"
    view.keep.click()
    view.source.value = "here"
    assert view.message.value == "" and view.summary.startswith("here, ")


def test_result_files_are_read_when_they_are_chosen(tmp_path):
    file = tmp_path / "result.json"
    view = explore_trees({"here": MEASURED, "later": file})
    file.write_text(json.dumps(FILE))
    view.source.value = "later"
    assert view.summary.startswith("later, ") and view.message.value == ""


def test_accuracies_alone_answer_one_rule_and_say_so():
    view = explore_trees({"bare": Measured(ACCURACY, COST)})
    assert "cannot be valued by" in view.message.value
    view.rule.value = PRODUCT
    assert view.message.value == "" and view.summary.startswith(f"bare, {PRODUCT}")


def test_a_rule_that_measurements_lack_is_said_until_another_is_chosen():
    view = explore_trees({"here": MEASURED, "bare": Measured(ACCURACY, COST)})
    view.source.value = "bare"
    view.nodes.value = 1
    assert "cannot be valued by" in view.message.value
    assert view.summary == summary_tree("here", FOUND, FOUND.best(1))
    view.rule.value = PRODUCT
    assert view.message.value == "" and view.summary.startswith(f"bare, {PRODUCT}")


def test_measurements_that_the_typed_tree_does_not_fit_are_used_by_what_comes():
    few = Measured(ACCURACY[:1], COST)
    view = explore_trees({"here": MEASURED, "one head": few})
    view.rule.value = PRODUCT
    view.choices.value = "[[0], [0, 0]]"
    before = view.summary
    view.source.value = "one head"
    assert "2 deep, but there are 1 heads" in view.message.value and view.summary == before
    view.nodes.value = 1
    assert view.message.value == "" and view.summary.startswith("one head, ")


def test_a_tree_is_compared_with_a_kept_one():
    view = explorer()
    view.nodes.value = 1
    view.keep.click()
    view.nodes.value = 4
    assert view.other.value == KEPT and f"compared: {KEPT}" in view.table
    assert {trace.name for trace in view.figure.data} >= {"in both", "this tree only", "the other"}
    view.other.value = NOTHING
    assert "compared" not in view.table


def test_a_tree_to_compare_that_does_not_fit_gives_a_message():
    view = explorer()
    view.other.value = "chain of 4"
    assert "chain of 4 cannot be compared here: path [0, 0, 0] is 3 deep" in view.message.value
    view.nodes.value = 2
    assert view.tree.size == 3 and "compared" not in view.table, "the other controls go on working"
    assert "chain of 4 cannot be compared here" in view.message.value
    view.other.value = NOTHING
    assert view.message.value == ""


def test_a_locked_node_is_marked_in_figure_and_table_while_it_is_there():
    view = explorer()
    view.nodes.value = 4
    view.locked.value = view.tree.choices[-1]
    assert "path" in {trace.name for trace in view.figure.data} and "<b>locked</b>" in view.table
    view.nodes.value = 2
    assert view.locked.label == "no node" and "<b>locked</b>" not in view.table


def test_a_lock_stays_with_its_node_where_the_nodes_number_is_anothers():
    view = explorer()
    view.choices.value = "[[0], [1], [0, 1]]"
    view.locked.value = (0, 1)
    assert view.locked.label == "3: 0.1"
    view.choices.value = "[[0], [1], [0, 0], [0, 1]]"
    assert view.locked.label == "4: 0.1" and view.locked.value == (0, 1)
    assert view.table == with_lock(view, 4)
    view.choices.value = "[[0], [1], [2], [0, 0]]"
    assert view.locked.label == "no node" and view.table == with_lock(view, None)
    view.locked.value = ()
    assert view.table == with_lock(view, 0)


def with_lock(view, node):
    """The tables of what is shown, with a row locked by its number."""
    shown = {"this tree": view.tree, f"fastest, {FOUND.fastest} nodes": FOUND.best(FOUND.fastest)}
    return html_comparison(FOUND, shown) + html_buffers(FOUND, view.tree, node)


def test_the_yaml_beside_the_tree_can_be_loaded(tmp_path):
    view = explorer()
    view.choices.value = "[[0], [1], [0, 1]]"
    text = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", view.yaml.value, re.DOTALL)[1])
    file = tmp_path / "explored.yaml"
    file.write_text(text)
    assert tree_files.load(file).choices == view.tree.choices == Tree.from_paths([(0,), (1,), (0, 1)]).choices


def test_nothing_to_explore_is_refused():
    with pytest.raises(ProspectsError, match="nothing measured to explore"):
        explore_trees({})


def test_explorer_shows_figure_tables_and_one_line_without_a_front_end(shell):
    view = explorer()
    with capture_output() as captured:
        view._ipython_display_()  # what a notebook calls for the last value of a cell
    controls, figure, line, tables = captured.outputs
    assert line.data["text/plain"] == view.summary and captured.stdout == ""
    assert "application/vnd.jupyter.widget-view+json" in controls.data
    assert figure.data[PLOTLY]["layout"]["title"]["text"] == view.figure.layout.title.text
    assert tables.data["text/html"] == view.table


def test_a_change_replaces_figure_and_tables_in_place(shell):
    view = explorer()
    with capture_output() as captured:
        view.show()
    _, figure, line, tables = (output.transient.get("display_id") for output in captured.outputs)
    with capture_output() as captured:
        view.nodes.value = 4
        answer()
    assert [output.transient["display_id"] for output in captured.outputs] == [line, tables, figure]
    assert all(output.update for output in captured.outputs)
    assert captured.outputs[0].data["text/plain"] == view.summary
    assert "4 nodes below the root" in title_in(captured.outputs[2])


def test_the_shipped_result_can_be_explored():
    file = prospects.__file__.rsplit("medusa_core", 1)[0] + "artifacts/results/search_trees.json"
    view = explore_trees({"the study's run": file})
    assert view.message.value == "" and view.nodes.max == 63
