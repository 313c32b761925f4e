"""Controls for the simulator: a thin shell over simulate.py and plots/simulate.py, after the pattern of widgets.py."""

from __future__ import annotations

import ipywidgets as ipw
import plotly.graph_objects as go
from IPython.display import display

from medusa_core import published, scenarios
from medusa_core.config import ConfigError
from medusa_core.plots.simulate import fig_scenario
from medusa_core.simulate import (
    MOST_NODES,
    Prediction,
    Scenario,
    SimulationError,
    Sweep,
    predict,
    resident_bytes,
    sweep,
)
from medusa_core.tree import TreeError
from medusa_core.widgets_output import Drawing, Line, alert

OWN = "an own LM head each"
DRAFT_SIZES = (1024, 2048, 4096, 8192, 16_384, 32_000)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS = (0, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)


def summary_scenario(name: str, scenario: Scenario, nodes: int, prediction: Prediction, sizes: Sweep) -> str:
    """One line about a model called `name` in a scenario, the same on every machine."""
    best = sizes.best_nodes
    restricted = scenario.heads.draft_vocab_size
    needed, memory = resident_bytes(scenario, nodes), scenario.machine.memory
    assumed = f" (as accurate as with all tokens, though heads guess {restricted:,})" if restricted else ""
    return (
        f"{name} on {scenario.machine.name}, batch {scenario.batch}, context {scenario.context}, {nodes} nodes: "
        f"plain {1e3 * prediction.plain_seconds:.2f} ms, step {1e3 * prediction.step_seconds:.2f} ms, "
        f"{prediction.tokens_per_step:.2f} tokens/step{assumed}, overhead {prediction.overhead:.2f}, "
        f"speed-up {prediction.speedup:.2f}; best number of nodes: {best}, {sizes.speedup[best]:.2f}; "
        f"memory: {needed / 1e9:.1f} GB of {memory / 1e9:.0f}{', which do not fit' if needed > memory else ''}"
    )


class SimulatorExplorer:
    """Controls and the figure that they drive; see `explore_simulator`.

    figure always holds what is shown and summary says it in a line; message says what cannot be simulated, or
    nothing. While there is a message, figure and summary stay as they were.
    """

    def __init__(self, accuracy: dict[str, object]):
        """accuracy: head accuracies (K, R) of each model of scenarios.MODELS that is offered."""
        if not accuracy:
            raise SimulationError(
                "no model to explore: give head accuracies (K, R) by name of a preset model"
            )
        self._accuracy = {name: (scenarios.model(name), table) for name, table in accuracy.items()}
        wide = {"style": {"description_width": "120px"}, "layout": ipw.Layout(width="460px")}
        self.model = ipw.Dropdown(options=list(accuracy), description="Model", **wide)
        self.machine = ipw.Dropdown(options=list(scenarios.MACHINES), description="Machine", **wide)
        sizes = [(OWN, 0), *((f"{size:,} tokens", size) for size in DRAFT_SIZES)]
        self.draft = ipw.SelectionSlider(options=sizes, value=0, description="Heads guess with", **wide)
        self.batch = ipw.SelectionSlider(options=BATCHES, value=1, description="Batch size", **wide)
        self.context = ipw.SelectionSlider(options=CONTEXTS, value=512, description="Context", **wide)
        self.nodes = ipw.IntSlider(
            value=63, min=0, max=MOST_NODES, description="Nodes", continuous_update=False, **wide
        )
        self.message = ipw.HTML()
        inputs = (self.model, self.machine, self.draft, self.batch, self.context, self.nodes)
        self.controls = ipw.VBox([*inputs, self.message])
        self.figure = go.Figure()
        self.summary = ""
        self._drawing, self._line = Drawing(), Line()
        self.update()
        for control in inputs:
            control.observe(lambda _: self.update(), names="value")

    def update(self) -> None:
        """Draw the chosen scenario, or say what is wrong with it."""
        model, accuracy = self._accuracy[self.model.value]
        nodes = self.nodes.value
        try:
            scenario = Scenario(
                model,
                scenarios.medusa_heads(model, len(accuracy), self.draft.value or None),
                scenarios.machine(self.machine.value),
                batch=self.batch.value,
                context=self.context.value,
            )
            sizes, prediction = sweep(scenario, accuracy), predict(scenario, nodes, accuracy)
        except (ConfigError, SimulationError, TreeError) as error:
            self.message.value = alert(str(error))
            return
        self.message.value = ""
        self.summary = summary_scenario(self.model.value, scenario, nodes, prediction, sizes)
        title = f"{self.model.value} on {scenario.machine.name}, {nodes} nodes: {prediction.speedup:.2f} times as fast"
        self.figure = fig_scenario(sizes, prediction, nodes, title)
        self._drawing.draw(self.figure)
        self._line.write(self.summary)

    def show(self) -> None:
        """Display the controls, the figure and the summary line."""
        display(self.controls)
        self._drawing.show()
        self._line.show()

    _ipython_display_ = show


def explore_simulator(accuracy: dict[str, object] | None = None) -> SimulatorExplorer:
    """The simulator's explorer: model, machine, heads, batch, context and tree size against step time and speed-up.

    accuracy: head accuracies (K, R) by name of a preset model; without it those of the published Vicuna heads. It
    shows itself as the last value of a notebook cell; anywhere else call its `show`.
    """
    return SimulatorExplorer(published.ACCURACY if accuracy is None else accuracy)
