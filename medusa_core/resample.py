"""How sure a speed-up is: what it would have been with other questions of the same kind (bootstrap, Efron 1979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 2000
SHARE = 0.95  # of the draws that an interval holds


def interval(samples: Sequence[Mapping], plain: Sequence[Mapping]) -> tuple[float, float]:
    """Where 95 % of the speed-ups lie when the questions are drawn anew from those that were asked.

    samples, plain: {"tokens", "seconds"} of the same questions, in the same order; both sides of a quotient take the
    same questions. Raises ValueError where they are not as many.
    """
    return _middle(_speedups(samples, plain, _draws(samples, plain)))


def difference(
    samples: Sequence[Mapping],
    plain: Sequence[Mapping],
    others: Sequence[Mapping],
    others_plain: Sequence[Mapping],
) -> tuple[float, float]:
    """As `interval`, for the speed-up of `samples` less that of `others`, all of the same questions."""
    drawn = _draws(samples, plain, others, others_plain)
    return _middle(_speedups(samples, plain, drawn) - _speedups(others, others_plain, drawn))


def _draws(samples: Sequence, *more: Sequence) -> np.ndarray:
    """Places (DRAWS, n) of questions, the same whenever there are as many."""
    count = len(samples)
    if not count or any(len(each) != count for each in more):
        raise ValueError(f"{[count, *map(len, more)]} answers cannot be compared question by question")
    return np.random.default_rng(0).integers(count, size=(DRAWS, count))


def _speedups(samples: Sequence[Mapping], plain: Sequence[Mapping], drawn: np.ndarray) -> np.ndarray:
    return _rate(samples, drawn) / _rate(plain, drawn)


def _rate(samples: Sequence[Mapping], drawn: np.ndarray) -> np.ndarray:
    tokens, seconds = (np.array([each[key] for each in samples], float) for key in ("tokens", "seconds"))
    return tokens[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)
