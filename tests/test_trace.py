"""Traces: the JSON form loses nothing that matters, and broken files are refused by file and key."""

import json

import numpy as np
import pytest

from medusa_core import accept, trace
from medusa_core.trace import Step, Trace, TraceError
from medusa_core.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (0, 0)])


def recorded():
    """Two steps of a made-up run, decided by the real criteria, and one plain step."""
    rng = np.random.default_rng(0)
    steps, length = [], 3
    for tokens in ([7, 1, 2, 3], [4, 1, 0, 2]):
        verdict = accept.typical(TREE, tokens, rng.normal(size=(4, 8)).astype(np.float32), temperature=0.7)
        produced = [tokens[node] for node in verdict.path[1:]] + [verdict.next_token]
        steps.append(
            Step(
                tokens=produced,
                parents=TREE.parents,
                source=("root", "heads", "corpus", "both"),
                node_tokens=np.array(tokens, dtype=np.int32),
                node_logprob=np.log([1.0, 0.5, 0.25, 1 / 3]).astype(np.float32),
                path=verdict.path,
                probability=verdict.probability,
                threshold=verdict.threshold,
                reason=verdict.reason,
                length=length,
                times={"verify": 0.0123456789, "accept": 2e-5},
            )
        )
        length += len(verdict.path)
    one = np.zeros(1)
    steps.append(
        Step([5], (-1,), ("root",), np.array([2], dtype=np.int32), one, (0,), one + 1, one, ("root",), length)
    )
    return Trace([1, 2, 3], steps, {"temperature": 0.7, "heads": "none"}, 0.25, {1: "a", 7: "é\n<b>"})


def test_round_trip_keeps_every_field():
    original = recorded()
    back = Trace.from_json(original.to_json())
    assert (back.prompt_ids, back.settings) == (original.prompt_ids, original.settings)
    assert (back.prefill, back.texts, back.tokens) == (original.prefill, original.texts, original.tokens)
    assert len(back.steps) == 3
    for new, old in zip(back.steps, original.steps, strict=True):
        assert (new.parents, new.source) == (old.parents, old.source)
        assert (new.tokens, new.path, new.reason, new.length) == (
            old.tokens,
            old.path,
            old.reason,
            old.length,
        )
        assert new.node_tokens.dtype == np.int32 and new.node_tokens.tolist() == old.node_tokens.tolist()
        for key in ("node_logprob", "probability", "threshold"):
            np.testing.assert_allclose(getattr(new, key), getattr(old, key), rtol=1e-5, equal_nan=True)
        assert new.times == pytest.approx(old.times, rel=1e-5)
    assert any(np.isnan(step.probability).any() for step in original.steps)  # nulls were exercised


def test_second_round_trip_is_identical():
    text = recorded().to_json()
    assert Trace.from_json(text).to_json() == text


def test_tokens_are_those_of_the_steps_in_order():
    run = recorded()
    assert run.tokens == run.steps[0].tokens + run.steps[1].tokens + [5]


def test_file_round_trip(tmp_path):
    recorded().save(tmp_path / "run.json")
    assert Trace.load(tmp_path / "run.json").to_json() == recorded().to_json()
    assert json.loads((tmp_path / "run.json").read_text())["version"] == trace.VERSION
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def broken(change):
    raw = json.loads(recorded().to_json())
    change(raw)
    return json.dumps(raw)


def setting(*keys, value):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("steps"), "key steps is missing"),
        (lambda raw: raw.pop("version"), "key version is missing"),
        (lambda raw: raw["steps"][1].pop("node_tokens"), r"key steps\[1\].node_tokens is missing"),
        (setting("version", value=99), f"version is 99, this package reads {trace.VERSION}"),
        (setting("prompt_ids", value="hello"), 'key prompt_ids must be a list of whole numbers, got "hello"'),
        (setting("prompt_ids", value=[1.5]), "key prompt_ids must be a list of whole numbers"),
        (setting("prefill", value=None), "key prefill must be a number of seconds, got null"),
        (setting("texts", value={"x": "y"}), "key texts must be an object of token id to text"),
        (setting("steps", 0, "parents", value=[-1, 0, 3, 0]), r"key steps\[0\].parents: node 2 has parent 3"),
        (
            setting("steps", 0, "source", value=["root", "me", "heads", "heads"]),
            "a list of root, heads, context",
        ),
        (
            setting("steps", 0, "source", value=["root", "root", "heads", "heads"]),
            r"key steps\[0\].source must be root for node 0 and for no other",
        ),
        (setting("extra", value=1), "key extra is unknown"),
        (setting("steps", 0, value=[]), r"steps\[0\] must be an object, got list"),
        (
            setting("steps", 0, "length", value=True),
            r"key steps\[0\].length must be a whole number, got true",
        ),
        (setting("steps", 0, "reason", value=["root"]), r"key steps\[0\].reason has 1 entries for 4 nodes"),
        (
            setting("steps", 0, "probability", value=["1"] * 4),
            r"key steps\[0\].probability must be a list of numbers",
        ),
        (
            setting("steps", 0, "path", value=[0, 9]),
            r"key steps\[0\].path must start at node 0 and stay below 4",
        ),
        (setting("steps", 0, "path", value=[]), r"key steps\[0\].path must start at node 0"),
        (setting("steps", 0, "times", value={"verify": "1"}), r"key steps\[0\].times must be an object"),
        (setting("steps", 0, "node_tokens", value=[1]), r"node_tokens has 1 entries for 4 nodes"),
    ],
)
def test_broken_trace_is_refused_by_file_and_key(tmp_path, change, message):
    file = tmp_path / "broken.json"
    file.write_text(broken(change))
    with pytest.raises(TraceError, match=message) as error:
        Trace.load(file)
    assert str(error.value).startswith(f"{file}: ")


def test_malformed_json_is_refused_by_file_and_line(tmp_path):
    file = tmp_path / "cut.json"
    file.write_text('{"version": 1,\n"steps": [')
    with pytest.raises(TraceError, match=r"cut\.json: not JSON at line 2"):
        Trace.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(TraceError, match="not UTF-8 text at byte 0"):
        Trace.load(file)
    with pytest.raises(TraceError, match="the whole file must be an object, got list"):
        Trace.from_json("[]")
    for unreadable in ("[" * 100_000, "9" * 5000):
        with pytest.raises(TraceError, match="trace: JSON that cannot be read"):
            Trace.from_json(unreadable)


def test_infinite_numbers_are_not_written():
    run = recorded()
    run.prefill = float("inf")
    with pytest.raises(ValueError, match="JSON compliant"):
        run.to_json()
