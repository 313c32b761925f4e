"""Outputs of a cell that controls change in place: figure, table, line; a page without controls shows them, too."""

from __future__ import annotations

import html
import re

import plotly.graph_objects as go
from IPython.display import display

from medusa_core.report import WIDGET_VIEW
from medusa_core.widgets_chart import Chart


def alert(text: str) -> str:
    """What is wrong, for an HTML control that screen readers announce; nothing for no text."""
    return f'<b role="alert">{html.escape(text)}</b>' if text else ""


class Drawing:
    """A figure. Nothing is sent to the page before `show`.

    Its output is of plotly's kind, which headless and saved notebooks keep, until the figure changes on a page: a live
    chart, which answers sooner, then takes its place as soon as it can fill it.
    """

    def __init__(self):
        self._figure = go.Figure()
        self._handle = self._chart = None

    def show(self) -> None:
        """Add the output to the cell that is running."""
        self._handle, self._chart = display(_bundle(self._figure), raw=True, display_id=True), None

    def draw(self, figure: go.Figure) -> None:
        """Show a figure."""
        self._figure = figure
        if self._chart is not None:
            self._chart.draw(figure)
        elif self._handle is not None:
            self._chart = Chart(figure)
            self._chart.observe(lambda _: self._replace(), names="ready")

    def _replace(self) -> None:
        view = {"version_major": 2, "version_minor": 0, "model_id": self._chart.model_id}
        self._handle.update({**_bundle(self._figure), WIDGET_VIEW: view}, raw=True)


class Table:
    """HTML. Nothing is sent to the page before `show`."""

    def __init__(self):
        self._bundle: dict = {"text/plain": ""}
        self._handle = None

    def show(self) -> None:
        """Add the output to the cell that is running."""
        self._handle = display(self._bundle, raw=True, display_id=True)

    def write(self, markup: str, plain: str) -> None:
        """Show HTML, and `plain` where there is no HTML."""
        self._bundle = {"text/plain": plain, "text/html": markup}
        if self._handle is not None:
            self._handle.update(self._bundle, raw=True)


class Line:
    """A line of text."""

    def __init__(self):
        self._output = Table()

    def show(self) -> None:
        """Add the output to the cell that is running."""
        self._output.show()

    def write(self, text: str) -> None:
        """Show a text."""
        self._output.write(f"<p>{html.escape(text)}</p>", text)


def _bundle(figure: go.Figure) -> dict:
    """A figure as data to display: shown as it is, it would lose the display_id by which it is replaced."""
    title = re.sub("<.*?>", " ", figure.layout.title.text or "")
    return {"text/plain": html.unescape(title).strip(), **figure._repr_mimebundle_()}
