"""Corpus drafts: what the model usually says after its last tokens, counted over answers that it gave before.

The global half of SuffixDecoding (2411.04975), as an n-gram model with back-off: no weights are read, so a guess costs
a few look-ups; and it knows the token just chosen, which heads on the hidden state before it do not.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medusa_core import files, runtime
from medusa_core.token_set import TokenSet

LONGEST = 4  # tokens of a context
KEPT = 4  # likeliest next tokens of a context that are kept
LEAST = 2  # occurrences of a context that is kept
PRIOR = 8.0  # what the context one token shorter says counts like so many occurrences
_STEP = 0x9E3779B97F4A7C15  # odd, so that a key of four tokens spreads over 64 bits
_MASK = (1 << 64) - 1
_POWERS = tuple(pow(_STEP, place + 1, 1 << 64) for place in range(LONGEST))


class CorpusError(ValueError):
    """Counts that are damaged, or answers that nothing can be counted in."""


class Corpus:
    """The likeliest next tokens of every frequent context of up to LONGEST tokens.

    keys (m,) uint64: the contexts, as `next` numbers them; tokens (m, KEPT) int32, best first and padded with -1, and
    shares (m, KEPT) float32, how often each comes next.
    """

    def __init__(self, keys: np.ndarray, tokens: np.ndarray, shares: np.ndarray):
        self.keys, self.tokens, self.shares = keys, tokens, shares
        self._row = dict(zip(keys.tolist(), range(len(keys))))

    def next(self, tail: Sequence[int]) -> dict[int, float]:
        """Likely tokens after `tail` and their probabilities, by the longest context that is known; {} if none is."""
        key, keys = 0, []
        for token, power in zip(reversed(tail), _POWERS):
            key = (key + (token + 1) * power) & _MASK
            keys.append(key)
        for key in reversed(keys):
            row = self._row.get(key)
            if row is not None:
                found = zip(self.tokens[row].tolist(), self.shares[row].tolist())
                return {token: share for token, share in found if token >= 0}
        return {}


def count(answers: Iterable[np.ndarray]) -> Corpus:
    """Count the n-grams of token sequences; raises CorpusError where there is not one pair of tokens.

    The share of token t after context c is (count(c t) + PRIOR * share of t after c without its first token) /
    (count(c) + PRIOR): interpolation with a Dirichlet prior (MacKay and Peto, 1995).
    """
    ends = [np.append(np.asarray(answer, np.int64), -1) for answer in answers]
    text = np.concatenate(ends) if ends else np.empty(0, np.int64)
    tokens = text[text >= 0]
    if not any(len(end) > 2 for end in ends):
        raise CorpusError("n-grams need an answer of at least two tokens")
    inside = text[1:] >= 0  # the next token, and further down the whole context, are of one answer
    lower, kept = np.bincount(tokens) / len(tokens), []
    key, shares_of = np.zeros(len(text), np.uint64), None
    for length in range(1, LONGEST + 1):
        # key[i]: of the `length` tokens that end at place i
        start = text[: len(text) - length + 1]
        key[length - 1 :] += (start + 1).astype(np.uint64) * np.uint64(_POWERS[length - 1])
        inside[length - 1 :] &= start[: len(inside) - length + 1] >= 0
        inside[: length - 1] = False
        place = np.flatnonzero(inside)
        if not len(place):
            break  # no answer is longer
        below = lower[text[place + 1]] if shares_of is None else shares_of[place]
        shares, table = _table(key[place], text[place + 1], below)
        shares_of = np.zeros(len(text))
        shares_of[place] = shares
        kept.append(table)
    return Corpus(*(np.concatenate(column) for column in zip(*kept)))


def _table(key: np.ndarray, token: np.ndarray, below: np.ndarray):
    """Shares (n,) of n occurrences of (context, next token), and the rows of the contexts that are kept."""
    order = np.lexsort((token, key))
    k, t = key[order], token[order]
    new_context = np.append(True, k[1:] != k[:-1])
    new_pair = new_context | np.append(True, t[1:] != t[:-1])
    pair, context = np.cumsum(new_pair) - 1, np.cumsum(new_context) - 1
    first = np.flatnonzero(new_pair)  # occurrence that each pair begins with
    times, seen = np.bincount(pair), np.bincount(context)
    context = context[first]
    share = (times + PRIOR * below[order][first]) / (seen[context] + PRIOR)
    shares = np.empty(len(key))
    shares[order] = share[pair]

    best = np.lexsort((-share, context))
    begin = np.flatnonzero(np.append(True, context[1:] != context[:-1]))
    rank = np.arange(len(context)) - begin[context]
    chosen = (rank < KEPT) & (seen[context] >= LEAST)
    rows, row = np.unique(context[chosen], return_inverse=True)
    tokens = np.full((len(rows), KEPT), -1, np.int32)
    kept = np.zeros((len(rows), KEPT), np.float32)
    tokens[row, rank[chosen]] = t[first][best[chosen]]
    kept[row, rank[chosen]] = share[best[chosen]]
    return shares, (k[first][begin[rows]], tokens, kept)


def of_answers(tokens: TokenSet, root: Path | None = None) -> Corpus:
    """The corpus of a token set's "train" answers, read from root (default: artifacts/cache) once it was counted."""
    answers = tokens.select("train").answer_ids
    settings = [LONGEST, KEPT, LEAST, PRIOR, *map(len, answers)]
    digest = hashlib.sha256(np.asarray(settings, "<f8").tobytes())
    for answer in answers:
        digest.update(np.asarray(answer, "<i4").tobytes())
    path = (root or runtime.ARTIFACTS / "cache") / f"ngrams-{digest.hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            with np.load(path) as arrays:
                return Corpus(*(arrays[name] for name in ("keys", "tokens", "shares")))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CorpusError(f"{path}: damaged ({error}); delete it and it is counted again") from None
    found = count(answers)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, keys=found.keys, tokens=found.tokens, shares=found.shares)
    return found
