"""Figures hold the numbers they are given: cells, hover texts, bars and curves against the data."""

import json

import numpy as np
import pytest
from random_trees import random_tree

from medusa_core import accept, masks, plots, summary, tree
from medusa_core.plots import palette
from medusa_core.plots.mask_rows import fig_mask_rows
from medusa_core.plots.masks import MOST_LABELLED, mask_view, unrolled_rows
from medusa_core.plots.trees import layout
from medusa_core.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1)])  # rows: root, 0, 1, 0.0, 0.1
LETTER_OF = {"prefix": "P", "ancestor": "A", "self": "S"}


def heatmap(figure, index=0):
    return figure.data[index]


# ------------------------------------------------------------------------------------------------ masks


def test_mask_cells_letters_and_hovers_say_the_reason():
    figure = plots.fig_mask(TREE, past=2)
    cells = heatmap(figure)
    mask = masks.tree_mask(TREE, past=2)
    for query, key in np.ndindex(mask.shape):
        why = masks.reason(query, key, 2, TREE)
        assert cells.text[query][key] == LETTER_OF.get(why, "")
        assert (cells.z[query][key] < 4) == mask[query, key]
        assert cells.hovertext[query][key].startswith(f"{why}, {'open' if mask[query, key] else 'closed'}: ")
    # query 0.0 (row 3): t0, t1, root, 0, 1, 0.0, 0.1
    assert list(cells.text[3]) == ["P", "P", "A", "A", "", "S", ""]
    assert cells.hovertemplate == "%{y}<br>%{x}<br>%{hovertext}<extra></extra>"
    assert (cells.y[3], cells.x[4]) == ("query 0.0 at position 4 (sees 5 keys)", "key 1 at position 3")
    assert cells.hovertext[3][4] == (
        "sibling branch, closed: the key is on another branch, a guess that competes with the query's"
    )


def test_axes_name_keys_and_position_ids():
    figure = plots.fig_mask(TREE, past=2)
    assert figure.layout.xaxis.ticktext == (
        "t0<br>0",
        "t1<br>1",
        "root<br>2",
        "0<br>3",
        "1<br>3",
        "0.0<br>4",
        "0.1<br>4",
    )
    assert figure.layout.yaxis.ticktext == ("root, 2", "0, 3", "1, 3", "0.0, 4", "0.1, 4")
    assert figure.layout.yaxis.autorange == "reversed"


def test_a_split_line_stands_between_prefix_and_tree():
    figure = plots.fig_mask(TREE, past=3)
    (line,) = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert (line.x0, line.x1) == (2.5, 2.5)
    assert [note.text for note in figure.layout.annotations] == ["<b>prefix</b>", "<b>tree</b>"]
    assert not plots.fig_mask(TREE, past=0).layout.shapes
    assert plots.fig_mask(TREE, "cached step", past=3).layout.annotations[1].text == "<b>new tokens</b>"


def test_locked_row_frames_its_path_and_dims_the_others():
    figure = plots.fig_mask(TREE, past=1, locked_row=4)
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect" and shape.line.width == 3]
    assert [(shape.x0, shape.y0) for shape in frames] == [(-0.5, 3.5), (0.5, 3.5), (1.5, 3.5), (4.5, 3.5)]
    veils = [shape for shape in figure.layout.shapes if shape.type == "rect" and shape.line.width == 0]
    assert [(shape.y0, shape.y1) for shape in veils] == [(-0.5, 3.5)]  # row 4 is the last


def test_every_row_can_be_lit_without_a_kernel():
    figure = fig_mask_rows(TREE, past=1, locked_row=2)
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["root", "0", "1", "0.0", "0.1"] and slider.active == 2
    plain = plots.fig_mask(TREE, past=1, locked_row=2).layout.shapes
    assert figure.layout.shapes == plain and len(slider.steps[2].args[0]["shapes"]) == len(plain)
    for row, step in enumerate(slider.steps):
        frames = [shape for shape in step.args[0]["shapes"] if shape["line"]["width"] == 3]
        assert len(frames) == masks.tree_mask(TREE, past=1)[row].sum()


@pytest.mark.parametrize("stage", ["training", "prefill", "cached step"])
def test_stages_without_a_tree_draw_their_mask(stage):
    figure = plots.fig_mask(TREE, stage, past=3, length=6, padding=2 if stage == "training" else 0)
    expected = {
        "training": masks.padded(np.arange(6)[None] < 4)[0],
        "prefill": masks.causal(6),
        "cached step": masks.causal(6, past=3),
    }[stage]
    assert np.array_equal(np.array(heatmap(figure).z) < 4, expected)
    assert f"{expected.sum()} cells open" in figure.layout.title.text


def test_training_hover_names_padding_and_window():
    padded = heatmap(plots.fig_mask(TREE, "training", length=6, padding=2))
    assert padded.hovertext[5][4] == "padding, closed: the key is padding" and "key pad1" in padded.x[4]
    windowed = heatmap(plots.fig_mask(TREE, "prefill", length=6, window=2)).hovertext
    assert "outside window, closed" in windowed[5][0]


def test_large_masks_drop_letters_and_show_each_position_once():
    big = random_tree(63, depth=4, width=10, rng=np.random.default_rng(0))
    figure = plots.fig_mask(big, past=8)
    assert heatmap(figure).text is None and len(heatmap(figure).z[0]) == 72 > MOST_LABELLED
    labels = figure.layout.yaxis.ticktext
    assert len(labels) == len(set(labels)) <= 5


def test_many_unrolled_rows_go_without_names_and_the_smaller_tree_keeps_its_own():
    figure = plots.fig_unrolled(tree.dense([3, 2, 2])).layout  # 12 paths of 4 nodes; 22 nodes
    assert figure.xaxis.showticklabels is figure.yaxis.showticklabels is False
    assert figure.xaxis.ticktext is None and len(figure.xaxis2.ticktext) == len(figure.yaxis2.ticktext) == 22


def test_legend_shows_only_the_kinds_that_occur():
    names = [trace.name for trace in plots.fig_mask(TREE, past=2).data[1:]]
    assert names == ["P prefix", "A ancestor", "S self", "closed"]
    assert [trace.name for trace in plots.fig_mask(TREE, "prefill").data[1:]] == [
        "P prefix",
        "S self",
        "closed",
    ]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"stage": "decode"}, "stage 'decode' is unknown"),
        ({"past": -1}, "past -1 must be at least 0"),
        ({"stage": "training", "padding": 6}, "padding 6 must leave one of 6 tokens"),
        ({"locked_row": 5}, "row 5 cannot be locked: this mask has rows 0 to 4"),
    ],
)
def test_impossible_mask_states_are_refused(state, message):
    with pytest.raises(ValueError, match=message):
        plots.fig_mask(TREE, **state)


def test_unrolled_batch_counts_the_rows_that_the_tree_saves():
    # (path, node, repeated) of root-1, root-0-0.0, root-0-0.1: root comes twice too often and 0 once
    first, second, third = [(0, 0), (0, 2)], [(1, 0), (1, 1), (1, 3)], [(2, 0), (2, 1), (2, 4)]
    repeated = [(1, 0), (2, 0), (2, 1)]
    expected = [(*row, row in repeated) for row in first + second + third]
    assert unrolled_rows(TREE) == expected
    figure = plots.fig_unrolled(TREE)
    assert "saves 3 of 8 rows" in figure.layout.title.text
    unrolled, packed = np.array(heatmap(figure).z), np.array(heatmap(figure, 1).z)
    assert unrolled.shape == (8, 8) and packed.shape == (5, 5)
    assert np.array_equal(packed < 4, TREE.mask)
    assert (unrolled == 3).sum() == 3  # repeated


def test_unrolled_paths_do_not_see_each_other():
    figure = plots.fig_unrolled(TREE)
    paths = np.array([path for path, _, _ in unrolled_rows(TREE)])
    is_open = np.array(heatmap(figure).z) < 4
    assert not is_open[paths[:, None] != paths[None, :]].any()
    for path in range(3):
        own = np.flatnonzero(paths == path)
        assert np.array_equal(is_open[np.ix_(own, own)], masks.causal(len(own)))


def test_view_counts_open_cells_as_the_mask_does():
    assert mask_view(TREE, "tree step", past=3).open_cells == masks.tree_mask(TREE, past=3).sum()


# ------------------------------------------------------------------------------------------------ trees

ACCURACY = [[0.5, 0.2], [0.4, 0.1]]


def test_tree_figure_places_sizes_and_names_every_node():
    figure = plots.fig_tree(TREE, ACCURACY)
    nodes = {x: trace for trace in figure.data if trace.mode == "markers" for x in set(trace.x)}
    assert [len(nodes[depth].x) for depth in (0, 1, 2)] == [1, 2, 2]
    sizes = [size for depth in (0, 1, 2) for size in nodes[depth].marker.size]
    chances = [1, 0.5, 0.2, 0.2, 0.05]  # path products in row order
    assert np.argsort(sizes, kind="stable").tolist() == np.argsort(chances, kind="stable").tolist()
    assert [note.text for note in figure.layout.annotations] == ["root", "0", "1", "0.0", "0.1"]
    assert "accepted in 20.0% of steps" in nodes[2].hovertext[0]
    assert "1.95 expected tokens" in figure.layout.title.text


def test_tree_layout_keeps_leaves_apart_and_parents_between_children():
    for seed in range(5):
        shape = random_tree(30, depth=4, width=4, rng=np.random.default_rng(seed))
        height = layout(shape)
        leaves = [node for node in range(shape.size) if not shape.children[node]]
        assert sorted(height[leaves]) == list(range(len(leaves)))
        for node in range(shape.size):
            if below := [height[child] for child in shape.children[node]]:
                assert min(below) <= height[node] <= max(below)
                assert below == sorted(below)  # siblings stand in rank order


def test_tree_figure_with_a_verdict_shows_outcomes_and_the_bonus():
    verdict = accept.greedy(TREE, [9, 5, 6, 7, 8], [5, 8, 0, 0, 3])
    assert verdict.path == (0, 1, 4)
    figure = plots.fig_tree(TREE, verdict=verdict, texts=["a", " b", "<c>", "d\n", "e", "f"])
    groups = {trace.name: trace for trace in figure.data if trace.name}
    assert list(groups) == ["root", "accepted", "rejected", "bonus"]
    assert list(groups["accepted"].x) == [1, 2] and list(groups["rejected"].x) == [1, 2]
    assert groups["accepted"].marker.color == palette.COLOURS["accepted"]
    assert groups["rejected"].marker.symbol == "x" and "probability 0.0000" in groups["rejected"].hovertext[0]
    shown = [note.text for note in figure.layout.annotations]
    assert shown == ["a", "\N{OPEN BOX}b", "&lt;c&gt;", "d\\n", "e", "f"]
    won = [trace for trace in figure.data if trace.mode == "lines" and trace.line.width == 5]
    assert list(won[0].x) == [0, 1, None, 1, 2, None]


def test_expected_tokens_curve_holds_the_searched_trees():
    figure = plots.fig_expected_tokens({"small": ACCURACY}, sizes=[1, 2, 3])
    # largest products: .5, .2 (twice), ...
    assert list(figure.data[0].y) == pytest.approx([1.5, 1.7, 1.9])
    assert list(figure.data[0].x) == [1, 2, 3]


def test_the_line_of_one_head_ends_with_its_last_rank():
    figure = plots.fig_expected_tokens({"one": [[0.5, 0.2]], "small": ACCURACY}, sizes=[1, 2, 3])
    assert [list(line.x) for line in figure.data] == [[1, 2], [1, 2, 3]]


# --------------------------------------------------------------------------------------------- training


def entry(step, *loss):
    shares = [1 / (step * (k + 2)) for k in range(len(loss))]
    return {"step": step, "head_loss": list(loss), "top1": shares, "top5": [2 * share for share in shares]}


HISTORY = {"train": [entry(10, 4.0, 5.0), entry(20, 3.0, 4.5)], "held_out": [entry(20, 3.25, 4.75)]}


def test_loss_curves_hold_the_history_of_each_head():
    figure = plots.fig_losses(HISTORY)
    lines = {trace.name: trace for trace in figure.data if trace.mode == "lines"}
    points = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(lines["head 1"].y) == [4.0, 3.0] and list(lines["head 2"].y) == [5.0, 4.5]
    assert list(lines["head 1"].x) == [10, 20] and list(points["head 2"].y) == [4.75]
    assert lines["head 1"].line.dash != lines["head 2"].line.dash
    assert points["head 1"].marker.symbol != points["head 2"].marker.symbol


def test_accuracy_curves_stand_side_by_side_with_one_legend():
    figure = plots.fig_accuracy(HISTORY)
    assert len(figure.data) == 8 and sum(bool(trace.showlegend) for trace in figure.data) == 2
    top5 = [trace for trace in figure.data if trace.xaxis == "x2" and trace.mode == "lines"]
    assert list(top5[0].y) == [0.1, 0.05] and list(top5[1].y) == pytest.approx([0.067, 0.033])


def test_an_untouched_history_gives_an_empty_figure():
    assert len(plots.fig_losses({"train": [], "held_out": []}).data) == 0


def test_head_accuracy_adds_up_the_first_five_ranks():
    table = [[0.5, 0.1, 0.1, 0.05, 0.05, 0.2], [0.25, 0.1, 0.0, 0.0, 0.0, 0.5]]
    top1, top5 = plots.fig_head_accuracy({"ours": table}).data
    assert list(top1.y) == [0.5, 0.25] and list(top5.y) == pytest.approx([0.8, 0.35])
    assert top1.name == "ours, top-1" and top1.marker.pattern.shape != top5.marker.pattern.shape
    assert top5.text == ("80%", "35%")


# ------------------------------------------------------------------------------------------------ bench


def sample(category, tokens, histogram, seconds, draft):
    steps = sum(histogram.values())
    times = {"prefill": 0.5, "verify": 0.01 * steps, "accept": 0.001 * steps, "commit": 0.0, "draft": draft}
    repeat = {"tokens": tokens, "steps": steps, "seconds": seconds, "prefill": 0.5}
    return {
        "category": category,
        "tokens": tokens,
        "token_ids": list(range(tokens)),
        "steps": steps,
        "seconds": seconds,
        "times": times,
        "tokens_per_step_histogram": {str(key): count for key, count in histogram.items()},
        "repeats": [repeat],
    }


def bench_result():
    plain = [sample("math", 12, {1: 12}, 0.98, 0.0), sample("<b>code", 12, {1: 12}, 0.98, 0.0)]
    drafted = [
        sample("math", 12, {1: 2, 2: 2, 3: 2}, 0.74, 0.06),
        sample("<b>code", 12, {3: 4}, 0.62, 0.04),
    ]
    runs = [
        {"name": summary.PLAIN, "acceptance": "greedy", "temperature": 0.0, "samples": plain},
        {"name": "medusa1", "acceptance": "greedy", "temperature": 0.0, "samples": drafted},
    ]
    return {"runs": runs, "summary": summary.summarise(runs), "categories": summary.by_category(runs)}


def test_histogram_shares_the_steps_of_drafted_runs():
    (bars,) = plots.fig_tokens_per_step(bench_result()).data
    assert list(bars.x) == [1, 2, 3] and list(bars.y) == [0.2, 0.2, 0.6]  # 2, 2 and 6 of 10 steps
    assert list(bars.customdata) == [2, 2, 6]
    assert bars.name == "medusa1, greedy: 2.40 tokens/step"


def test_step_time_stacks_to_the_measured_step_without_prefill():
    figure = plots.fig_step_time(bench_result())
    bars = {trace.name: trace for trace in figure.data}
    assert list(bars) == ["verify", "accept", "commit", "draft", "rest"]
    assert list(bars["verify"].y) == ["medusa1, greedy", "plain, greedy"]
    # medusa1: 10 steps in (0.74 + 0.62 - 2 * 0.5) s = 36 ms each, of which draft (0.06 + 0.04) s = 10 ms each
    assert list(bars["draft"].x) == [10.0, 0.0]
    assert [bars[name].x[0] for name in bars] == pytest.approx([10, 1, 0, 10, 15])
    totals = [sum(bars[name].x[row] for name in bars) for row in (0, 1)]
    assert totals == pytest.approx([36.0, 40.0])
    assert [note.text for note in figure.layout.annotations] == ["36.0 ms", "40.0 ms"]


def test_speedup_bars_are_the_rows_of_the_result():
    result = bench_result()
    figure = plots.fig_speedup(result)
    (bars,) = figure.data
    assert bars.x == ("<b>all</b>", "math", "&lt;b&gt;code")
    assert list(bars.y) == pytest.approx([1.96 / 1.36, 0.98 / 0.74, 0.98 / 0.62], abs=1e-3)
    assert bars.name == "medusa1, greedy: 1.44x"
    assert figure.layout.shapes[0].y0 == 1


def test_a_figure_of_many_runs_grows_by_their_lines_in_the_legend_and_drops_the_numbers():
    few, many = bench_result(), bench_result()
    drafted = [run for run in many["runs"] if run["name"] != "plain"][0]
    row = [row for row in many["summary"] if row["name"] != "plain"][0]
    many["runs"] += [{**drafted, "name": f"other {n}"} for n in range(5)]
    many["summary"] += [{**row, "name": f"other {n}"} for n in range(5)]
    for draw in (plots.fig_speedup, plots.fig_tokens_per_step):
        assert draw(many).layout.height > draw(few).layout.height
        assert draw(few).data[0].text and draw(many).data[0].text is None


def test_colour_says_who_guesses_and_pattern_how_where_both_differ():
    result = bench_result()
    row = [row for row in result["summary"] if row["name"] != "plain"][0]
    result["summary"] = [
        {**row, "name": name, "acceptance": acceptance}
        for acceptance in ("greedy", "exact")
        for name in ("a", "b", "c")
    ]
    marks = [bars.marker for bars in plots.fig_speedup(result).data]
    assert [mark.color for mark in marks[:3]] == [mark.color for mark in marks[3:]]
    assert len({mark.color for mark in marks}) == 3
    assert [mark.pattern.shape for mark in marks] == [*palette.PATTERNS[:1] * 3, *palette.PATTERNS[1:2] * 3]
    exact = plots.fig_speedup(summary.of_acceptance(result, "exact")).data
    assert len(exact) == 3 and len({bars.marker.pattern.shape for bars in exact}) == 3


def test_a_result_without_drafted_runs_draws_no_bars():
    result = bench_result()
    plain = {key: [row for row in result[key] if row["name"] == summary.PLAIN] for key in result}
    assert len(plots.fig_speedup(plain).data) == len(plots.fig_tokens_per_step(plain).data) == 0


# ----------------------------------------------------------------------------------------------- palette


def test_every_meaning_has_its_own_colour():
    assert len(set(palette.COLOURS.values())) == len(palette.COLOURS)
    assert len(set(palette.ramp(6))) == 6 and len(palette.ramp(1)) == 1


def test_figures_are_json_without_binary_arrays():
    figures = [plots.fig_mask(TREE), plots.fig_unrolled(TREE), plots.fig_tree(TREE, ACCURACY)]
    figures += [plots.fig_losses(HISTORY), plots.fig_speedup(bench_result())]
    for figure in figures:
        text = figure.to_json()
        assert "bdata" not in text and json.loads(text)["data"]
        assert len(text) < 200_000


def test_answers_of_one_token_have_no_steps_to_show():
    result = bench_result()
    for one in result["runs"][1]["samples"]:
        one |= {"tokens": 1, "steps": 1, "tokens_per_step_histogram": {}}
    assert not plots.fig_tokens_per_step(result).data
    assert len(plots.fig_step_time(result).data) == 5
