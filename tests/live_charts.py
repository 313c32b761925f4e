"""The page's part in replacing a figure by a live chart, for tests without a page."""

import json

from ipywidgets.widgets.widget import _instances as widgets

from medusa_core.report import WIDGET_VIEW
from medusa_core.widgets_chart import Chart


def answer() -> None:
    """Say what a page says to every new chart: that it is ready to draw it."""
    for widget in list(widgets.values()):
        if isinstance(widget, Chart):
            widget.ready = True


def chart_of(output) -> Chart:
    """The chart that an output shows."""
    return widgets[output.data[WIDGET_VIEW]["model_id"]]


def title_in(output) -> str:
    """The title that an output's chart shows now."""
    return json.loads(chart_of(output).figure)["layout"]["title"]["text"]
