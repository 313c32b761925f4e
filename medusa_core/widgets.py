"""Controls for the figures in plots: they hold no logic of their own, so that a figure needs no front end.

The figure is an ordinary output, in whose place the first change puts a live one. A saved or headless notebook
therefore shows the default figure and one line of text; controls come to life when the cell is run in Jupyter.
"""

from __future__ import annotations

import json

import ipywidgets as ipw
import plotly.graph_objects as go
from IPython.display import display

from medusa_core import tree as trees
from medusa_core.plots.masks import STAGES, fig_mask, fig_unrolled, mask_view, unrolled_rows
from medusa_core.published import ACCURACY
from medusa_core.tree import Tree, TreeError
from medusa_core.widgets_output import Drawing, Line, alert

TYPED = "typed choices"
_ACCURACY = ACCURACY["Vicuna 7B"][:3, :3].tolist()  # of three heads, the three best guesses
PRESETS = {
    "searched, 8 nodes": trees.search(_ACCURACY, 8),
    "chain of 4": trees.chain(4),
    "dense 2 x 3": trees.dense([2, 3]),
    "searched, 16 nodes": trees.search(_ACCURACY, 16),
}
MOST_UNROLLED = 300  # rows; more take seconds to draw
LONGEST_PAST = 16  # more prefix columns than this crowd out the tree
NO_ROW = "no row"  # a dropdown takes None for "nothing is selected" and shows a blank
LENGTH = 8  # tokens of the stages that have no tree


class ChoicesError(ValueError):
    """Typed choices that cannot be read as a tree."""


def parse_choices(text: str) -> Tree:
    """Read a typed tree, for example [[0], [1], [0, 0]]. Raises ChoicesError in words for its writer."""
    try:
        paths = json.loads(text)
    except (ValueError, RecursionError) as error:  # the second of lists in lists without end
        place = f" (character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
        raise ChoicesError(
            f"This is not a list of paths{place}. Write for example [[0], [1], [0, 0]]."
        ) from None
    if not isinstance(paths, list):
        raise ChoicesError("Write a list of paths, for example [[0], [1], [0, 0]].")
    try:
        tree = Tree.from_paths(paths)
    except TreeError as error:
        raise ChoicesError(f"This is not a tree yet: {error}.") from None
    if tree.size > 128:
        raise ChoicesError(f"{tree.size} nodes are too many to read; show 128 at most.")
    return tree


def summary_mask(tree: Tree, stage: str = "tree step", past: int = 4, padding: int = 0) -> str:
    """One line about a mask, the same on every machine."""
    view = mask_view(tree, stage, past, LENGTH, padding)
    queries, keys = len(view.rows), len(view.columns)
    line = f"{stage}: {queries} queries x {keys} keys, {view.open_cells} of {queries * keys} cells open"
    if stage != "tree step":
        return line
    rows = len(unrolled_rows(tree))
    return f"{line}; {len(tree.paths)} paths unrolled take {rows} rows, the tree {tree.size}"


class MaskExplorer:
    """Controls and the two figures that they drive; see `explore_mask`.

    mask_figure and unrolled_figure always hold what is shown, summary says it in a line; message says what is
    wrong with the typed tree, or nothing. While it is wrong, the last right one is shown.
    """

    def __init__(self):
        wide = {"style": {"description_width": "90px"}, "layout": ipw.Layout(width="420px")}
        self.preset = ipw.Dropdown(options=[*PRESETS, TYPED], description="Tree", **wide)
        self.typed = ipw.Text(
            value="[[0], [1], [0, 0]]", description="Choices", continuous_update=False, disabled=True, **wide
        )
        self.stage = ipw.Dropdown(options=STAGES, value="tree step", description="Stage", **wide)
        self.past = ipw.IntSlider(value=4, min=0, max=LONGEST_PAST, description="Past", **wide)
        self.padding = ipw.IntSlider(value=3, min=0, max=LENGTH - 1, description="Padding", **wide)
        self.locked = ipw.Dropdown(options=[NO_ROW], description="Lock a row", **wide)
        self.message = ipw.HTML()
        self.controls = ipw.VBox(
            [self.preset, self.typed, self.stage, self.past, self.padding, self.locked, self.message]
        )
        self.mask_figure = self.unrolled_figure = go.Figure()
        self._tree = PRESETS[self.preset.value]  # the last one that was right
        self._unrolled = None  # choices of the tree in unrolled_figure
        self._outputs = {"mask": Drawing(), "unrolled": Drawing()}
        self._line = Line()
        self._updating = False
        self.update()
        for control in (self.preset, self.typed, self.stage, self.past, self.padding, self.locked):
            control.observe(lambda _: self.update(), names="value")

    @property
    def tree(self) -> Tree:
        """The chosen tree. Raises ChoicesError when the typed one is none, or too large to draw unrolled."""
        if self.preset.value != TYPED:
            return PRESETS[self.preset.value]
        tree = parse_choices(self.typed.value)
        if (rows := len(unrolled_rows(tree))) > MOST_UNROLLED:
            raise ChoicesError(f"Unrolled, this tree takes {rows} rows; show {MOST_UNROLLED} at most.")
        return tree

    def update(self) -> None:
        """Draw the chosen state, or say what is wrong with it."""
        if self._updating:
            return
        self.typed.disabled = self.preset.value != TYPED
        self.past.disabled = self.stage.value in ("training", "prefill")
        self.padding.disabled = self.stage.value != "training"
        try:
            tree = self.tree
        except ChoicesError as error:
            tree = self._tree  # the last one that was right, so that other controls go on working
            self.message.value = alert(str(error))
        else:
            self.message.value, self._tree = "", tree
        padding = self.padding.value if self.stage.value == "training" else 0
        state = {"stage": self.stage.value, "past": self.past.value, "padding": padding}
        self.summary = summary_mask(tree, **state)
        self._line.write(self.summary)
        rows = mask_view(tree, **state, length=LENGTH).rows
        self._offer_rows(rows)
        locked = None if self.locked.value == NO_ROW else rows.index(self.locked.value)
        self.mask_figure = fig_mask(tree, **state, length=LENGTH, locked_row=locked)
        self._outputs["mask"].draw(self.mask_figure)
        if tree.choices != self._unrolled:  # the larger figure, which a slider does not change
            self.unrolled_figure, self._unrolled = fig_unrolled(tree), tree.choices
            self._outputs["unrolled"].draw(self.unrolled_figure)

    def show(self) -> None:
        """Display controls, figures and the summary line."""
        display(self.controls)
        for output in self._outputs.values():
            output.show()
        self._line.show()

    _ipython_display_ = show

    def _offer_rows(self, names: list[str]) -> None:
        """Offer the rows of the mask to lock, by name; a locked row that is no longer there is let go."""
        options = [(NO_ROW, NO_ROW), *((f"{row}: {name}", name) for row, name in enumerate(names))]
        if list(self.locked.options) == options:
            return
        kept = self.locked.value if self.locked.value in names else NO_ROW
        self._updating = True  # setting options selects the first one, which is an event like any other
        try:
            self.locked.options = options
            self.locked.value = kept
        finally:
            self._updating = False


def explore_mask() -> MaskExplorer:
    """The mask explorer: who may look at whom in training, prefill, a cached step and a tree step.

    It shows itself as the last value of a notebook cell; anywhere else call its `show`.
    """
    return MaskExplorer()
