"""Controls for the replay: a thin shell over replay.py and plots/replay.py, after the pattern of widgets.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as ipw
import plotly.graph_objects as go
from IPython.display import display

from medusa_core import replay, runtime
from medusa_core.accept import Verdict
from medusa_core.answers import Settings
from medusa_core.plots.replay import PLAY_MS, fig_moment
from medusa_core.replay import CRITERIA, ReplayError
from medusa_core.trace import Trace
from medusa_core.widgets_output import Drawing, Line, alert

OWN = "your prompt"
TYPED = "Why is the sky blue?"
NOTHING = "No trace to show"
ANYONE = "anyone"


class ReplayExplorer:
    """Controls and the figure that they drive; see `explore_replay`.

    figure always holds what is shown and summary says it in a line; message says what is wrong, or nothing. Where a
    trace or a criterion is at fault, figure and summary stay as they were.
    """

    def __init__(self, traces: Mapping[str, Trace | Path], recorder=None):
        """traces: by name, as they are or as files, which are read when they are chosen. recorder: record.Recorder."""
        if not traces:
            raise ReplayError(
                "no traces to replay: `python -m medusa_core.record --help` says how to make some"
            )
        self._traces, self._recorder, self._own = dict(traces), recorder, 0
        self._shown: Trace | None = None
        self._name = ""  # of the shown trace
        self._fault = ""  # of the chosen one, where it cannot be shown
        self.figure, self.summary = go.Figure(layout={"title": {"text": NOTHING}}), ""
        self._drawing, self._line, self._updating = Drawing(), Line(), False
        self._drawing.draw(self.figure)
        self._make_controls()
        self._choose()

    def _make_controls(self) -> None:
        wide = {"style": {"description_width": "90px"}, "layout": ipw.Layout(width="420px")}
        late = {"continuous_update": False, "readout_format": ".2f"}
        kinds = dict.fromkeys(map(heads_of, self._traces))
        self.heads = ipw.Dropdown(options=[ANYONE, *kinds], description="Guessed by", **wide)
        self.trace = ipw.Dropdown(options=list(self._traces), description="Trace", **wide)
        self.play = ipw.Play(min=0, max=0, interval=PLAY_MS)
        self.step = ipw.IntSlider(min=0, max=0, description="Step", **wide)
        ipw.jslink((self.play, "value"), (self.step, "value"))
        self.rejection = ipw.Button(
            description="Next rejection", tooltip="next step that takes none of its guesses"
        )
        self.change = ipw.Button(description="Next change", tooltip="next step that is now decided otherwise")
        self.criterion = ipw.Dropdown(options=CRITERIA, description="Criterion", **wide)
        self.epsilon = ipw.FloatSlider(
            value=replay.EPSILON, min=0, max=1, step=0.01, description="epsilon", **late, **wide
        )
        self.delta = ipw.FloatSlider(
            value=replay.DELTA, min=0, max=1, step=0.05, description="delta", **late, **wide
        )
        self.message = ipw.HTML()
        self.prompt = ipw.Textarea(value=TYPED, description="Prompt", rows=2, **wide)
        self.acceptance = ipw.Dropdown(options=["greedy", "typical"], description="Record with", **wide)
        self.record = ipw.Button(
            description="Record", tooltip="answer the prompt with the model and replay it"
        )
        moves = [self.play, self.step, self.rejection, self.change]
        recording = [self.prompt, self.acceptance, self.record]
        for control in (*moves, *recording):
            control.layout.flex = "0 0 auto"  # on a narrow page they go to the next line instead of shrinking
        row = {"layout": ipw.Layout(flex_flow="row wrap")}
        rows = [
            self.heads,
            self.trace,
            ipw.HBox(moves, **row),
            self.criterion,
            self.epsilon,
            self.delta,
            *([ipw.HBox(recording, **row)] if self._recorder else []),
            self.message,
        ]
        self.controls = ipw.VBox(rows)
        self.heads.observe(lambda _: self._offer(), names="value")
        self.trace.observe(lambda _: self._choose(), names="value")
        for control in (self.step, self.criterion, self.epsilon, self.delta):
            control.observe(lambda _: self.update(), names="value")
        self.rejection.on_click(lambda _: self._jump(replay.rejections, "takes none of its guesses"))
        self.change.on_click(lambda _: self._jump(self._changed, "is decided otherwise than recorded"))
        self.record.on_click(lambda _: self._record())

    def _offer(self, chosen: str | None = None) -> None:
        """Offer the traces of the chosen heads, and choose one of them: `chosen`, or the first."""
        kind = self.heads.value
        offered = [name for name in self._traces if kind in (ANYONE, heads_of(name))]
        self._updating = True  # new options choose the first one
        try:
            self.trace.options = offered
            self.trace.value = chosen or offered[0]
        finally:
            self._updating = False
        self._choose()

    def _choose(self) -> None:
        """Read the chosen trace and show its first step."""
        if self._updating:
            return
        chosen = self._traces[self.trace.value]
        try:
            trace = chosen if isinstance(chosen, Trace) else Trace.load(chosen)
            fig_moment(trace, 0)
        except (ValueError, OSError) as error:
            self._fault = str(error)
            self._say(self._fault)
            if self._shown is None:
                self._line.write(self._fault)  # headless notebooks show no message
            return
        self._shown, self._name, self._fault = trace, self.trace.value, ""
        self._updating = True  # the sliders' new ends are events like any other
        try:
            self.step.value = self.play.value = 0
            self.step.max = self.play.max = len(trace.steps) - 1
        finally:
            self._updating = False
        self.update()

    def update(self) -> None:
        """Draw the chosen step, or say what is wrong."""
        for slider in (self.epsilon, self.delta):
            slider.disabled = self.criterion.value != "typical"
        if self._updating or self._shown is None:
            return
        state = self._state()
        try:
            figure = fig_moment(self._shown, self.step.value, **state)
            self.summary = replay.summary(self._name, self._shown, **state)
        except ReplayError as error:
            self._say(str(error))
            return
        self._say(self._fault)
        self.figure = figure
        self._drawing.draw(figure)
        self._line.write(self.summary)

    def show(self) -> None:
        """Display the controls, the summary line and the figure, which is high."""
        display(self.controls)
        self._line.show()
        self._drawing.show()

    _ipython_display_ = show

    def _state(self) -> dict:
        return {
            "criterion": self.criterion.value,
            "epsilon": round(self.epsilon.value, 4),
            "delta": round(self.delta.value, 4),
        }

    def _changed(self, verdicts: list[Verdict]) -> list[int]:
        return replay.changed(self._shown, verdicts)

    def _jump(self, find: Callable[[list[Verdict]], list[int]], what: str) -> None:
        """Go to the next of the steps that `find` names, from the start again after the last."""
        if self._shown is None:
            return
        try:
            found = find(replay.decide_all(self._shown, **self._state()))
        except ReplayError as error:
            self._say(str(error))
            return
        steps = sorted(found, key=lambda step: (step <= self.step.value, step))
        if not steps:
            self._say(f"No step of this trace {what}.")
        elif self.step.value == steps[0]:
            self._say(f"This is the only step of this trace that {what}.")
        else:
            self.step.value = steps[0]

    def _record(self) -> None:
        """Answer the typed prompt with the model and choose the new trace."""
        self.record.disabled, temperature = True, 0.7 if self.acceptance.value == "typical" else 0.0
        self._say("recording; the controls answer when it is done ...")
        try:
            trace = self._recorder.record(self.prompt.value, Settings(48, self.acceptance.value, temperature))
        except (ValueError, RuntimeError, OSError) as error:
            self._say(str(error))
            return
        except KeyboardInterrupt:
            self._say("The recording was interrupted; nothing was kept.")
            return
        finally:
            self.record.disabled = False
        self._own += 1
        name = f"{OWN} {self._own}, {self.acceptance.value}"
        self._traces[name] = trace
        self.heads.value = ANYONE
        self._offer(name)

    def _say(self, text: str) -> None:
        self.message.value = alert(text)


def explore_replay(traces: Mapping[str, Trace | Path] | None = None, recorder=None) -> ReplayExplorer:
    """The replay: step through recorded answers, and decide their steps again by other criteria.

    traces: by name; without them all of artifacts/traces. recorder: a record.Recorder, to type own prompts. It shows
    itself as the last value of a notebook cell; anywhere else call its `show`.
    """
    return ReplayExplorer(shipped() if traces is None else traces, recorder)


def shipped(folder: Path | None = None) -> dict[str, Path]:
    """The trace files of a folder (default: artifacts/traces) by name, numbers in the order of their size."""
    folder = folder or runtime.ARTIFACTS / "traces"
    parts = {path.stem: re.split(r"(\d+)", path.stem) for path in folder.glob("*.json")}
    order = {name: [int(part) if part.isdecimal() else part for part in own] for name, own in parts.items()}
    return {name: folder / f"{name}.json" for name in sorted(order, key=order.__getitem__)}


def heads_of(name: str) -> str:
    """Who guessed, by the name that record.py gives a trace; any other name stands for itself alone."""
    return re.split(r"-(?:greedy|typical|exact)\b", name)[0]
