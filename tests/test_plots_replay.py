"""Replay figures: every token once and by origin, the step's numbers, one clock, and frames equal to the stills."""

import numpy as np
import pytest
from replay_traces import by_hand, recorded

from medusa_core import replay
from medusa_core.plots.palette import COLOURS
from medusa_core.plots.replay import (
    fig_lanes,
    fig_leniency,
    fig_moment,
    fig_replay,
    fig_step,
    fig_text,
    fig_thresholds,
)
from medusa_core.plots.replay_text import COLUMNS
from medusa_core.replay import Origin, ReplayError
from medusa_core.trace import Trace


def chips(figure):
    """(line, left end, text, legend name) of every chip, in reading order."""
    bars = [bar for bar in figure.data if bar.type == "bar" and bar.xaxis == "x"]
    found = [(y, x, text, bar.name) for bar in bars for y, x, text in zip(bar.y, bar.base, bar.text)]
    return sorted(found)


def named(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def nodes(figure, outcome):
    """The trace that holds a step's nodes with an outcome: they look as the legend says."""
    marker = named(figure, outcome).marker
    (found,) = [trace for trace in figure.data if trace.mode == "markers+text" and trace.marker == marker]
    return found


def shown_texts(figure):
    """Everything that a figure says, as plotly gets it."""
    for trace in figure.data:
        for texts in (trace.text, trace.hovertext):
            yield from [texts] if isinstance(texts, str) else texts or ()
    yield figure.layout.title.text


def test_tokens_carry_where_they_came_from():
    origins = [origin for step in by_hand().steps for origin in replay.origins(step)]
    assert origins == [
        Origin("bonus", 0),
        Origin("heads", 1),
        Origin("both", 2),
        Origin("context", 3),
        Origin("bonus", 0),
        Origin("bonus", 0),
    ]


def test_text_shows_every_token_once_in_order_with_mark_and_name():
    texts = [(text, name.split()[0]) for _, _, text, name in chips(fig_text(by_hand()))]
    assert texts == [
        ("&lt;script&gt;<sup>+</sup>", "the"),
        ("␣a\\n<sup>1</sup>", "a"),
        ("&#36;x&#36;<sup>b2</sup>", "guessed"),
        ("&amp;amp;<sup>c3</sup>", "a"),
        ("é<sup>+</sup>", "the"),
        ("&lt;b&gt;<sup>+</sup>", "the"),
    ]


def test_text_wraps_at_the_edge_and_after_line_ends():
    places = [(line, x) for line, x, *_ in chips(fig_text(by_hand()))]
    assert [line for line, _ in places] == [0, 0, 1, 1, 1, 1]
    assert places[2][1] == 0
    trace = recorded(tokens=60)
    trace.texts = dict.fromkeys(trace.texts, "abcdefgh")
    bars = [bar for bar in fig_text(trace).data if bar.type == "bar"]
    boxes = sorted((y, x, x + w) for bar in bars for y, x, w in zip(bar.y, bar.base, bar.x))
    assert len(boxes) == 60 and boxes[-1][0] > 3
    assert all(right <= COLUMNS for _, _, right in boxes)
    assert all(a[2] <= b[1] for a, b in zip(boxes, boxes[1:]) if a[0] == b[0]), "chips overlap"


def test_colours_mean_what_they_mean_elsewhere():
    figure = fig_moment(by_hand(), 1)
    for bar in (bar for bar in figure.data if bar.type == "bar" and bar.xaxis == "x"):
        assert bar.marker.line.color == COLOURS["bonus" if "base's own" in bar.name else "accepted"]
    for name in ("accepted", "rejected", "bonus"):
        assert named(figure, name).marker.color == COLOURS[name]


@pytest.mark.parametrize("make", [by_hand, recorded])
def test_model_text_is_never_markup(make):
    trace = make()
    trace.texts = {token: f"<img src={token}>$" for token in trace.texts}
    for step in range(len(trace.steps)):
        for text in shown_texts(fig_moment(trace, step)):
            assert "<img" not in text and "$" not in text and "<b>2" not in text


def test_deeper_guesses_are_darker_and_every_source_has_its_mark():
    trace = by_hand()
    trace.steps[1].source = ("root", "heads", "heads", "heads", "corpus")
    figure = fig_text(trace)
    heads, corpus = (
        named(figure, "a head's guess, accepted (number: its depth)"),
        named(figure, "a guess from other answers, accepted (o)"),
    )
    light = [int(colour[1:3], 16) for colour in (*heads.marker.color, *corpus.marker.color)]
    assert light == sorted(light, reverse=True) and len(set(light)) == 3
    assert corpus.text[0].endswith("<sup>o3</sup>")


def test_later_tokens_are_veiled_and_the_step_is_framed():
    trace = by_hand()
    whole, first = fig_text(trace), fig_text(trace, 0)
    veil, frame = first.data[-2:]
    assert min(x for x, y in zip(veil.x, veil.y) if x is not None and y < 0.5) == 9.75
    assert max(y for y in veil.y if y is not None) == 2
    assert max(x for x in frame.x if x is not None) <= 9.75
    assert not whole.data[-2].x
    lines = {round(y) for y in fig_text(trace, 1).data[-1].y if y is not None and abs(y - round(y)) > 0.4}
    assert lines >= {0, 1}, "a step that goes over the line end has a frame on both lines"


def test_a_step_shows_probability_threshold_and_verdict_of_every_guess():
    figure = fig_step(by_hand(), 1)
    below = figure.data[-2]
    assert list(below.text) == ["✓ 0.600 > 0.090", "× 0.010 ≤ 0.090", "✓ 0.500 > 0.050", "✓ 0.400 > 0.070"]
    assert figure.data[-1].text[0] == "Step 1: 3 of 4 guesses accepted"
    assert list(nodes(figure, "bonus").text) == ["é"]
    assert len(nodes(figure, "accepted").x) == 3 and list(nodes(figure, "rejected").text) == ["no"]
    hover = nodes(figure, "rejected").hovertext[0]
    assert "path 1: rejected" in hover and "p = 0.0100, must exceed 0.0900" in hover


def test_guesses_that_were_not_reached_say_so():
    figure = fig_step(by_hand(), 2)
    assert list(figure.data[-2].text) == ["× 0.020 ≤ 0.030", "not reached", "not reached", "not reached"]
    assert set(nodes(figure, "not reached").text) == {"(empty)", "&#36;x&#36;", "&amp;amp;"}


def test_greedy_steps_say_what_the_base_wanted_instead():
    trace = recorded()
    step = next(n for n, own in enumerate(trace.steps) if "rejected" in own.reason)
    node = trace.steps[step].reason.index("rejected")
    wanted = trace.texts[int(trace.steps[step].reading.best[trace.steps[step].parents[node]])]
    text = fig_step(trace, step).data[-2].text[node - 1]
    assert text == f"× base: {'␣' if wanted == ' ' else wanted}".replace("<", "&lt;")


def test_the_winning_path_ends_in_the_bonus():
    trace = recorded()
    for place, step in enumerate(trace.steps[1:], 1):
        figure = fig_step(trace, place)
        bonus = nodes(figure, "bonus")
        (won,) = [t for t in figure.data if t.mode == "lines" and t.line.width == 5]
        assert len(won.x) == 5 * (len(step.path) - 1)
        if len(step.tokens) == len(step.path):
            assert len(bonus.x) == 1 and bonus.x[0] == len(step.path)
        marks = [(x, y) for t in figure.data if t.mode == "markers+text" for x, y in zip(t.x, t.y)]
        assert len(marks) == len(set(marks)) == len(step.parents) + len(bonus.x), "two nodes in one place"


def test_deciding_again_changes_the_tree_and_says_so_and_marks_the_steps():
    trace = recorded()
    verdicts = replay.decide_all(trace, "typical", 1e-6, 1.0)
    steps = replay.changed(trace, verdicts)
    assert steps
    figure = fig_moment(trace, steps[0], "typical", 1e-6, 1.0)
    assert "typical, epsilon 1e-06, delta 1, T = 0.7" in figure.layout.title.text
    assert figure.data[-3].text[0].endswith(f"; in the recording {len(trace.steps[steps[0]].path) - 1}")
    assert len(named(figure, "a step that would now be decided otherwise").x) == len(steps)
    assert chips(figure) == chips(fig_moment(trace, steps[0])), "the text stays the recorded one"


def test_lanes_share_one_clock():
    figure = fig_lanes(by_hand(), 1)
    medusa, plain = (bar for bar in figure.data if bar.type == "bar")
    assert list(medusa.base) == [0.0, 12.0] and list(medusa.x) == [12.0, 13.0]
    assert list(medusa.text) == ["4", "1"]
    assert list(plain.base) == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert figure.data[-2].x == (12.0, 12.0)
    assert figure.data[-1].text[0] == "after 12 ms: Medusa 5 tokens, plain 2"


def test_lanes_without_plain_times_show_the_run_alone():
    trace = by_hand()
    trace.plain_seconds = None
    assert list(fig_lanes(trace).layout.yaxis.ticktext) == ["Medusa"]
    for step in trace.steps:
        step.times = {}
    assert fig_lanes(trace).data[-1].text[0] == "after 0 ms: Medusa 6 tokens"


def test_frames_are_the_stills_of_every_step():
    trace = recorded("typical")
    figure = fig_replay(trace, 2)
    assert [frame.name for frame in figure.frames] == [str(n) for n in range(len(trace.steps))]
    slider = figure.layout.sliders[0]
    assert slider.active == 2 and [list(s.args[0]) for s in slider.steps] == [[f.name] for f in figure.frames]
    for step, frame in enumerate(figure.frames):
        still = fig_moment(trace, step)
        assert len(frame.data) == len(frame.traces)
        for place, data in zip(frame.traces, frame.data):
            for key in ("x", "y", "text", "hovertext"):
                assert data[key] == still.data[place][key]
    fixed = set(range(len(figure.data))) - set(figure.frames[0].traces)
    assert all(figure.data[i] == fig_moment(trace, 0).data[i] for i in fixed)


def test_threshold_frames_are_the_step_decided_by_each_epsilon():
    trace, epsilons = recorded("typical"), [1e-6, 0.09, 0.9]
    lowest, highest = (replay.decide_all(trace, "typical", epsilon, 1.0) for epsilon in (1e-6, 0.9))
    place = next(n for n, pair in enumerate(zip(lowest, highest)) if pair[0].path != pair[1].path)
    figure = fig_thresholds(trace, place, epsilons, delta=1.0)
    assert [frame.name for frame in figure.frames] == ["1e-06", "0.09", "0.9"]
    assert figure.layout.sliders[0].active == 1
    paths = set()
    for epsilon, frame in zip(epsilons, figure.frames):
        still = fig_step(trace, place, "typical", epsilon, 1.0)
        for data, own in zip(frame.data, still.data[-len(frame.data) :], strict=True):
            assert (data.x, data.y, data.text) == (own.x, own.y, own.text)
        paths.add(frame.data[-1].text)
    assert len(paths) > 1
    with pytest.raises(ReplayError, match="epsilon 0.5 is none of 1e-06, 0.09, 0.9"):
        fig_thresholds(trace, place, epsilons, 0.5)


def test_frames_are_small_enough_for_a_notebook():
    assert len(fig_replay(recorded(tokens=48)).to_json()) < 200_000


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_that_is_not_there_is_named(step):
    with pytest.raises(ReplayError, match=f"step {step} is not there: this trace has steps 0 to 2"):
        fig_moment(by_hand(), step)


def test_what_cannot_be_decided_again_says_why():
    with pytest.raises(ReplayError, match="no readings of the base model"):
        fig_moment(by_hand(), 0, "greedy")
    with pytest.raises(ReplayError, match="criterion 'exact' is unknown"):
        fig_moment(recorded(), 0, "exact")
    with pytest.raises(ReplayError, match="no steps"):
        fig_replay(Trace([1], []))


def test_large_trees_are_drawn_without_numbers():
    trace = recorded()
    step = trace.steps[1]
    wide = 40
    step.parents = (-1, *(0,) * wide)
    step.source = ("root", *("heads",) * wide)
    step.node_tokens = np.full(wide + 1, 5)
    step.node_logprob = step.probability = step.threshold = np.zeros(wide + 1)
    step.reason, step.path, step.tokens = ("root", *("rejected",) * wide), (0,), [4]
    step.reading = None
    figure = fig_step(trace, 1)
    assert not figure.data[-2].text and len(nodes(figure, "rejected").x) == wide
    assert figure.layout.height < 1400


def test_an_exact_run_has_no_thresholds():
    trace = recorded("exact")
    texts = [text for place in range(1, len(trace.steps)) for text in fig_step(trace, place).data[-2].text]
    assert any(text.startswith("✓ p = ") for text in texts) and not any(">" in text for text in texts)


def test_leniency_is_that_of_the_run_and_grows_as_the_threshold_falls():
    trace = recorded("typical")
    steps = trace.steps[1:]
    assert replay.leniency([trace], "typical")[0] == np.mean([len(step.path) for step in steps])
    assert replay.leniency([trace], "greedy")[1] == 0
    found = [replay.leniency([trace], "typical", epsilon, 1.0) for epsilon in (0.9, 0.3, 0.05, 1e-4)]
    assert found == sorted(found) and found[-1][0] > found[0][0] and found[-1][1] > 0
    with pytest.raises(ReplayError, match="nothing but prefills"):
        replay.leniency([], "greedy")


def test_a_step_in_which_the_text_ended_counts_what_came_out():
    of_length = (recorded("typical", tokens) for tokens in range(8, 40))
    trace = next(t for t in of_length if len(t.steps[-1].tokens) < len(t.steps[-1].path))
    steps = trace.steps[1:]
    assert replay.leniency([trace], replay.RECORDED)[0] == np.mean([len(step.tokens) for step in steps])
    assert replay.leniency([trace], "typical")[0] == np.mean([len(step.path) for step in steps[:-1]])


def test_leniency_is_unknown_without_readings():
    with pytest.raises(ReplayError, match="no readings of the base model"):
        replay.leniency([by_hand()], replay.RECORDED)


def test_leniency_curves_are_those_of_the_traces():
    traces = [recorded("typical"), recorded()]
    epsilons, deltas = [0.01, 0.1, 0.5], [0.1, 0.9]
    figure = fig_leniency(traces, epsilons, deltas)
    lines = [trace for trace in figure.data if trace.name.startswith("delta = 0.9")]
    for line, part in zip(lines, (0, 1)):
        expected = [replay.leniency(traces, "typical", epsilon, 0.9)[part] for epsilon in epsilons]
        assert list(line.x) == epsilons and line.y == pytest.approx(expected, abs=1e-4)
    greedy = next(trace for trace in figure.data if trace.name == "greedy")
    assert set(greedy.y) == {round(replay.leniency(traces, "greedy")[0], 4)}


def test_questions_are_grouped_by_who_guessed_and_who_decided():
    made = [by_hand() for _ in range(4)]
    for trace, more in zip(
        made,
        (
            {"heads": "gru", "category": "math", "acceptance": "greedy"},
            {"heads": "gru", "category": "math", "acceptance": "exact"},
            {"heads": "gru", "acceptance": "greedy"},
            {"heads": "moe", "drafts": "all", "category": "math", "acceptance": "typical"},
        ),
    ):
        trace.settings = more
    groups = replay.by_who(made)
    assert {who: len(own) for who, own in groups.items()} == {"gru, greedy": 1, "moe (all), typical": 1}
    assert groups["gru, greedy"] == [made[0]]
