"""Decoding: Medusa gives the plain text on any tree, stops where it should, and says what it did."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import fake_decoding
import numpy as np
import pytest
from random_trees import random_tree
from tiny_model import tiny

from medusa_core import decode, masks, tree
from medusa_core.cost import StepCost
from medusa_core.heads import corpus
from medusa_core.heads.context import LONGEST
from medusa_core.kernels.model import KernelModel
from medusa_core.llama import Llama, jt
from medusa_core.plan import Plan

PROMPT = [5, 17, 99, 3]


class Guesses:
    """A drafter that knows the text and is right at some nodes, wrong at the others."""

    INDEPENDENT = False

    def __init__(self, text, right: float, seed: int = 0):
        self.text, self.right, self.rng = text, right, np.random.default_rng(seed)
        self.produced = 1  # tokens of the text that exist; the test counts them

    def draft(self, hidden, token, shape):
        tokens = self.rng.integers(0, 150, shape.size)
        for node in range(1, shape.size):
            place = self.produced - 1 + shape.depth[node]
            if place < len(self.text) and self.rng.random() < self.right:
                tokens[node] = self.text[place]
        tokens[0] = token
        return tokens.astype(np.int32), np.zeros(shape.size, np.float32)


def run(base, shape, text, right=0.6, prompt=PROMPT, **settings):
    drafter, steps = Guesses(text, right), []
    for step in decode.medusa(base, drafter, shape, prompt, **settings):
        steps.append(step)
        drafter.produced = sum(len(s.tokens) for s in steps)
    return steps


def text_of(steps):
    return [token for step in steps for token in step.tokens]


@pytest.fixture(scope="module")
def base():
    config, weights = tiny(eos_token_ids=())
    return KernelModel(config, weights)


TREES = {
    "chain": tree.chain(4),
    "one node": tree.Tree.from_paths([(0,)]),
    "dense": tree.dense([3, 2, 2]),
    "random": random_tree(20, 4, 5, np.random.default_rng(0)),
}


@pytest.mark.parametrize("shape", TREES.values(), ids=TREES)
def test_greedy_medusa_is_plain_greedy(base, shape):
    text = text_of(decode.plain(base, PROMPT, 80))
    steps = run(base, shape, text, max_new_tokens=80)
    assert text_of(steps) == text
    assert len(steps) < 80
    assert any(len(step.path) > 1 for step in steps)


@pytest.mark.parametrize("shape", TREES.values(), ids=TREES)
def test_exact_sampling_gives_the_plain_sample_of_the_same_seed(base, shape):
    text = text_of(decode.plain(base, PROMPT, 60, temperature=0.9, seed=7))
    assert text != text_of(decode.plain(base, PROMPT, 60, temperature=0.9, seed=8))
    steps = run(base, shape, text, max_new_tokens=60, acceptance="exact", temperature=0.9, seed=7)
    assert text_of(steps) == text
    assert len(steps) < 60


def test_greedy_medusa_is_plain_greedy_on_plain_ops_with_a_window():
    config, weights = tiny(model_type="mistral", sliding_window=9, eos_token_ids=())
    base = Llama(config, weights, "float32")
    text = text_of(decode.plain(base, PROMPT, 30))
    assert text_of(run(base, TREES["dense"], text, max_new_tokens=30)) == text
    kernel = KernelModel(config, weights, "float32")
    assert text_of(decode.plain(kernel, PROMPT, 30)) == text


@pytest.mark.parametrize("backend", [KernelModel, Llama])
@pytest.mark.parametrize("window", [None, 9])
def test_a_prompt_in_pieces_is_the_prompt_at_once(backend, window, monkeypatch):
    config, weights = tiny(model_type="mistral", sliding_window=window)
    base = backend(config, weights, "float32")
    prompt = np.random.default_rng(0).integers(0, 150, 40)
    whole = decode.prefill(base, prompt, base.new_cache()).numpy()
    monkeypatch.setattr(decode, "PIECE", 7)
    cache = base.new_cache()
    pieces = decode.prefill(base, prompt, cache).numpy()
    assert cache.length.tolist() == [40]
    assert (pieces == whole).all() if backend is KernelModel else np.allclose(pieces, whole, atol=1e-5)


def test_typical_acceptance_takes_more_than_greedy_agreement(base):
    text = text_of(decode.plain(base, PROMPT, 40))
    steps = run(
        base, TREES["dense"], text, max_new_tokens=40, acceptance="typical", temperature=0.7, epsilon=1e-9
    )
    assert len(text_of(steps)) == 40
    guesses = [node for step in steps[1:] for node in step.path[1:]]
    assert guesses and all(
        step.probability[node] > step.threshold[node] for step in steps for node in step.path[1:]
    )


def test_nothing_after_the_end_token_is_returned(base, monkeypatch):
    text = text_of(decode.plain(base, PROMPT, 40))
    end = text[20]
    monkeypatch.setattr(base, "config", type(base.config)(**{**vars(base.config), "eos_token_ids": (end,)}))
    expected = text[: text.index(end) + 1]
    assert text_of(decode.plain(base, PROMPT, 40)) == expected
    assert text_of(run(base, TREES["chain"], text, right=1.0, max_new_tokens=40)) == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_the_limit_is_kept_to_the_token(base, limit):
    text = text_of(decode.plain(base, PROMPT, 40))
    assert text_of(run(base, TREES["chain"], text, right=1.0, max_new_tokens=limit)) == text[:limit]


def test_decoding_fills_the_context_and_stops(base):
    prompt = list(np.random.default_rng(0).integers(0, 150, 240))
    text = text_of(decode.plain(base, prompt, 100))
    assert len(text) == 256 - 240 + 1  # the last token is chosen, but has no place to be fed at
    assert text_of(run(base, TREES["dense"], text, prompt=prompt, max_new_tokens=100)) == text


def test_steps_say_what_was_proposed_and_what_became_of_it(base):
    text = text_of(decode.plain(base, PROMPT, 30))
    steps = run(base, TREES["dense"], text, max_new_tokens=30)
    assert steps[0].times.keys() == {"prefill"} and steps[0].length == 0
    length = len(PROMPT)
    for step in steps[1:]:
        assert step.length == length
        assert step.times.keys() == {"draft", "verify", "accept", "commit"}
        assert [step.reason[node] for node in step.path[1:]] == ["accepted"] * (len(step.path) - 1)
        assert step.tokens[: len(step.path) - 1] == step.node_tokens[list(step.path[1:])].tolist()
        length += len(step.path)


def test_what_the_caller_does_between_steps_belongs_to_no_phase(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(decode, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    spent = []
    for step in decode.plain(fake_decoding.FakeBase(), PROMPT[:2], 5):
        spent.append(sum(step.times.values()))
        now[0] += 60.0
    assert spent == [0.0] * 5


def test_unknown_acceptance_is_refused(base):
    with pytest.raises(ValueError, match="greedy, typical or exact"):
        next(decode.medusa(base, None, decode.ROOT_ONLY, PROMPT, 4, acceptance="nucleus"))


EXPECTED = {
    "context": ["context"],
    "corpus": ["corpus"],
    "both": ["context", "heads"],
    "all": ["context", "heads", "both"],
}
PLAN = Plan(
    StepCost(tuple(1.0 + 0.01 * n for n in range(40)), 0.01), TREES["dense"], (0.0, *(0.8,) * LONGEST)
)


@pytest.mark.parametrize("who", ["context", "corpus", "both", "all"])
def test_a_plan_leaves_the_text_as_it_is(base, who):
    prompt = PROMPT * 6
    text = text_of(decode.plain(base, prompt, 90))
    drafter = Guesses(text, 0.5) if who in ("both", "all") else None
    counted = corpus.count([np.array(text), np.array(text[::2])]) if who in ("corpus", "all") else None
    plan = replace(PLAN, corpus=counted, rates=PLAN.rates if who != "corpus" else None)
    steps = []
    for step in decode.medusa(base, drafter, decode.ROOT_ONLY, prompt, 90, plan=plan):
        steps.append(step)
        if drafter:
            drafter.produced = sum(len(s.tokens) for s in steps)
    assert text_of(steps) == text
    assert {source for step in steps for source in step.source} >= {"root", *EXPECTED[who]}
    assert all(step.tree.size == len(step.source) == len(step.node_tokens) for step in steps)


def test_a_plan_samples_the_text_of_plain_sampling(base):
    text = text_of(decode.plain(base, PROMPT * 6, 60, temperature=0.8, seed=3))
    steps = decode.medusa(
        base, None, decode.ROOT_ONLY, PROMPT * 6, 60, "exact", temperature=0.8, seed=3, plan=PLAN
    )
    assert text_of(steps) == text


def test_a_plan_decodes_to_the_end_of_the_context():
    config, weights = tiny(eos_token_ids=(), max_position_embeddings=48)
    base = KernelModel(config, weights)
    text = text_of(decode.plain(base, PROMPT, 200))
    assert len(PROMPT) + len(text) == 49  # the last token is not fed
    assert text_of(decode.medusa(base, None, decode.ROOT_ONLY, PROMPT, 200, plan=PLAN)) == text


def test_memory_is_flat_over_five_thousand_tokens():
    config, weights = tiny(eos_token_ids=(), max_position_embeddings=5200)
    base = KernelModel(config, weights)
    gc.collect()  # or what earlier tests left in cycles goes meanwhile
    alive, produced = [], 0
    for step in decode.medusa(base, None, decode.ROOT_ONLY, PROMPT, 5000, plan=PLAN):
        produced += len(step.tokens)
        if produced >= 500 * (len(alive) + 1):
            alive.append(jt.liveness_info()["lived_vars"])
    assert produced == 5000 and len(alive) == 10
    assert len(set(alive)) == 1, alive


def test_stock_operators_keep_no_graph_of_the_steps_behind():
    config, weights = tiny(eos_token_ids=(), max_position_embeddings=128)
    alive = []
    for _ in decode.plain(Llama(config, weights), PROMPT, 40):
        jt.sync_all()
        alive.append(jt.liveness_info()["lived_vars"])
    assert len(set(alive[5:])) == 1, alive


def test_no_tokens_cannot_be_asked_for(base):
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        next(decode.plain(base, PROMPT, 0))


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_broken_model_is_an_error_and_not_a_text(temperature):
    broken = fake_decoding.FakeBase()
    broken.head = broken.head * np.nan
    with pytest.raises(ValueError, match="the model's output is broken"):
        next(decode.plain(broken, [5, 6], 5, temperature))


class Listening(Guesses):
    """Guesses that keep the state they were drafted from, by how many tokens there were."""

    def draft(self, hidden, token, shape):
        self.heard = {**getattr(self, "heard", {}), self.produced: hidden.numpy()}
        return super().draft(hidden, token, shape)


@pytest.mark.parametrize("plan", [None, replace(PLAN, rates=None)], ids=["tree", "plan"])
def test_drafts_are_made_from_the_state_of_the_last_accepted_node(base, plan):
    text = text_of(decode.plain(base, PROMPT, 60))
    drafter, leaves, written = Listening(text, 0.6), [], 0
    shape = decode.ROOT_ONLY if plan else TREES["dense"]
    for step in decode.medusa(base, drafter, shape, PROMPT, 60, plan=plan):
        drafter.produced = written = written + len(step.tokens)
        leaves.append(step.path[-1] != len(step.path) - 1)
    assert any(leaves)  # or the last node of the path would be its length
    for produced, heard in drafter.heard.items():
        ids = np.array([[*PROMPT, *text[: produced - 1]]])
        alone = base(ids, np.arange(ids.size)[None], masks.causal(ids.size)).numpy()[0, -1]
        assert np.array_equal(heard, alone), produced
