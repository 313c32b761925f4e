"""Batched generation: a request's text depends on nothing but the request."""

import numpy as np
import pytest
from tiny_model import tiny

from medusa_core import decode
from medusa_core.batch import Request, Stretch, choose, generate
from medusa_core.kernels.model import KernelModel
from medusa_core.llama import Llama


@pytest.fixture(scope="module")
def base():
    return KernelModel(*tiny())


def requests(temperature):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 150, length).tolist() for length in (1, 9, 4, 20, 7, 2, 13)]
    return [Request(key, [Stretch(ids, 25, (159,), temperature)], seed=1) for key, ids in enumerate(prompts)]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_text_does_not_depend_on_the_batch(base, temperature):
    texts = [
        {r.key: r.stretches[0].tokens for r in generate(base, requests(temperature), batch, 64)}
        for batch in (1, 3, 8)
    ]
    assert texts[0].keys() == set(range(7))
    assert texts[0] == texts[1] == texts[2]


def said(base, *requests) -> list[list[int]]:
    """What each request says when all of them share the forwards."""
    tokens = {r.key: r.stretches[0].tokens for r in generate(base, requests, len(requests), 64)}
    return [tokens[request.key] for request in requests]


def test_seed_and_number_of_a_request_decide_its_dice(base):
    first, numbered, seeded = (
        said(base, Request(key, [Stretch([3, 4, 5], 20, (), temperature=1.0)], seed))
        for key, seed in ((0, 0), (1, 0), (0, 1))
    )
    assert first != numbered and first != seeded


def test_a_request_draws_from_its_own_best_tokens_beside_one_that_draws_from_more(base):
    settings = ({"top_k": 1, "temperature": 1.0}, {"top_k": 50, "temperature": 1.0}, {"temperature": 0.0})
    requests = [Request(key, [Stretch([3, 4, 5], 20, (), **s)], 0) for key, s in enumerate(settings)]
    narrow, wide, greedy = said(base, *requests)
    assert narrow == greedy != wide


@pytest.mark.parametrize("window", [None, 9])
def test_greedy_text_is_that_of_plain_decoding(base, window):
    base = base if window is None else KernelModel(*tiny(sliding_window=window, model_type="mistral"))
    config = base.config
    for request in generate(base, requests(0.0), 4, 64):
        (stretch,) = request.stretches
        plain = [t for step in decode.plain(base, stretch.fed, 25) for t in step.tokens]
        assert stretch.tokens == plain
        assert len(plain) == 25 or plain[-1] in config.eos_token_ids


def test_texts_on_plain_ops_are_those_of_the_kernels():
    plain, kernel = (model(*tiny(), "float32") for model in (Llama, KernelModel))
    assert said(plain, *requests(0.0)) == said(kernel, *requests(0.0))


def test_stretches_follow_one_another_in_one_context(base):
    (whole,) = generate(base, [Request(0, [Stretch([3, 4, 5], 12, (159,))], 0)], 1, 64)
    text = whole.stretches[0].tokens
    stop = text[5]
    cut = text.index(stop)
    (parts,) = generate(
        base, [Request(0, [Stretch([3, 4, 5], 12, (stop,)), Stretch([8, 9], 6, (159,))], 0)], 1, 64
    )
    assert parts.stretches[0].tokens == text[: cut + 1]
    (after,) = generate(base, [Request(0, [Stretch([3, 4, 5, *text[: cut + 1], 8, 9], 6, (159,))], 0)], 1, 64)
    assert parts.stretches[1].tokens == after.stretches[0].tokens


def test_a_stretch_cut_at_its_limit_ends_the_request(base):
    (request,) = generate(base, [Request(0, [Stretch([3], 4, ()), Stretch([8], 6, (159,))], 0)], 1, 64)
    assert len(request.stretches[0].tokens) == 4 and request.stretches[1].tokens == []


def test_choose_samples_in_proportion():
    rng = np.random.default_rng(0)
    ids, values = np.array([7, 8, 9]), np.log(np.array([0.6, 0.3, 0.1]))
    drawn = [choose(ids, values, 1.0, rng) for _ in range(4000)]
    assert [round(drawn.count(i) / 4000, 1) for i in (7, 8, 9)] == [0.6, 0.3, 0.1]
    assert choose(ids, values, 0.0, rng) == 7


def test_a_request_that_could_outgrow_its_row_is_refused(base):
    with pytest.raises(ValueError, match="request 0 may need 70 slots"):
        next(generate(base, [Request(0, [Stretch([1] * 20, 50, ())], 0)], 1, 64))
