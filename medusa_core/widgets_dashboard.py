"""Controls for the dashboard: a thin shell over results.py and plots/dashboard_panels.py."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import ipywidgets as ipw
import plotly.graph_objects as go
from IPython.display import display

from medusa_core import results, runtime
from medusa_core.plots.dashboard_panels import FILTERS, NOTHING, PANELS, View, choices, first_view
from medusa_core.tables import as_csv
from medusa_core.widgets_output import Drawing, Line, alert

ALL = "all"


class DashboardExplorer:
    """Controls and the figure that they drive; see `explore_dashboard`.

    figure always holds what is shown and summary says it in a line; message names result files that are missing or
    damaged, or says that a choice is empty, and then figure and summary stay as they were.
    """

    def __init__(self, folder: Path):
        self.results = results.read(folder)
        wide = {"style": {"description_width": "90px"}, "layout": ipw.Layout(width="420px")}
        self.panel = ipw.Dropdown(options=[panel.name for panel in PANELS], description="Figure", **wide)
        first = first_view(self.results)
        self.filters = {}
        for name, values in choices(self.results).items():
            offered = values if name == "source" else [ALL, *values]
            chosen = getattr(first, name) or next(iter(offered), None)
            self.filters[name] = ipw.Dropdown(
                options=offered, value=chosen, description=FILTERS[name], **wide
            )
        self.message, self.links = ipw.HTML(), ipw.HTML()
        inputs = [self.panel, *self.filters.values()]
        self.controls = ipw.VBox([*inputs, self.message, self.links])
        self.figure = go.Figure(layout={"title": {"text": NOTHING}})
        self.summary = NOTHING
        self._drawing, self._line = Drawing(), Line()
        self._drawing.draw(self.figure)
        self._line.write(self.summary)
        self.update()
        for control in inputs:
            control.observe(lambda _: self.update(), names="value")

    def update(self) -> None:
        """Draw the chosen figure, or say why there is none."""
        chosen = {name: None if box.value == ALL else box.value for name, box in self.filters.items()}
        panel = next(panel for panel in PANELS if panel.name == self.panel.value)
        for name, box in self.filters.items():
            box.disabled = name not in panel.uses
        figure = panel.draw(self.results, View(**chosen))
        said = [*self.results.problems, *([] if figure is not None else [f"{panel.name}. {NOTHING}"])]
        self.message.value = "<br>".join(map(alert, said))
        self.links.value = _links(self.results, chosen["source"])
        if figure is None:
            return
        self.figure = figure
        words = ", ".join(f"{FILTERS[name].lower()} {chosen[name] or ALL}" for name in panel.uses)
        self.summary = f"{panel.name}: {words}"
        self._drawing.draw(figure)
        self._line.write(self.summary)

    def show(self) -> None:
        """Display the controls, the figure and the summary line."""
        display(self.controls)
        self._drawing.show()
        self._line.show()

    _ipython_display_ = show


def explore_dashboard(folder: Path = runtime.ARTIFACTS / "results") -> DashboardExplorer:
    """The benchmark dashboard over the result files of `folder`: a figure, and filters for what it shows.

    It shows itself as the last value of a notebook cell; anywhere else call its `show`.
    """
    return DashboardExplorer(folder)


def _links(found: results.Results, source: str | None) -> str:
    """Links that hold the chosen file's summary, since a notebook's server need not see the results' folder."""
    if source is None:
        return ""
    rows = found.benches[source]["summary"]
    offered = {"csv": ("text/csv", as_csv(rows)), "json": ("application/json", json.dumps(rows))}
    links = []
    for kind, (mime, text) in offered.items():
        data = base64.b64encode(text.encode()).decode()
        file = html.escape(f"{Path(source).stem}-summary.{kind}")
        links.append(f'<a download="{file}" href="data:{mime};base64,{data}">{kind.upper()}</a>')
    whole = html.escape(str(found.folder / source))
    return f"Summary of {html.escape(source)} as {' or '.join(links)}; all of it: {whole}"
