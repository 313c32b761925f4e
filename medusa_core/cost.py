"""What a decoding step costs on a machine, by the number of rows: used to choose trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROWS = (*range(1, 17), 20, 24, 32, 40, 48, 64)


@dataclass(frozen=True)
class StepCost:
    """step_seconds[n - 1]: one step of n rows, from the tree's mask to the accepted path; draft_seconds: one draft."""

    step_seconds: tuple[float, ...]
    draft_seconds: float = 0.0

    @property
    def rows(self) -> int:
        """The largest number of rows whose cost is known."""
        return len(self.step_seconds)

    def overhead(self, rows: int, drafted: bool = True) -> float:
        """Seconds of a step of `rows` rows, with its draft where `drafted`, over those of plain decoding."""
        return (self.step_seconds[rows - 1] + drafted * self.draft_seconds) / self.step_seconds[0]

    @cached_property
    def least_increase(self) -> tuple[float, ...]:
        """What each further row adds to the overhead, at least, from 1, 2, ... rows on."""
        over = [self.overhead(rows) for rows in range(1, self.rows + 1)]
        slopes = [
            min((more - own) / beyond for beyond, more in enumerate(over[rows:], 1))
            for rows, own in enumerate(over[:-1], 1)
        ]
        return *slopes, float("inf")


@dataclass(frozen=True)
class Rounds:
    """Steps of several sizes, timed in rounds on a machine that changes: one of each size a round.

    rows: (sizes,), ascending from 1; seconds: (rounds, sizes), without the draft; drafts: (rounds,), 0.0 without one.
    """

    rows: tuple[int, ...]
    seconds: np.ndarray
    drafts: np.ndarray

    def cost(self) -> StepCost:
        """Means over the rounds; sizes between are interpolated, and a larger one never counts as cheaper.

        A tenth of the rounds is left out at either end: one in which the machine stood still would count for many.
        """
        means = never_falling(_mean_within(self.seconds).tolist())
        seconds = np.interp(np.arange(1, self.rows[-1] + 1), self.rows, means)
        return StepCost(tuple(seconds.tolist()), float(_mean_within(self.drafts)))

    def overheads(self, drafted: bool = True) -> np.ndarray:
        """Each step, with its round's draft where `drafted`, over the plain step of its round: (rounds, sizes)."""
        drafts = drafted * self.drafts[:, None] * (np.array(self.rows) > 1)  # (rounds, sizes)
        return (self.seconds + drafts) / self.seconds[:, :1]

    def seconds_of_a_row(self) -> float:
        """What one more row costs where arithmetic is all that counts: between the two largest sizes, median."""
        return float(np.median((self.seconds[:, -1] - self.seconds[:, -2]) / (self.rows[-1] - self.rows[-2])))

    def saved(self) -> dict:
        """As a result file holds it."""
        return {"rows": list(self.rows), "seconds": self.seconds.tolist(), "drafts": self.drafts.tolist()}

    @classmethod
    def of(cls, saved: Mapping) -> Rounds:
        """What `saved` returned."""
        return cls(tuple(saved["rows"]), np.array(saved["seconds"]), np.array(saved["drafts"]))


def _mean_within(values: np.ndarray) -> np.ndarray:
    """Means over the first axis without a tenth of the values at either end."""
    cut = len(values) // 10
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0)


def never_falling(values: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` by least squares (pool adjacent violators).

    A running maximum would let one slow moment of a small size raise all the larger ones.
    """
    pools: list[list[float]] = []  # [mean, how many]
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, m), (high, n) = pools[-1], pools[-2]
            pools[-2:] = [[(low * m + high * n) / (m + n), m + n]]
    return [mean for mean, count in pools for _ in range(count)]
