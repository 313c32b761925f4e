"""Controls for trees: a thin shell over prospects.py and plots/tree_explorer.py, after the pattern of widgets.py."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import ipywidgets as ipw
import plotly.graph_objects as go
from IPython.display import display

from medusa_core import prospects as outlooks
from medusa_core import tree as trees
from medusa_core import tree_files
from medusa_core.plots.masks import path_name
from medusa_core.plots.tree_explorer import fig_tree_outlook
from medusa_core.plots.tree_table import html_buffers, html_comparison
from medusa_core.prospects import Measured, Prospects, ProspectsError
from medusa_core.tree import Tree, TreeError
from medusa_core.widgets import ChoicesError, parse_choices
from medusa_core.widgets_output import Drawing, Line, Table, alert

NOTHING, KEPT = "nothing", "the tree that was kept"
NO_NODE = "no node"  # a dropdown takes None for "nothing is selected" and shows a blank
OTHERS = {
    "chain of 4": trees.chain(4),
    "dense 4 x 2": trees.dense([4, 2]),
    "dense 3 x 4 x 4": trees.dense([3, 4, 4]),
}


def summary_tree(source: str, prospects: Prospects, tree: Tree) -> str:
    """One line about a tree, the same wherever the same measurements are read."""
    outlook, best = prospects.judge(tree), prospects.curve[prospects.fastest]
    return (
        f"{source}, {prospects.rule}: {tree.size - 1} nodes below the root, "
        f"{outlook.tokens_per_step:.2f} tokens/step, overhead {outlook.overhead:.2f}, "
        f"speed-up {outlook.speedup:.2f}; best number of nodes: {prospects.fastest}, {best.speedup:.2f}"
    )


def yaml_text(tree: Tree) -> str:
    """A tree as a file that tree_files.load reads, to save under params/ or anywhere."""
    choices = [list(path) for path in tree.choices]
    return tree_files.to_yaml({"name": f"explored-{tree.size}-rows", "choices": choices})


class TreeExplorer:
    """Controls, the figure and the tables that they drive; see `explore_trees`.

    tree, figure, table and summary always hold what is shown; message says what is wrong, or nothing. Wrong input
    leaves them as they were, and measurements at fault leave those before them, which the summary names.
    """

    def __init__(self, sources: Mapping[str, Measured | Path]):
        """sources: measurements by name, as they are or as result files, which are read when they are chosen."""
        if not sources:
            raise ProspectsError("nothing measured to explore: give a result file of chapter 08 by name")
        self._sources, self._kept = dict(sources), None
        self._prospects: Prospects | None = None  # the last that could be read
        self._name = ""  # of its source
        self._fault = ""  # of the chosen source, where it cannot be read
        self.tree = Tree.from_paths([])
        self.figure, self.table = go.Figure(layout={"title": {"text": "No result to show"}}), ""
        self.summary = "no result to show"
        self._drawing, self._line, self._tables = Drawing(), Line(), Table()
        self._own, self._updating = False, False  # whether the tree is typed; whether controls set each other
        self._make_controls()
        self._drawing.draw(self.figure)
        self._line.write(self.summary)
        self._measure()

    def _make_controls(self) -> None:
        wide = {"style": {"description_width": "110px"}, "layout": ipw.Layout(width="520px")}
        self.source = ipw.Dropdown(options=list(self._sources), description="Measured by", **wide)
        rules = [outlooks.COUNTED, outlooks.PRODUCT]
        self.rule = ipw.Dropdown(options=rules, description="Value of a path", **wide)
        self.nodes = ipw.IntSlider(min=0, max=0, description="Node budget", **wide)
        self.choices = ipw.Textarea(description="Choices", continuous_update=False, rows=3, **wide)
        options = [NOTHING, *OTHERS]
        self.other = ipw.Dropdown(options=options, description="Compare with", **wide)
        self.keep = ipw.Button(
            description="Keep to compare", tooltip="compare later trees with the one shown now"
        )
        self.locked = ipw.Dropdown(options=[NO_NODE], description="Lock a node", **wide)
        self.yaml, self.message = ipw.HTML(), ipw.HTML()
        compared = ipw.HBox([self.other, self.keep])
        inputs = [self.source, self.rule, self.nodes, self.choices, compared, self.locked]
        self.controls = ipw.VBox([*inputs, self.message, self.yaml])
        self.source.observe(lambda _: self._on(self._measure), names="value")
        self.rule.observe(lambda _: self._on(self._measure), names="value")
        self.nodes.observe(lambda _: self._on(self._search), names="value")
        self.choices.observe(lambda _: self._on(self._read), names="value")
        for control in (self.other, self.locked):
            control.observe(lambda _: self._on(self._redraw), names="value")
        self.keep.on_click(lambda _: self._on(self._keep))

    def _on(self, action) -> None:
        """Answer a control, unless it was set by another one."""
        if not self._updating:
            action()

    def _measure(self) -> None:
        """Read the chosen measurements and show their fastest tree, or the typed one in their light."""
        source = self._sources[self.source.value]
        try:
            measured = source if isinstance(source, Measured) else outlooks.load(source)
            prospects = Prospects(measured, self.rule.value)
        except ProspectsError as error:
            self._fault = str(error)
            self._say(self._fault)
            return
        self._prospects, self._name, self._fault = prospects, self.source.value, ""
        self._draw(self.tree if self._own else prospects.best(prospects.fastest))

    def _search(self) -> None:
        """Show the best tree of the chosen number of nodes."""
        if self._prospects:
            self._own = False
            self._draw(self._prospects.best(min(self.nodes.value, self._prospects.most)))

    def _read(self) -> None:
        """Show the typed tree, or say what is wrong with it."""
        try:
            tree = parse_choices(self.choices.value)
        except ChoicesError as error:
            self._say(str(error))
            return
        if self._prospects and self._draw(tree):
            self._own = True

    def _keep(self) -> None:
        """Compare what comes with the tree that is shown."""
        self._kept = self.tree
        with self._quietly():
            self.other.options = [NOTHING, KEPT, *OTHERS]
            self.other.value = KEPT
        self._redraw()

    def _redraw(self) -> None:
        if self._prospects:
            self._draw(self.tree)

    def _draw(self, tree: Tree) -> bool:
        """Show a tree, or say why it cannot be judged; whether it is shown."""
        prospects = self._prospects
        named = {NOTHING: None, KEPT: self._kept, **OTHERS}
        other, said = named[self.other.value], self._fault
        try:
            if other is not None:
                prospects.check(other)
        except TreeError as error:
            other, said = None, f"{self.other.value} cannot be compared here: {error}"
        paths = [(), *tree.choices]
        locked = paths.index(self.locked.value) if self.locked.value in paths else None
        shown = {"this tree": tree, f"fastest, {prospects.fastest} nodes": prospects.best(prospects.fastest)}
        if other is not None:
            shown[f"compared: {self.other.value}"] = other
        try:
            figure = fig_tree_outlook(prospects, tree, other, locked)
            tables = html_comparison(prospects, shown) + html_buffers(prospects, tree, locked)
        except TreeError as error:
            self._say(str(error))
            return False
        self.tree, self.figure, self.table = tree, figure, tables
        self.summary = summary_tree(self._name, prospects, tree)
        self._set_controls()
        self._say(said)
        self._drawing.draw(figure)
        self._line.write(self.summary)
        self._tables.write(tables, self.summary)
        return True

    def _set_controls(self) -> None:
        """Let the controls say what is shown."""
        tree = self.tree
        names = [(NO_NODE, NO_NODE), ("0: root", ())]
        names += [(f"{node}: {path_name(path)}", path) for node, path in enumerate(tree.choices, 1)]
        kept = self.locked.value if self.locked.value in [path for _, path in names] else NO_NODE
        with self._quietly():
            self.nodes.max = self._prospects.most
            self.nodes.value = min(tree.size - 1, self.nodes.max)
            self.choices.value = json.dumps([list(path) for path in tree.choices])
            if list(self.locked.options) != names:
                self.locked.options = names
                self.locked.value = kept
        self.yaml.value = (
            "<label>To keep this tree, copy it into a file such as <code>params/tree.yaml</code>, "
            "and name that with <code>--tree</code>:<br>"
            '<textarea readonly rows="3" style="width: 520px; font-family: monospace" aria-label="Tree as YAML">'
            f"{html.escape(yaml_text(tree))}</textarea></label>"
        )

    @contextmanager
    def _quietly(self):
        """Set controls without answering them."""
        before, self._updating = self._updating, True
        try:
            yield
        finally:
            self._updating = before

    def _say(self, text: str) -> None:
        self.message.value = alert(text)

    def show(self) -> None:
        """Display the controls, the figure, the summary line and the tables."""
        display(self.controls)
        self._drawing.show()
        self._line.show()
        self._tables.show()

    _ipython_display_ = show


def explore_trees(sources: Mapping[str, Measured | Path]) -> TreeExplorer:
    """The tree explorer: a node budget or typed choices against tokens/step, step time, speed-up and buffers.

    sources: what was measured, by name: prospects.Measured, or a result file of chapter 08. It shows itself as the last
    value of a notebook cell; anywhere else call its `show`.
    """
    return TreeExplorer(sources)
