"""The tree explorer's figures and tables: what they show is what the tree and the measurements hold."""

import re

import numpy as np
import pytest
from test_prospects import MEASURED

from medusa_core import tree
from medusa_core.plots.tree_explorer import fig_budget, fig_tree_outlook
from medusa_core.plots.tree_table import buffer_rows, html_buffers, html_comparison
from medusa_core.prospects import COUNTED, Prospects
from medusa_core.tree import Tree, TreeError

FOUND = Prospects(MEASURED, COUNTED)
SHAPE = Tree.from_paths([(0,), (1,), (0, 0)])


def named(figure, name):
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def drawn_nodes(figure):
    return [trace for trace in figure.data if trace.mode == "markers+text"]


def test_nodes_show_their_rank_at_their_depth_and_grow_with_their_value():
    (nodes,) = drawn_nodes(fig_tree_outlook(FOUND, SHAPE))
    assert nodes.x == (0, 1, 1, 2) and nodes.text == ("", "0", "1", "0")
    assert nodes.marker.size[1] > nodes.marker.size[3] > nodes.marker.size[2]
    assert "accepted in 30.0% of steps" in nodes.hovertext[3] and "0.0" in nodes.hovertext[3]


def test_the_current_point_lies_on_the_curve_of_the_best_trees_or_below():
    figure = fig_tree_outlook(FOUND, FOUND.best(3))
    speed, tokens = named(figure, "best trees: speed-up"), named(figure, "best trees: tokens / step")
    assert named(figure, "this tree").y == (speed.y[3], tokens.y[3])
    worse = named(fig_tree_outlook(FOUND, Tree.from_paths([(0,), (1,), (2,)])), "this tree")
    assert worse.y[0] < speed.y[3] and worse.y[1] < tokens.y[3]


def test_two_trees_are_told_apart_in_one():
    other = Tree.from_paths([(0,), (0, 0), (0, 1)])
    figure = fig_tree_outlook(FOUND, SHAPE, other)
    groups = {trace.name: trace for trace in drawn_nodes(figure)}
    assert {name: len(trace.x) for name, trace in groups.items()} == {
        "in both": 3,
        "this tree only": 1,
        "the other only": 1,
    }
    assert len({trace.marker.symbol for trace in groups.values()}) == 3
    assert named(figure, "the other").y[1] == pytest.approx(1 + 0.5 + 0.3 + 0.1)


def test_a_locked_node_lights_its_path_also_beside_another_tree():
    for other in (None, tree.dense([3])):
        way = named(fig_tree_outlook(FOUND, SHAPE, other, locked=3), "path")
        assert way.x == (0, 1, 2)
    assert named(fig_tree_outlook(FOUND, SHAPE, locked=0), "path").x == (0,)


def test_a_node_that_is_not_there_cannot_be_locked():
    with pytest.raises(ValueError, match="node 4 cannot be locked: this tree has nodes 0 to 3"):
        fig_tree_outlook(FOUND, SHAPE, locked=4)


def test_a_tree_that_was_not_measured_is_not_drawn_on_either_side():
    deep = tree.chain(3)
    with pytest.raises(TreeError, match="3 deep"):
        fig_tree_outlook(FOUND, deep)
    with pytest.raises(TreeError, match="3 deep"):
        fig_tree_outlook(FOUND, SHAPE, deep)


def test_every_budget_of_the_slider_puts_its_own_tree_in_place():
    figure = fig_budget(FOUND, nodes=2)
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "1", "2", "3", "4"] and slider.active == 2
    for budget, step in enumerate(slider.steps):
        data, layout, places = step.args
        expected = fig_tree_outlook(FOUND, FOUND.best(budget))
        changed = [figure.data[place] for place in places]
        node_place = next(i for i, trace in enumerate(changed) if trace.mode == "markers+text")
        (nodes,) = drawn_nodes(expected)
        assert tuple(data["x"][node_place]) == nodes.x and tuple(data["text"][node_place]) == nodes.text
        assert tuple(data["marker.size"][node_place]) == nodes.marker.size
        point = next(i for i, trace in enumerate(changed) if trace.name == "this tree")
        assert tuple(data["y"][point]) == named(expected, "this tree").y
        assert layout["title.text"] == expected.layout.title.text


def test_without_a_budget_the_slider_starts_at_the_fastest_tree():
    assert fig_budget(FOUND).layout.sliders[0].active == FOUND.fastest


def test_figures_hold_no_binary_arrays():
    text = fig_budget(FOUND).to_json() + fig_tree_outlook(FOUND, SHAPE, tree.chain(2), 1).to_json()
    assert "bdata" not in text


def test_buffer_rows_are_the_buffers():
    rows = buffer_rows(FOUND, SHAPE)
    assert [row["token index"] for row in rows] == list(map(str, SHAPE.token_index(3)))
    assert [row["parent"] for row in rows] == ["-1", "0", "0", "1"]
    masks = [[letter == "1" for letter in row["mask row"]] for row in rows]
    assert np.array_equal(masks, SHAPE.mask)
    retrieved = {int(row["retrieve path"].split(":")[0]): row for row in rows if row["retrieve path"]}
    for number, path in enumerate(SHAPE.paths.tolist()):
        assert retrieved[number]["retrieve path"] == f"{number}: {' '.join(map(str, path))}"
        assert int(retrieved[number]["row"]) == max(path)
    assert buffer_rows(FOUND, Tree.from_paths([]))[0]["retrieve path"] == "0: 0"


def test_the_table_marks_the_locked_row_and_those_that_it_sees():
    rows = re.findall(r"<tr><td><b>(.*?)</b></td>", html_buffers(FOUND, SHAPE, locked=3))
    assert rows == ["on its path", "on its path", "", "locked"]
    assert "locked" not in html_buffers(FOUND, SHAPE)


def test_the_comparison_says_what_each_tree_promises_and_escapes_names():
    text = html_comparison(FOUND, {"<b>": SHAPE})
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells == ["&lt;b&gt;", "4", "2", "2", "2.00", "2.10", "0.95"]
