"""Recording: readings are the base's own numbers, and decide a step again as it was decided."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_decoding import FakeBase
from replay_traces import QUESTION, TREE, recorded, recorder
from shipped import traces_shipped

from medusa_core import accept, masks, record, replay, runtime
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.trace import Trace, TraceError

TRACES = runtime.ARTIFACTS / "traces"
SHIPPED = [TRACES / f"{name}.json" for name in traces_shipped()]  # whatever else was recorded there


def assert_decided_alike(trace, criterion, **settings):
    for step in trace.steps:
        verdict = replay.decide(step, criterion, **settings)
        assert verdict.path == step.path and verdict.reason == step.reason
        if len(step.tokens) == len(step.path):  # else the text ended before the bonus token
            assert verdict.next_token == step.tokens[-1]
        for ours, theirs in ((verdict.probability, step.probability), (verdict.threshold, step.threshold)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("acceptance", ["greedy", "typical"])
def test_deciding_again_with_the_recorded_settings_gives_the_recorded_verdicts(acceptance):
    trace = recorded(acceptance)
    assert_decided_alike(trace, acceptance)
    assert_decided_alike(Trace.from_json(trace.to_json()), acceptance)
    assert any(len(step.path) > 1 for step in trace.steps)


def test_other_settings_decide_as_a_run_with_them_would_have_at_each_step():
    trace = recorded("typical")
    base = FakeBase()
    for step in trace.steps[1:]:
        before = [*trace.prompt_ids, *trace.tokens][: step.length]
        logits = np.stack([logits_after(base, before, step, node) for node in range(len(step.parents))])
        for epsilon, delta in ((0.01, 0.3), (0.5, 0.9), (0.09, 0.01)):
            direct = accept.typical(step.tree, step.node_tokens, logits, 0.7, epsilon, delta)
            again = replay.decide(step, "typical", epsilon, delta)
            assert (again.path, again.reason, again.next_token) == (
                direct.path,
                direct.reason,
                direct.next_token,
            )
        direct = accept.greedy(step.tree, step.node_tokens, logits.argmax(axis=1))
        assert replay.decide(step, "greedy").path == direct.path


def logits_after(base, before, step, node):
    """Logits (V,) after a node whose path is fed as plain text."""
    ids = [*before, *step.node_tokens[list(step.tree.path_to(node))]]
    return np.asarray(base.logits(base(ids, np.arange(len(ids)), masks.causal(len(ids)))))[0, -1]


def test_readings_hold_log_probability_and_entropy_at_temperature_1_for_every_node():
    trace, base = recorded(), FakeBase()
    for step in trace.steps[1:4]:
        before = [*trace.prompt_ids, *trace.tokens][: step.length]
        for node, parent in enumerate(step.parents):
            row = logits_after(base, before, step, node)
            p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert step.reading.entropy[node] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
            assert step.reading.best[node] == row.argmax()
            if node:
                above = logits_after(base, before, step, parent)
                own = above - above.max() - np.log(np.exp(above - above.max()).sum())
                assert step.reading.logprob[node] == pytest.approx(own[step.node_tokens[node]], abs=1e-4)
        assert np.isnan(step.reading.logprob[0])


def test_readings_of_the_kernels_have_the_bits_that_decided():
    from tiny_model import tiny

    from medusa_core.kernels.model import KernelModel

    config, weights = tiny(eos_token_ids=())
    base = KernelModel(config, weights)
    guesses = np.random.default_rng(0)

    class Guesses:
        def draft(self, hidden, token, shape):
            best, _ = base.top(hidden[None], 3)
            tokens = [token, *(best[0, shape.rank[1:]] + guesses.integers(0, 2, shape.size - 1) * 5)]
            return np.array(tokens, np.int32) % 150, np.zeros(shape.size, np.float32)

        config = type("", (), {"num_heads": 3})

    from medusa_core import answers

    trace = answers.answer(base, Drafting(Guesses(), TREE), [5, 17, 99, 3], Settings(40, "typical", 0.7))
    record.read_steps(base, trace, 0.7)
    for step in trace.steps:
        verdict, asked = replay.decide(step, "typical"), ~np.isnan(step.threshold)
        assert verdict.path == step.path
        assert np.array_equal(verdict.probability[asked], step.probability[asked])
        assert np.array_equal(verdict.threshold[asked], step.threshold[asked])


def test_a_trace_says_how_it_was_recorded_and_holds_every_text():
    trace = recorder().record(QUESTION, Settings(20), temperature=0.5, repeats=3)
    said = trace.settings
    assert (said["question"], said["heads"]) == (QUESTION, "fake")
    assert (said["acceptance"], said["reading_temperature"], said["repeats"]) == ("greedy", 0.5, 3)
    ids = set(trace.prompt_ids) | set(trace.tokens)
    for step in trace.steps:
        ids |= set(step.node_tokens.tolist()) | set(step.reading.best.tolist())
    assert ids <= trace.texts.keys()
    assert len(trace.plain_seconds) == 20 and min(trace.plain_seconds) > 0


def test_readings_are_at_the_temperature_of_a_run_that_samples():
    trace = recorder().record(QUESTION, Settings(8, "typical", 0.9), temperature=0.5)
    assert trace.settings["reading_temperature"] == 0.9


def test_an_exact_run_is_recorded_with_what_typical_acceptance_needs():
    trace = recorded("exact")
    assert {len(replay.decide(step, "typical").reason) for step in trace.steps} == {1, TREE.size}


def test_an_empty_question_is_refused():
    with pytest.raises(SettingsError, match="question is empty"):
        recorder().record("  \n", Settings(8))


def test_plain_runs_have_no_readings_and_their_files_no_such_keys():
    from medusa_core import answers

    trace = answers.answer(FakeBase(), Drafting(), [5, 6, 7], Settings(4))
    raw = json.loads(trace.to_json())
    assert "plain_seconds" not in raw and all("reading" not in step for step in raw["steps"])
    assert Trace.from_json(trace.to_json()).steps[0].reading is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: step["reading"].pop("entropy"), r"key steps\[1\].reading.entropy is missing"),
        (lambda step: step["reading"]["best"].pop(), r"steps\[1\].reading.best has 6 entries for 7 nodes"),
        (
            lambda step: step["reading"].update(best=["a"] * 7),
            r"reading.best must be a list of whole numbers",
        ),
        (lambda step: step.update(reading=[]), r"steps\[1\].reading must be an object"),
        (lambda step: step.update(path=[0, 6]), r"steps\[1\].path must go from parent to child"),
        (lambda step: step.update(tokens=[1] * 9), r"steps\[1\].tokens must be the path's tokens"),
        (
            lambda step: step.update(reason=["root", *["why"] * 6]),
            r"steps\[1\].reason must be a list of root,",
        ),
        (lambda step: step.update(times={"verify": float("nan")}), r"steps\[1\].times must be an object"),
    ],
)
def test_broken_readings_and_verdicts_are_refused_by_file_and_key(tmp_path, change, message):
    raw = json.loads(recorded().to_json())
    change(raw["steps"][1])
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(raw))
    with pytest.raises(TraceError, match=message):
        Trace.load(file)


@pytest.mark.parametrize(
    ("key", "value"), [("epsilon", "0.1"), ("question", 7), ("reading_temperature", None)]
)
def test_settings_that_figures_read_are_checked(key, value):
    trace = recorded()
    trace.settings[key] = value
    with pytest.raises(TraceError, match=f"key settings.{key} must be a"):
        Trace.from_json(trace.to_json())


def test_questions_are_the_first_of_each_category():
    questions = [{"question_id": i, "category": c} for i, c in enumerate("aabacb")]
    assert [question["question_id"] for question in record.chosen(questions, 2)] == [0, 1, 2, 4, 5]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command line on three questions and the NumPy base; loaded lists whose heads were loaded."""
    loaded = []

    def load(model, heads, tree, drafts):
        loaded.append(heads)
        about = {"model": model, "heads": heads, "tree": tree, "drafts": drafts}
        return replace(recorder(), about=about)

    monkeypatch.setattr(record, "load", load)
    monkeypatch.setattr(record.answers, "fingerprints", lambda *asked: {"heads.safetensors": "made once"})
    rows = [(1, "a b"), (2, "a b"), (7, "c")]
    questions = tmp_path / "q.jsonl"
    questions.write_text(
        "".join(json.dumps({"question_id": i, "category": c, "turns": ["Why?"]}) + "\n" for i, c in rows)
    )
    small = ["--questions", questions, "--max-new-tokens", 8, "--repeats", 1, "--out", tmp_path / "out"]
    return lambda *more: record.main([str(part) for part in (*small, *more)]), tmp_path / "out", loaded


def test_the_command_line_writes_a_file_for_each_heads_acceptance_and_category(command):
    run, out, loaded = command
    assert run("--heads", "one", "two") == 0
    assert sorted(path.stem for path in out.iterdir()) == [
        f"{heads}-{acceptance}-{question}"
        for heads in ("one", "two")
        for acceptance in ("greedy", "typical")
        for question in ("a-b-1", "c-7")
    ]
    said = Trace.load(out / "two-typical-c-7.json").settings
    assert (said["heads"], said["category"], said["acceptance"], said["temperature"]) == (
        "two",
        "c",
        "typical",
        0.7,
    )
    assert loaded == ["one", "two"]


def test_traces_that_are_there_are_kept_and_the_missing_ones_recorded(command, capsys):
    run, out, loaded = command
    run("--heads", "one")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "one-greedy-c-7.json").unlink()
    assert run("--heads", "one") == 0 and loaded == ["one", "one"]
    after = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {path.name for path in after if after[path] != before[path]} == {"one-greedy-c-7.json"}
    assert run("--heads", "one") == 0 and loaded == ["one", "one"]
    assert "one: all traces are there." in capsys.readouterr().out


def test_a_trace_that_was_recorded_otherwise_is_not_taken_for_the_one_asked_for(command, capsys):
    run, out, _ = command
    run("--acceptance", "greedy", "--prompt", "Why?")
    assert [path.name for path in out.iterdir()] == ["medusa1-greedy-prompt.json"]
    assert run("--acceptance", "greedy", "--prompt", "How?", "--temperature", 0.5) == 1
    message = capsys.readouterr().err
    assert 'question was "Why?" and is now "How?"' in message
    assert "reading_temperature was 0.7 and is now 0.5" in message


def test_traces_of_heads_that_were_trained_again_are_not_taken_for_theirs(command, monkeypatch, capsys):
    run, _, _ = command
    assert run("--heads", "one") == 0
    monkeypatch.setattr(record.answers, "fingerprints", lambda *asked: {"heads.safetensors": "made again"})
    assert run("--heads", "one") == 1
    assert "recorded otherwise: files_sha256 differs in heads.safetensors. Delete" in capsys.readouterr().err


@pytest.mark.parametrize(("drafts", "tree"), [("heads", "replay-8"), ("all", "replay-8"), ("text", "auto")])
def test_the_tree_is_one_to_look_at_where_heads_fill_one(command, drafts, tree):
    run, out, _ = command
    assert run("--acceptance", "greedy", "--drafts", drafts, "--prompt", "Why?") == 0
    assert {Trace.load(path).settings["tree"] for path in out.iterdir()} == {tree}


def test_heads_that_learned_with_their_base_are_recorded_with_it(monkeypatch):
    class Loaded(Exception):
        pass

    def load_base(model, heads):
        raise Loaded(model, heads)

    monkeypatch.setattr(record.answers, "load_base", load_base)
    with pytest.raises(Loaded, match="'embedded', 'medusa2'"):
        record.load("embedded", "medusa2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats and --per-category must be at least 1"),
        (["--temperature", "0"], "--temperature is 0.0; readings need a positive number"),
    ],
)
def test_wrong_arguments_are_errors_before_a_model_is_loaded(arguments, message, capsys):
    assert record.main([*arguments, "--prompt", "Why?"]) == 1
    assert message in capsys.readouterr().err


def test_shipped_traces_are_of_every_category_and_acceptance_and_small():
    found = {}
    for said in (Trace.load(path).settings for path in SHIPPED):
        found.setdefault((said["heads"], said["acceptance"]), set()).add(said["category"])
    categories = {"coding", "extraction", "humanities", "math", "reasoning", "roleplay", "stem", "writing"}
    assert {("medusa1", "greedy"), ("medusa1", "typical")} <= found.keys()
    assert all(own == categories for own in found.values())
    assert sum(path.stat().st_size for path in SHIPPED) < 5_000_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_traces_decide_again_as_they_were_decided(path):
    trace = Trace.load(path)
    assert len(trace.tokens) <= 48 and len(trace.plain_seconds) > 1
    assert trace.settings["acceptance"] in ("greedy", "typical")
    assert_decided_alike(trace, trace.settings["acceptance"])
