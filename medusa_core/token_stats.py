"""What a set of answers holds: how often each token occurs, what a draft vocabulary covers, which answers loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def frequencies(answers: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
    """How often each token id occurs in the answers, (vocab_size,) int64."""
    answers = list(answers)
    ids = np.concatenate(answers) if answers else np.zeros(0, np.int64)
    return np.bincount(ids, minlength=vocab_size)


def coverage(chosen_by: np.ndarray, counted_on: np.ndarray, sizes: Iterable[int]) -> np.ndarray:
    """Share of the tokens of `counted_on` that lie in the draft vocabulary of each size, (len(sizes),).

    chosen_by, counted_on (V,): frequencies. A draft vocabulary of size v is the v most frequent ids of
    `chosen_by`, equally frequent ones from the lowest id (FR-Spec). Raises ValueError for a size outside 1 .. V.
    """
    sizes = np.asarray(list(sizes))
    if sizes.min() < 1 or sizes.max() > len(chosen_by):
        raise ValueError(f"draft vocabulary sizes {sizes.tolist()} must lie in 1 .. {len(chosen_by)}")
    order = np.argsort(-chosen_by, kind="stable")
    return np.cumsum(counted_on[order])[sizes - 1] / counted_on.sum()


def loop_period(ids: Sequence[int], repeats: int = 4, least: int = 16, longest: int = 64) -> int:
    """The shortest stretch of tokens that an answer ends by repeating, or 0 when it does not loop.

    A loop repeats its stretch at least `repeats` times and is `least` tokens long; stretches up to `longest`.
    """
    ids = np.asarray(ids)
    for period in range(1, longest + 1):
        span = max(repeats * period, least)
        if span > len(ids):
            continue
        tail = ids[-span:]
        if np.array_equal(tail[period:], tail[:-period]):
            return period
    return 0
