"""The simulator's explorer: controls change the figure, and it shows itself without a front end."""

import numpy as np
import pytest
from IPython.utils.capture import capture_output
from live_charts import answer, title_in

from medusa_core import published, scenarios
from medusa_core.simulate import Scenario, SimulationError, predict, sweep
from medusa_core.widgets_simulator import SimulatorExplorer, explore_simulator, summary_scenario

PLOTLY = "application/vnd.plotly.v1+json"
DEFAULT = (
    "Vicuna 7B on A100-80GB, batch 1, context 512, 63 nodes: plain 10.72 ms, step 11.92 ms, 2.38 tokens/step, "
    "overhead 1.11, speed-up 2.14; best number of nodes: 160, 2.18; memory: 15.3 GB of 80"
)


def expected(name="Vicuna 7B", machine="A100-80GB", nodes=63, draft=None, **settings):
    """The summary that the simulator itself gives."""
    model, accuracy = scenarios.model(name), published.ACCURACY[name]
    heads = scenarios.medusa_heads(model, 5, draft)
    case = Scenario(model, heads, scenarios.machine(machine), **settings)
    return summary_scenario(name, case, nodes, predict(case, nodes, accuracy), sweep(case, accuracy))


def test_default_state_is_the_first_model_and_machine():
    explorer = explore_simulator()
    assert explorer.summary == expected() == DEFAULT
    assert explorer.message.value == ""
    assert explorer.figure.layout.title.text == "Vicuna 7B on A100-80GB, 63 nodes: 2.14 times as fast"


def test_every_control_changes_the_scenario():
    explorer = explore_simulator()
    explorer.model.value = "Vicuna 13B"
    assert explorer.summary == expected("Vicuna 13B")
    explorer.machine.value = "M2 Ultra"
    assert explorer.summary == expected("Vicuna 13B", "M2 Ultra")
    explorer.draft.value = 8192
    assert explorer.summary == expected("Vicuna 13B", "M2 Ultra", draft=8192)
    assert "tokens/step (as accurate as with all tokens, though heads guess 8,192)" in explorer.summary
    explorer.batch.value, explorer.context.value = 4, 2048
    assert explorer.summary == expected("Vicuna 13B", "M2 Ultra", draft=8192, batch=4, context=2048)
    explorer.nodes.value = 0
    assert explorer.summary == expected("Vicuna 13B", "M2 Ultra", 0, 8192, batch=4, context=2048)


def test_every_model_and_machine_can_be_shown():
    explorer = explore_simulator()
    for model in published.ACCURACY:
        for machine in scenarios.MACHINES:
            explorer.model.value, explorer.machine.value = model, machine
            assert explorer.summary.startswith(f"{model} on {machine}, ") and not explorer.message.value


def test_what_the_memory_does_not_hold_is_told():
    explorer = explore_simulator()
    explorer.machine.value = "RTX 3090"
    assert explorer.summary.endswith("memory: 15.3 GB of 24")
    explorer.model.value = "Vicuna 33B"
    assert explorer.summary.endswith("GB of 24, which do not fit")
    explorer.model.value, explorer.batch.value, explorer.context.value = "Vicuna 7B", 16, 4096
    assert explorer.summary.endswith("GB of 24, which do not fit")


def test_own_accuracies_are_taken_and_set_the_number_of_heads():
    own = np.array([[0.3, 0.1], [0.2, 0.1], [0.1, 0.1], [0.1, 0.05], [0.1, 0.05], [0.1, 0.05], [0.1, 0.1]])
    explorer = explore_simulator({"SmolLM2 135M": own, "Vicuna 7B": published.ACCURACY["Vicuna 7B"]})
    assert list(explorer.model.options) == ["SmolLM2 135M", "Vicuna 7B"]
    assert explorer.summary.startswith("SmolLM2 135M on A100-80GB")


def test_too_few_paths_give_a_message_and_leave_the_figure():
    explorer = SimulatorExplorer({"Vicuna 7B": published.ACCURACY["Vicuna 7B"], "Vicuna 13B": [[0.5, 0.1]]})
    before, figure = explorer.summary, explorer.figure
    explorer.model.value = "Vicuna 13B"
    assert (
        "1 levels of 2 ranks hold 0 to 2" in explorer.message.value
        and 'role="alert"' in explorer.message.value
    )
    assert explorer.summary == before and explorer.figure is figure
    explorer.model.value = "Vicuna 7B"
    assert explorer.message.value == ""


def test_no_or_unknown_models_are_refused():
    with pytest.raises(SimulationError, match="no model to explore"):
        explore_simulator({})
    with pytest.raises(SimulationError, match="no model called 'GPT'"):
        explore_simulator({"GPT": [[0.5]]})


def test_explorer_shows_its_figure_and_one_line_without_a_front_end(shell):
    with capture_output() as captured:
        explorer = explore_simulator()
    assert not captured.outputs
    with capture_output() as captured:
        explorer._ipython_display_()  # what a notebook calls for the last value of a cell
    controls, figure, line = captured.outputs
    assert line.data["text/plain"] == DEFAULT and captured.stdout == ""
    assert "application/vnd.jupyter.widget-view+json" in controls.data
    assert figure.data[PLOTLY]["layout"]["title"]["text"] == figure.data["text/plain"]


def test_a_change_replaces_the_displayed_figure(shell):
    explorer = explore_simulator()
    with capture_output() as captured:
        explorer.show()
    place = captured.outputs[1].transient["display_id"]
    with capture_output() as captured:
        explorer.nodes.value = 7
        answer()
    line, update = captured.outputs
    assert line.update and line.data["text/plain"] == explorer.summary
    assert ", 7 nodes:" in title_in(update)
    assert update.update and update.transient["display_id"] == place
