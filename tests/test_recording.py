"""Comparing a base with a recording: a base that is right, and ones that are wrong in one number."""

import json

import ml_dtypes
import numpy as np
import pytest

from medusa_core import recording

VOCAB = 12
NEXT = {3: 5, 5: 7, 7: 1, 1: 3}  # the token that the base takes for the likeliest after each


class Array(np.ndarray):
    """An array with the one method of a Jittor Var that is used."""

    def numpy(self):
        return np.asarray(self)


class Base:
    """A base whose logits depend on the last token alone: `height` at the token that follows, 0 elsewhere."""

    class config:
        sliding_window = None

    def __init__(self, height=4.0, following=NEXT):
        self.height, self.following = height, following

    def __call__(self, ids, positions, mask, cache=None):
        assert mask.shape == (len(ids), len(ids)) and positions.tolist() == list(range(len(ids)))
        return np.array(ids, float).reshape(1, -1, 1)

    def logits(self, hidden):
        out = np.zeros((len(hidden), VOCAB), np.float32)
        for row, last in zip(out, hidden[:, 0]):
            row[self.following[int(last)]] = self.height
        return out.view(Array)

    def top(self, hidden, k):
        ids = np.argsort(-self.logits(hidden), axis=1, kind="stable")[:, :k]
        return ids, None


@pytest.fixture
def recorded(tmp_path):
    """One prompt, [3, 5], continued greedily by 7, 1, 3."""
    height = 4.0
    logits = np.zeros((2, VOCAB))
    logits[0, 5] = logits[1, 7] = height
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    vocab = np.array([1, 7, 9])
    np.savez(
        tmp_path / "r.npz",
        **{
            "vocab": vocab,
            "0/logits": logits[:, vocab],
            "0/top_ids": top,
            "0/top_logits": np.take_along_axis(logits, top, 1),
            "0/logsumexp": np.log(np.exp(logits).sum(1)),
        },
    )
    prompts = [{"name": "short", "ids": [3, 5], "positions": [0, 1], "greedy": [7, 1, 3]}]
    content = {"prompts": prompts, "versions": {"torch": "x"}, "weights_sha256": "y"}
    (tmp_path / "r.json").write_text(json.dumps(content))
    return recording.read(tmp_path / "r")


def test_the_same_function_differs_nowhere(recorded):
    (row,) = recording.compare(Base(), recorded)
    assert row["difference"] < 1e-12
    assert (row["prompt"], row["tokens"], row["greedy_equal"], row["greedy"]) == ("short", 2, 3, 3)


def test_a_logit_that_is_off_is_seen(recorded):
    (row,) = recording.compare(Base(height=4.5), recorded)
    assert row["difference"] == pytest.approx(0.5)
    assert row["greedy_equal"] == 3


def test_another_greedy_token_is_counted(recorded):
    (row,) = recording.compare(Base(following={**NEXT, 1: 0}), recorded)
    assert row["difference"] < 1e-12  # token 1 stands at no recorded position
    assert row["greedy_equal"] == 2


def test_weights_are_hashed_by_name_not_by_order():
    one, two = np.ones((2, 2), ml_dtypes.bfloat16), np.zeros(3, np.float16)
    assert recording.weights_sha256({"a": one, "b": two}) == recording.weights_sha256({"b": two, "a": one})
    assert recording.weights_sha256({"a": one, "b": two}) != recording.weights_sha256({"a": two, "b": one})
