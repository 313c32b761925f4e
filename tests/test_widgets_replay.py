"""The replay explorer: controls move and decide again without a model, and broken traces get words."""

import json
import subprocess
import sys

import pytest
from IPython.utils.capture import capture_output
from live_charts import answer, title_in
from replay_traces import by_hand, recorded, recorder

from medusa_core import replay
from medusa_core.plots.replay import fig_moment
from medusa_core.replay import ReplayError
from medusa_core.trace import Trace
from medusa_core.widgets_replay import ReplayExplorer, explore_replay, shipped

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def traces(tmp_path):
    """Two good traces, one of them a file, and files that are broken in several ways."""
    good = recorded("typical")
    good.save(tmp_path / "file.json")
    (tmp_path / "cut.json").write_text(good.to_json()[:500])
    raw = json.loads(good.to_json())
    raw["steps"][1]["parents"] = [-1, 9]
    (tmp_path / "wrong.json").write_text(json.dumps(raw))
    (tmp_path / "evil.json").write_text('{"version": 3, "<img src=x>": 1}')
    (tmp_path / "empty.json").write_text(json.dumps({**raw, "steps": []}))
    names = ("file", "cut", "wrong", "evil", "empty", "absent")
    return {"greedy": recorded(), **{name: tmp_path / f"{name}.json" for name in names}, "by hand": by_hand()}


def test_default_state_is_the_first_step_of_the_first_trace_as_recorded(traces):
    explorer = ReplayExplorer(traces)
    assert explorer.figure == fig_moment(traces["greedy"], 0)
    assert explorer.summary == replay.summary("greedy", traces["greedy"])
    assert explorer.message.value == ""
    assert explorer.step.max == explorer.play.max == len(traces["greedy"].steps) - 1


def test_the_step_slider_moves_the_figure(traces):
    explorer = ReplayExplorer(traces)
    explorer.step.value = 4
    assert explorer.figure == fig_moment(traces["greedy"], 4)


def test_traces_are_offered_by_who_guessed():
    names = ["gru-greedy-math-31", "medusa1-greedy-math-31", "medusa1-typical-math-31", "of my own"]
    explorer = ReplayExplorer({name: recorded() for name in names})
    assert explorer.heads.options == ("anyone", "gru", "medusa1", "of my own")
    explorer.heads.value = "medusa1"
    assert explorer.trace.options == tuple(names[1:3]) and explorer.summary.startswith(names[1])
    explorer.trace.value = names[2]
    assert explorer.summary.startswith(names[2])
    explorer.heads.value = "anyone"
    assert explorer.trace.options == tuple(names)


def test_criterion_and_sliders_decide_again(traces):
    explorer = ReplayExplorer(traces)
    assert explorer.epsilon.disabled and explorer.delta.disabled
    explorer.criterion.value, explorer.step.value = "typical", 3
    assert not explorer.epsilon.disabled and not explorer.delta.disabled
    explorer.epsilon.value, explorer.delta.value = 0.01, 0.8
    assert explorer.figure == fig_moment(traces["greedy"], 3, "typical", 0.01, 0.8)
    assert explorer.summary == replay.summary("greedy", traces["greedy"], "typical", 0.01, 0.8)
    explorer.criterion.value = "greedy"
    assert explorer.summary.endswith("0 decide otherwise than recorded")
    assert explorer.epsilon.disabled


def test_next_rejection_goes_round():
    name, path = next(iter(shipped().items()))
    explorer = ReplayExplorer({name: path})
    alone = replay.rejections(replay.decide_all(Trace.load(path)))
    assert len(alone) > 1
    visited = []
    for _ in range(len(alone) + 1):
        explorer.rejection.click()
        visited.append(explorer.step.value)
    assert visited == [*alone, alone[0]]


def test_next_rejection_says_so_when_it_is_the_only_one():
    name, path = next(
        (name, path)
        for name, path in shipped().items()
        if len(replay.rejections(replay.decide_all(Trace.load(path)))) == 1
    )
    explorer = ReplayExplorer({name: path})
    explorer.rejection.click()
    assert explorer.message.value == ""
    explorer.rejection.click()
    assert "This is the only step of this trace that takes none of its guesses." in explorer.message.value


@pytest.mark.parametrize(
    ("error", "message"),
    [(KeyboardInterrupt(), "was interrupted; nothing was kept"), (OSError("no space left"), "no space left")],
)
def test_a_recording_that_stops_says_so(traces, error, message):
    class Stops:
        def record(self, *_):
            raise error

    explorer = ReplayExplorer(traces, Stops())
    explorer.record.click()
    assert message in explorer.message.value and not explorer.record.disabled


def test_next_change_says_so_when_there_is_none(traces):
    explorer = ReplayExplorer(traces)
    explorer.change.click()
    assert explorer.step.value == 0
    assert explorer.message.value.endswith("No step of this trace is decided otherwise than recorded.</b>")
    explorer.criterion.value, explorer.epsilon.value = "typical", 0.0
    assert explorer.message.value == ""
    explorer.change.click()
    assert explorer.step.value in replay.changed(
        traces["greedy"], replay.decide_all(traces["greedy"], "typical", 0.0)
    )


def test_another_trace_starts_at_its_first_step(traces):
    explorer = ReplayExplorer(traces)
    explorer.step.value = explorer.step.max
    explorer.trace.value = "by hand"
    assert (explorer.step.value, explorer.step.max, explorer.play.value, explorer.play.max) == (0, 2, 0, 2)
    explorer.trace.value = "file"
    assert explorer.summary.startswith("file: 30 tokens")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut", "not JSON at line 1"),
        ("wrong", "key steps[1].parents: node 1 has parent 9"),
        ("evil", "key prompt_ids is missing"),
        ("empty", "the trace has no steps"),
        ("absent", "No such file"),
    ],
)
def test_a_broken_trace_gets_words_and_leaves_the_figure(traces, name, message):
    explorer = ReplayExplorer(traces)
    before = (explorer.figure, explorer.summary)
    explorer.trace.value = name
    assert message in explorer.message.value
    assert (explorer.figure, explorer.summary) == before
    explorer.step.value = 1
    assert message in explorer.message.value and explorer.summary.startswith("greedy: "), (
        "the one before, by name"
    )
    explorer.trace.value = "file"
    assert explorer.message.value == "" and explorer.summary.startswith("file")


def test_a_broken_first_trace_shows_words_too(traces, shell):
    explorer = ReplayExplorer({"cut": traces["cut"], "file": traces["file"]})
    with capture_output() as captured:
        explorer.show()
    assert "not JSON" in captured.outputs[1].data["text/plain"]
    for button in (explorer.rejection, explorer.change):
        button.click()
    explorer.criterion.value = "greedy"
    assert explorer.figure.layout.title.text == "No trace to show"
    explorer.trace.value = "file"
    assert explorer.message.value == "" and explorer.summary.startswith("file")


def test_messages_are_escaped(traces):
    raw = json.loads(traces["greedy"].to_json())
    raw["<img src=x>"] = 1
    traces["evil"].write_text(json.dumps(raw))
    explorer = ReplayExplorer(traces)
    explorer.trace.value = "evil"
    assert "&lt;img src=x&gt; is unknown" in explorer.message.value and "<img" not in explorer.message.value


def test_a_trace_without_readings_is_shown_but_not_decided_again(traces):
    explorer = ReplayExplorer({"by hand": traces["by hand"]})
    explorer.criterion.value = "typical"
    for button in (explorer.rejection, explorer.change):
        explorer.message.value = ""
        button.click()
        assert "no readings of the base model" in explorer.message.value
    assert explorer.figure == fig_moment(traces["by hand"], 0)
    explorer.criterion.value = "as recorded"
    assert explorer.message.value == ""


def test_a_typed_prompt_is_recorded_and_shown(traces):
    explorer = ReplayExplorer(traces, recorder())
    explorer.prompt.value, explorer.acceptance.value = "Why?", "typical"
    explorer.record.click()
    assert explorer.trace.value == "your prompt 1, typical"
    assert explorer.summary.startswith("your prompt 1, typical: 48 tokens in ")
    assert explorer.figure.layout.title.text.startswith("Why?<br><sup>recorded: fake, typical, T = 0.7")
    explorer.prompt.value = " "
    explorer.record.click()
    assert "the question is empty" in explorer.message.value and not explorer.record.disabled
    explorer.prompt.value, explorer.acceptance.value = "Why not?", "greedy"
    explorer.record.click()
    assert explorer.trace.value == "your prompt 2, greedy" and explorer.message.value == ""
    explorer.trace.value = "greedy"
    assert explorer.summary.startswith("greedy: ")


def test_without_a_model_there_is_no_prompt(traces):
    assert explore_replay(traces).prompt not in explorer_widgets(explore_replay(traces).controls)
    own = explore_replay(traces, recorder())
    assert own.prompt in explorer_widgets(own.controls)


def explorer_widgets(box):
    for child in getattr(box, "children", ()):
        yield child
        yield from explorer_widgets(child)


def test_no_output_widget_is_used():
    # It waits for a front end under papermill.
    code = (
        "import ipywidgets, medusa_core.widgets_replay as w; from replay_traces import by_hand; "
        "w.ReplayExplorer({'a': by_hand()}); "
        "kinds = {type(each).__name__ for each in ipywidgets.widget.widgets.values()}; "
        "assert 'Play' in kinds and 'Output' not in kinds, kinds"
    )
    code = code.replace("ipywidgets.widget.widgets", "ipywidgets.widgets.widget._instances")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rsplit("/", 1)[0])


def test_explorer_shows_the_figure_and_one_line_without_a_front_end(traces, shell):
    with capture_output() as captured:
        explorer = explore_replay(traces)
    assert not captured.outputs
    with capture_output() as captured:
        explorer._ipython_display_()
    controls, line, figure = captured.outputs
    assert line.data["text/plain"] == replay.summary("greedy", traces["greedy"]) and captured.stdout == ""
    assert "application/vnd.jupyter.widget-view+json" in controls.data
    assert figure.data[PLOTLY]["layout"]["title"]["text"] == explorer.figure.layout.title.text
    assert "<" not in figure.data["text/plain"].replace("<b>2</b>", "")


def test_a_change_replaces_the_displayed_figure(traces, shell):
    explorer = explore_replay(traces)
    with capture_output() as captured:
        explorer.show()
    shown = [output.transient["display_id"] for output in captured.outputs[1:]]
    with capture_output() as captured:
        explorer.criterion.value = "greedy"
        answer()
    line, figure = captured.outputs
    assert line.data["text/plain"] == explorer.summary
    assert title_in(figure) == explorer.figure.layout.title.text
    assert line.update and figure.update
    assert [output.transient["display_id"] for output in captured.outputs] == shown


def test_no_traces_at_all_is_an_error_that_says_how_to_make_some():
    with pytest.raises(ReplayError, match=r"python -m medusa_core\.record"):
        explore_replay({})


def test_files_are_named_in_the_order_of_their_numbers(tmp_path):
    for name in ("b-10", "b-9", "a-2"):
        (tmp_path / f"{name}.json").write_text("")
    assert list(shipped(tmp_path)) == ["a-2", "b-9", "b-10"]
    assert len(shipped()) >= 32
