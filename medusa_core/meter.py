"""Timing steps on this machine, by their number of rows: the StepCost that trees are chosen by."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from medusa_core import decode
from medusa_core.cost import StepCost
from medusa_core.tree import Tree


class Meter:
    """Times steps of each of `trees`, by their number of rows, behind `past` tokens, in rounds.

    As in decoding, every step of more than one row follows a draft and ends with a commit. A shared machine changes
    within seconds and for minutes: many short rounds, each in another order, let every size meet it in all its moods,
    and what shall predict other work is timed in turns with it.
    """

    def __init__(self, base, drafter, trees: Mapping[int, Tree], past: int = 256):
        self._base, self._drafter, self._past = base, drafter, past
        self._trees = dict(sorted(trees.items()))
        self._cache = base.new_cache(1, past + max(trees))
        self._hidden = decode.prefill(base, np.arange(past) % 1000 + 1, self._cache)
        self._criterion = decode.Greedy(base)
        self._steps: dict[int, list[float]] = {n: [] for n in self._trees}
        self._drafts: list[float] = []
        self._order = np.random.default_rng(0)

    def round(self, burst: float = 0.1) -> None:
        """Time every size once: the median of the second half of so many seconds.

        A processor that has just worked through 64 rows is slow for a while.
        """
        for n in self._order.permutation(list(self._trees)).tolist():
            tree = self._trees[n]
            begin, steps, drafts = time.perf_counter(), [], []
            while time.perf_counter() < begin + burst or len(steps) < 2:
                drafted, step = self._step(tree, n)
                steps.append(step)
                drafts += [drafted] if drafted else []
            self._steps[n].append(float(np.median(steps[len(steps) // 2 :])))
            if drafts:
                self._drafts.append(float(np.median(drafts[len(drafts) // 2 :])))

    def cost(self) -> StepCost:
        """Means over the rounds; sizes between are interpolated, and a larger one never counts as cheaper."""
        means = never_falling([float(np.mean(found)) for found in self._steps.values()])
        sizes = list(self._trees)
        seconds = np.interp(np.arange(1, sizes[-1] + 1), sizes, means)
        return StepCost(tuple(seconds.tolist()), float(np.mean(self._drafts)) if self._drafts else 0.0)

    def _step(self, tree: Tree, n: int) -> tuple[float, float]:
        """Seconds of the draft, 0.0 without one, and of the rest."""
        tokens, start, drafted = np.arange(n, dtype=np.int32) + 10, time.perf_counter(), 0.0
        if self._drafter is not None and n > 1:
            self._drafter.draft(self._hidden[0], 10, tree)
            drafted = time.perf_counter() - start
            start = time.perf_counter()
        out, _ = decode.verify(self._base, tree, tokens, self._past, self._cache, self._criterion)
        self._cache.commit((0,))
        self._cache.length[0] = self._past
        self._hidden = out[:1]
        return drafted, time.perf_counter() - start


def measure(
    base, drafter, trees: Mapping[int, Tree], past: int = 256, rounds: int = 30, burst: float = 0.1
) -> StepCost:
    """What a Meter finds in so many rounds of bursts of so many seconds."""
    meter = Meter(base, drafter, trees, past)
    for _ in range(rounds):
        meter.round(burst)
    return meter.cost()


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
