"""An output of a cell that controls replace in place: a figure or a table, as a page without controls shows it."""

from __future__ import annotations

import plotly.graph_objects as go
from IPython.display import display


class Output:
    """What is shown now. Nothing is sent to the page before `show`."""

    def __init__(self):
        self._bundle: dict = {"text/plain": ""}
        self._handle = None

    def show(self) -> None:
        """Add the output to the cell that is running."""
        self._handle = display(self._bundle, raw=True, display_id=True)

    def draw(self, figure: go.Figure) -> None:
        """Show a figure."""
        # Shown as it is, a figure would lose the display_id by which it is replaced.
        self._replace({"text/plain": figure.layout.title.text, **figure._repr_mimebundle_()})

    def write(self, markup: str, plain: str) -> None:
        """Show HTML, and `plain` where there is no HTML."""
        self._replace({"text/plain": plain, "text/html": markup})

    def _replace(self, bundle: dict) -> None:
        self._bundle = bundle
        if self._handle is None:
            return
        if "text/html" not in bundle:
            # JupyterLab's plotly renderer draws an output once and ignores what it is replaced with, unless the
            # kind of output changes in between.
            self._handle.update({"text/plain": bundle["text/plain"]}, raw=True)
        self._handle.update(bundle, raw=True)
