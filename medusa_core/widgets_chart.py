"""A live figure: drawn once for each change, where JupyterLab draws an output of plotly's kind up to four times."""

from __future__ import annotations

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

from medusa_core.report import PAGES


class Chart(anywidget.AnyWidget):
    """Shows a figure by pages/chart.js, which says when it is ready to, and asks for plotly.js where there is none."""

    _esm = PAGES / "chart.js"
    figure = traitlets.Unicode().tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)

    def __init__(self, figure: go.Figure):
        super().__init__(figure=figure.to_json())
        # Not a part of the widget's state: five megabytes, for each chart, in every notebook that keeps states.
        self.on_msg(lambda *_: self.send({}, [get_plotlyjs().encode()]))

    def draw(self, figure: go.Figure) -> None:
        """Show another figure."""
        self.figure = figure.to_json()
