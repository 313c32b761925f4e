"""Greedy Medusa with the shipped heads gives the plain greedy text on the evaluation questions, on any tree.

`make test` looks at a few questions; `pytest -m long tests/test_lossless.py` at all 80, 128 tokens each.
"""

import numpy as np
import pytest

from medusa_core import answers, data, decode, heads, llama, runtime, text, tree

SHAPES = {
    "shipped": lambda: answers.find_tree("auto", heads.resolve("medusa1")),
    "chain": lambda: tree.chain(4),
    "one node": lambda: tree.Tree.from_paths([(0,)]),
    "random of 20": lambda: tree.random_tree(20, 4, 6, np.random.default_rng(0)),
}


@pytest.fixture(scope="module")
def base():
    return llama.load("embedded")


@pytest.fixture(scope="module")
def prompts(base):
    tokenizer = text.load_tokenizer(base.folder)
    questions = data.read_questions(runtime.ARTIFACTS / "data" / "questions.jsonl")
    return [answers.prompt(tokenizer, question["turns"][:1]) for question in questions]


@pytest.fixture(scope="module")
def plain(base, prompts):
    texts = {}

    def text_of(number, tokens):
        key = number, tokens
        if key not in texts:
            texts[key] = [t for step in decode.plain(base, prompts[number], tokens) for t in step.tokens]
        return texts[key]

    return text_of


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("every", "tokens"), [(16, 40), pytest.param(1, 128, marks=pytest.mark.long)])
def test_text_is_plain_on_every_question(base, prompts, plain, shape, every, tokens):
    drafter, draft_tree = heads.load("medusa1", base), SHAPES[shape]()
    steps = produced = 0
    for number in range(0, len(prompts), every):
        trace = list(decode.medusa(base, drafter, draft_tree, prompts[number], tokens))
        assert [t for step in trace for t in step.tokens] == plain(number, tokens), f"question {number + 1}"
        steps, produced = steps + len(trace), produced + sum(len(step.tokens) for step in trace)
    print(f"{shape}: {len(prompts[::every])} questions, {produced / steps:.3f} tokens/step")
    assert produced > steps
