"""The dashboard's figures in order, what each answers to, and the choices that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from medusa_core.plots import dashboard as runs
from medusa_core.plots import dashboard_heads as heads
from medusa_core.results import Results, head_of, is_plain, temperature_of

FILTERS = {
    "source": "Result file",
    "head": "Heads",
    "acceptance": "Acceptance",
    "temperature": "Temperature",
    "category": "Category",
}
NOTHING = "Nothing to draw: the result files hold nothing of this choice."


@dataclass(frozen=True)
class View:
    """What is chosen; None stands for all."""

    source: str | None = None
    head: str | None = None
    acceptance: str | None = None
    temperature: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Panel:
    """A figure by name; by: the fields of a view that another figure is drawn for; narrowed: those that narrow it.

    wide: whether a page gives it its whole width.
    """

    name: str
    by: tuple[str, ...]
    narrowed: tuple[str, ...]
    make: Callable[[Results, View], go.Figure | None]
    wide: bool = False

    @property
    def uses(self) -> tuple[str, ...]:
        """The fields of a view that change the figure, in the order of the filters."""
        return tuple(name for name in FILTERS if name in self.by + self.narrowed)

    def draw(self, results: Results, view: View) -> go.Figure | None:
        """The figure, or None where the results hold nothing of this view."""
        if "source" in self.by and view.source not in results.benches:
            return None
        figure = self.make(results, view)
        return figure if figure is not None and figure.data else None


def _bench(draw: Callable, *fields: str, **options) -> Callable[[Results, View], go.Figure | None]:
    return lambda results, view: draw(
        results.benches[view.source], **options, **{name: getattr(view, name) for name in fields}
    )


_RUN = ("source", "category")
_WAY = ("head", "acceptance", "temperature")
_ALL = ("category", *_WAY)
PANELS = (
    Panel("Head accuracy by depth", (), ("head",), lambda r, v: heads.fig_depth_accuracy(r.accuracy, v.head)),
    Panel("Tree sizes", (), ("head",), lambda r, v: heads.fig_tree_sweep(r.sweeps, v.head)),
    Panel("Speed-up by category", _RUN, _WAY, _bench(runs.fig_category_speedup, *_ALL), True),
    Panel("Tokens a step", _RUN, _WAY, _bench(runs.fig_step_tokens, *_ALL), True),
    Panel("Time of a step", _RUN, _WAY, _bench(runs.fig_time, *_ALL, per="step")),
    Panel("Time of a token", _RUN, _WAY, _bench(runs.fig_time, *_ALL, per="token")),
    Panel(
        "Other programs",
        ("category",),
        (),
        lambda r, v: r.peers and runs.fig_peer_speed(r.peers, v.category),
    ),
    Panel("Ours beside the published", ("source",), _WAY, _bench(runs.fig_published, *_WAY)),
)


def choices(results: Results) -> dict[str, list[str]]:
    """What can be chosen for each field of a view, in the order of the files."""
    rows = [row for bench in results.benches.values() for row in bench["summary"]]
    drafted = [row for row in rows if not is_plain(row)]
    categories = [row["category"] for bench in results.benches.values() for row in bench["categories"]]
    return {
        "source": list(results.benches),
        "head": list(dict.fromkeys([*map(head_of, drafted), *results.accuracy, *results.sweeps])),
        "acceptance": list(dict.fromkeys(row["acceptance"] for row in drafted)),
        "temperature": list(dict.fromkeys(map(temperature_of, drafted))),
        "category": list(dict.fromkeys(categories)),
    }


def first_view(results: Results) -> View:
    """What is shown first: the first file, greedy acceptance where there is some, everything else."""
    known = choices(results)
    acceptance = "greedy" if "greedy" in known["acceptance"] else None
    return View(source=next(iter(known["source"]), None), acceptance=acceptance)
