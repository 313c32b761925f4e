"""Greedy decoding with every shipped set of heads gives the plain greedy text of its base, whatever guesses.

`make test` looks at a few questions; `pytest -m long tests/test_lossless.py` at all 80, 128 tokens each. Heads that
learned together with their base are held to what the changed base says plainly.
"""

import functools

import numpy as np
import pytest
from random_trees import random_tree
from shipped import HEADS

from medusa_core import answers, data, decode, heads, machine, runtime, text, tree, tree_files
from medusa_core.answers import Drafting, Settings

SCALES = [pytest.param(27, 32, id="few"), pytest.param(1, 128, id="all", marks=pytest.mark.long)]
SHAPES = {
    "tree of its own": None,
    "chain": tree.chain(4),
    "one node": tree.Tree.from_paths([(0,)]),
    "random of 20": random_tree(20, 4, 6, np.random.default_rng(0)),
}
# By adapters and order of sums: every base is loaded once, and says everything plainly once.
BASES, PLAIN = {}, {}


def base_of(name):
    key = heads.adapters(name), machine.tiles()
    if key not in BASES:
        BASES[key] = answers.load_base("embedded", name)
    return BASES[key]


@functools.cache
def prompts_of(folder):
    tokenizer = text.load_tokenizer(folder)
    questions = data.read_questions(runtime.ARTIFACTS / "data" / "questions.jsonl")
    return [answers.prompt(tokenizer, question["turns"][:1]) for question in questions]


def plain(base, number, prompt, tokens):
    key = base.adapters, machine.tiles(), number, tokens
    if key not in PLAIN:
        PLAIN[key] = [token for step in decode.plain(base, prompt, tokens) for token in step.tokens]
    return PLAIN[key]


def tokens_per_step(base, drafting, every, tokens):
    """Compare the texts of every so many questions, and say what a step brought."""
    steps = produced = 0
    for number, prompt in enumerate(prompts_of(base.folder)):
        if number % every:
            continue
        trace = answers.answer(base, drafting, prompt, Settings(tokens))
        assert trace.tokens == plain(base, number, prompt, tokens), f"question {number + 1}"
        steps, produced = steps + len(trace.steps), produced + len(trace.tokens)
    return produced / steps


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("every", "tokens"), SCALES)
def test_text_is_plain_on_every_question(name, shape, every, tokens):
    base = base_of(name)
    drafter = heads.load(name, base)
    draft_tree = SHAPES[shape] or tree_files.find("auto", heads.resolve(name))
    found = tokens_per_step(base, Drafting(drafter, draft_tree), every, tokens)
    print(f"{name}, {shape}: {found:.3f} tokens/step")
    # The tree of a machine on which no tree pays is its root alone.
    assert found > 1 or draft_tree.size == 1


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("every", "tokens"), SCALES)
def test_text_is_plain_where_other_sources_guess_beside_the_heads(name, every, tokens):
    base = base_of(name)
    found = tokens_per_step(base, answers.load_drafting(name, "auto", "both", base), every, tokens)
    print(f"{name} + context: {found:.3f} tokens/step")
    assert found > 1


@pytest.mark.parametrize(("every", "tokens"), [pytest.param(40, 24, id="few"), SCALES[1]])
def test_text_is_plain_in_the_matrix_units_order(monkeypatch, every, tokens):
    monkeypatch.setenv("MEDUSA_AMX", "1")
    base = base_of("medusa1")
    drafter = heads.load("medusa1", base)
    found = tokens_per_step(base, Drafting(drafter, SHAPES["random of 20"]), every, tokens)
    assert found > 1


def test_heads_are_shipped():
    assert set(HEADS) <= set(heads.available())
