"""The corpus: n-gram counts with back-off, the same from the disk, and clear about damage."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from fake_base import token_set

from medusa_core.heads import corpus
from medusa_core.heads.corpus import KEPT, LEAST, LONGEST, PRIOR, CorpusError


def answers(rows, length, tokens, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, tokens, length).astype(np.int32) for _ in range(rows)]


def share(texts, context, token):
    """The docstring's formula, one token at a time."""
    if not context:
        everything = np.concatenate(texts).tolist()
        return everything.count(token) / len(everything)
    n = len(context)
    after = Counter(
        int(text[i + n]) for text in texts for i in range(len(text) - n) if tuple(text[i : i + n]) == context
    )
    return (after[token] + PRIOR * share(texts, context[1:], token)) / (after.total() + PRIOR)


def test_shares_are_the_interpolated_counts_of_the_longest_known_context():
    texts = answers(6, 60, 5)
    found = corpus.count(texts)
    for tail in ([0], [1, 2], [3, 0, 1], [2, 2, 0, 4], [9, 9, 4, 0, 1]):
        known = [tail[-n:] for n in range(1, LONGEST + 1) if n <= len(tail)]
        frequent = [
            context
            for context in known
            if sum(
                tuple(text[i : i + len(context)]) == tuple(context)
                for text in texts
                for i in range(len(text) - len(context))
            )
            >= LEAST
        ]
        expected = {token: share(texts, tuple(frequent[-1]), token) for token in range(5)}
        after = found.next(tail)
        assert list(after.values()) == sorted(after.values(), reverse=True) and len(after) <= KEPT
        for token, value in after.items():
            assert value == pytest.approx(expected[token], rel=1e-5)
        left_out = [expected[token] for token in expected if token not in after]
        if len(after) == KEPT:
            assert max(left_out, default=0) <= min(after.values()) + 1e-6


def test_answers_are_not_run_together():
    found = corpus.count([np.array([1, 2, 7]), np.array([3, 1, 2])] * 3)
    assert 3 not in found.next([7]) and found.next([7]) == {}
    assert set(found.next([1, 2])) == {7}


def test_unknown_tokens_propose_nothing():
    found = corpus.count(answers(3, 30, 4))
    assert found.next([]) == {} and found.next([77]) == {}


def test_large_token_numbers_keep_their_contexts_apart():
    texts = [np.array([150_000, 5, 6, 151_000, 5, 7] * 3)]
    found = corpus.count(texts)
    assert next(iter(found.next([150_000, 5]))) == 6 and next(iter(found.next([151_000, 5]))) == 7


@pytest.mark.parametrize("texts", [[], [np.array([3]), np.array([4])]])
def test_too_little_text_is_refused(texts):
    with pytest.raises(CorpusError, match="an answer of at least two tokens"):
        corpus.count(texts)


def test_a_token_sets_corpus_is_counted_once_from_its_training_answers(tmp_path, monkeypatch):
    tokens = token_set(40)
    first = corpus.of_answers(tokens, tmp_path)
    train = corpus.count(tokens.select("train").answer_ids)
    assert np.array_equal(first.keys, train.keys) and np.array_equal(first.tokens, train.tokens)
    monkeypatch.setattr(corpus, "count", None)
    again = corpus.of_answers(tokens, tmp_path)
    assert np.array_equal(first.shares, again.shares)
    tail = tokens.select("train").answer_ids[0][:3].tolist()
    assert first.next(tail) == again.next(tail)
    monkeypatch.undo()
    for part in (slice(-1), slice(None, None, -1)):  # a token fewer; as many, in another order
        other = dataclasses.replace(tokens, answer_ids=[answer[part] for answer in tokens.answer_ids])
        corpus.of_answers(other, tmp_path)
    assert len(list(tmp_path.glob("ngrams-*.npz"))) == 3


def test_damaged_counts_are_refused_by_file(tmp_path):
    corpus.of_answers(token_set(20), tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorpusError, match=str(path)):
        corpus.of_answers(token_set(20), tmp_path)
