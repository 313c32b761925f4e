"""The mask explorer: its controls change the figures, and wrong input gets words instead of a traceback."""

import numpy as np
import pytest
from IPython.utils.capture import capture_output
from live_charts import answer, title_in
from random_trees import random_tree

from medusa_core import masks, widgets
from medusa_core.tree import Tree
from medusa_core.widgets import MaskExplorer, parse_choices, summary_mask

SMALL = "[[0], [1], [0, 0]]"


def cells(figure):
    """Category numbers of the mask's heatmap, 4 being closed."""
    return np.array(figure.data[0].z)


def open_cells(figure):
    return cells(figure) < cells(figure).max()


def test_default_state_is_the_first_preset_at_a_tree_step():
    explorer = MaskExplorer()
    tree = widgets.PRESETS["searched, 8 nodes"]
    assert np.array_equal(open_cells(explorer.mask_figure), masks.tree_mask(tree, past=4))
    assert explorer.message.value == ""


def test_every_preset_and_stage_draws_its_mask():
    explorer = MaskExplorer()
    for name, tree in widgets.PRESETS.items():
        explorer.preset.value = name
        explorer.stage.value = "tree step"
        assert np.array_equal(open_cells(explorer.mask_figure), masks.tree_mask(tree, past=4))
        assert (
            f"of {sum((row >= 0).sum() for row in tree.paths)} rows"
            in explorer.unrolled_figure.layout.title.text
        )
    explorer.stage.value = "prefill"
    assert np.array_equal(open_cells(explorer.mask_figure), masks.causal(8))
    explorer.stage.value = "cached step"
    assert np.array_equal(open_cells(explorer.mask_figure), masks.causal(8, past=4))
    explorer.stage.value = "training"
    assert np.array_equal(open_cells(explorer.mask_figure), masks.padded(np.arange(8)[None] < 5)[0])
    explorer.padding.value = 0
    assert np.array_equal(open_cells(explorer.mask_figure), masks.causal(8))


def test_past_slider_widens_the_mask():
    explorer = MaskExplorer()
    explorer.past.value = 9
    assert cells(explorer.mask_figure).shape == (9, 18)
    explorer.past.value = 0
    assert cells(explorer.mask_figure).shape == (9, 9)


def test_controls_that_have_no_effect_are_disabled():
    explorer = MaskExplorer()
    assert (explorer.typed.disabled, explorer.past.disabled, explorer.padding.disabled) == (True, False, True)
    explorer.stage.value = "training"
    assert (explorer.past.disabled, explorer.padding.disabled) == (True, False)
    explorer.preset.value = widgets.TYPED
    assert not explorer.typed.disabled


def test_locking_a_row_frames_its_open_cells():
    explorer = MaskExplorer()
    explorer.preset.value, explorer.typed.value, explorer.past.value = widgets.TYPED, SMALL, 2
    explorer.locked.value = "0.0"  # sees two tokens, the root, node 0 and itself
    assert framed(explorer.mask_figure) == [0, 1, 2, 3, 5]


def framed(figure):
    """The columns of the cells that a locked row frames."""
    return [shape.x0 + 0.5 for shape in figure.layout.shapes if shape.line.width == 3]


def test_a_locked_row_survives_a_change_that_keeps_it_and_not_one_that_drops_it():
    explorer = MaskExplorer()
    explorer.locked.value = "1"
    explorer.past.value = 7
    assert explorer.locked.value == "1"
    explorer.preset.value = "chain of 4"
    assert explorer.locked.label == "no row"
    names = ["no row", "0: root", "1: 0", "2: 0.0", "3: 0.0.0", "4: 0.0.0.0"]
    assert [label for label, _ in explorer.locked.options] == names


def test_a_lock_stays_with_its_node_where_the_rows_number_is_anothers():
    explorer = MaskExplorer()
    explorer.preset.value, explorer.typed.value, explorer.past.value = widgets.TYPED, SMALL, 2
    explorer.locked.value = "0.0"
    assert explorer.locked.label == "3: 0.0"
    explorer.typed.value = "[[0], [1], [2], [0, 0]]"
    assert explorer.locked.label == "4: 0.0"
    assert framed(explorer.mask_figure) == [0, 1, 2, 3, 6]
    explorer.typed.value = "[[0], [1], [2], [3], [4]]"
    assert explorer.locked.label == "no row" and framed(explorer.mask_figure) == []


def test_a_locked_token_stays_the_same_token_when_the_past_grows():
    explorer = MaskExplorer()
    explorer.stage.value, explorer.past.value = "cached step", 4
    explorer.locked.value = "t6"
    explorer.past.value = 5
    assert explorer.locked.label == "1: t6"
    explorer.past.value = 7
    assert explorer.locked.label == "no row"


def test_typed_choices_draw_their_tree():
    explorer = MaskExplorer()
    explorer.preset.value, explorer.typed.value = widgets.TYPED, "[[0], [0, 0], [0, 1]]"
    expected = masks.tree_mask(Tree.from_paths([(0,), (0, 0), (0, 1)]), past=4)
    assert np.array_equal(open_cells(explorer.mask_figure), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[0], [1, 0]]", "path [1, 0] has no parent: add [1] to the tree"),
        ("[[0], [0]]", "path [0] is given twice"),
        ("[[0], [1.5]]", "rank 1.5 is not a whole number"),
        ("[[0], ", "not a list of paths (character 7)"),
        ("7", "Write a list of paths"),
        ("[0]", "path 0 is not a list of ranks"),
        ('["<img src=x>"]', "&lt;img src=x&gt;"),
        (str([[i] for i in range(128)]), "129 nodes are too many to read"),
        (
            str([[0] * i for i in range(1, 30)] + [[0] * 28 + [i] for i in range(1, 30)]),
            "Unrolled, this tree takes 900 rows",
        ),
        ("[" * 3000, "not a list of paths. Write"),
        ("[[" + "9" * 5000 + "]]", "not a list of paths. Write"),
    ],
)
def test_wrong_choices_give_a_message_and_leave_the_figure(text, message):
    explorer = MaskExplorer()
    explorer.preset.value = widgets.TYPED
    before, summary = cells(explorer.mask_figure), explorer.summary
    explorer.typed.value = text
    assert message in explorer.message.value and "<img" not in explorer.message.value
    assert np.array_equal(cells(explorer.mask_figure), before) and explorer.summary == summary
    explorer.stage.value = "prefill"  # the other controls go on working
    assert (
        np.array_equal(open_cells(explorer.mask_figure), masks.causal(8))
        and message in explorer.message.value
    )
    explorer.stage.value = "tree step"
    assert np.array_equal(cells(explorer.mask_figure), before)
    explorer.typed.value = "[[0]]"
    assert explorer.message.value == ""
    assert cells(explorer.mask_figure).shape == (2, 6)


def test_summary_counts_what_the_masks_hold():
    tree = parse_choices(SMALL)
    assert masks.tree_mask(tree, past=2).sum() == 16
    line = "tree step: 4 queries x 6 keys, 16 of 24 cells open; 2 paths unrolled take 5 rows, the tree 4"
    assert summary_mask(tree, past=2) == line
    assert summary_mask(tree, "prefill") == "prefill: 8 queries x 8 keys, 36 of 64 cells open"
    training = masks.padded(np.arange(8)[None] < 6)[0].sum()
    assert (
        summary_mask(tree, "training", padding=2)
        == f"training: 8 queries x 8 keys, {training} of 64 cells open"
    )


def drawn(output):
    return output.data["application/vnd.plotly.v1+json"]["layout"]["title"]["text"]


def test_explorer_shows_figures_and_one_line_without_a_front_end(shell):
    with capture_output() as captured:
        explorer = widgets.explore_mask()
    assert not captured.outputs
    with capture_output() as captured:
        explorer._ipython_display_()  # what a notebook calls for the last value of a cell
    controls, mask, unrolled, line = captured.outputs
    assert line.data["text/plain"] == summary_mask(widgets.PRESETS["searched, 8 nodes"])
    assert captured.stdout == ""
    assert "application/vnd.jupyter.widget-view+json" in controls.data
    assert drawn(mask) == mask.data["text/plain"] == explorer.mask_figure.layout.title.text
    assert drawn(unrolled) == explorer.unrolled_figure.layout.title.text


def test_a_change_replaces_the_displayed_figures_and_the_line(shell):
    explorer = widgets.explore_mask()
    with capture_output() as captured:
        explorer.show()
    _, mask, unrolled, line = (output.transient.get("display_id") for output in captured.outputs)
    assert len({mask, unrolled, line} - {None}) == 3
    with capture_output() as captured:
        explorer.past.value = 6
        answer()
    words, update = captured.outputs  # the past does not change the unrolled paths
    assert words.update and words.transient["display_id"] == line
    assert words.data["text/plain"] == explorer.summary
    assert "9 queries x 15 keys" in drawn(update) and "9 queries x 15 keys" in explorer.summary
    assert update.update and update.transient["display_id"] == mask
    with capture_output() as captured:
        explorer.preset.value = "chain of 4"
        answer()
    _, update = captured.outputs  # the line; the mask's is a live chart by now
    assert title_in(update) == explorer.unrolled_figure.layout.title.text
    assert update.update and update.transient["display_id"] == unrolled


def test_a_change_draws_only_what_it_changes_and_that_once(monkeypatch):
    explorer, drawings = MaskExplorer(), []
    for name in ("fig_mask", "fig_unrolled"):
        monkeypatch.setattr(widgets, name, counted(getattr(widgets, name), name, drawings))

    def change(control, value):
        drawings.clear()
        control.value = value
        return drawings

    assert change(explorer.preset, widgets.TYPED) == ["fig_mask", "fig_unrolled"]
    choices = random_tree(63, 4, 10, np.random.default_rng(0)).choices
    assert change(explorer.typed, str([list(path) for path in choices])) == ["fig_mask", "fig_unrolled"]
    assert change(explorer.past, 12) == ["fig_mask"]
    assert cells(explorer.mask_figure).shape == (64, 76)
    assert change(explorer.locked, "root") == ["fig_mask"]
    assert change(explorer.stage, "prefill") == ["fig_mask"]  # other rows to lock, which lets the lock go


def counted(draw, name, drawings):
    def drawing(*arguments, **options):
        drawings.append(name)
        return draw(*arguments, **options)

    return drawing
