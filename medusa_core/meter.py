"""Timing steps on this machine, by their number of rows: the Rounds whose cost trees are chosen by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
from tqdm import tqdm

from medusa_core import decode
from medusa_core.cost import Rounds
from medusa_core.tree import Tree, search

UNTIMED = 3  # first steps of a size, in which Jittor may compile operators


def any_trees(depth: int, sizes: Iterable[int]) -> dict[int, Tree]:
    """A tree of each size, the root counted, for so many heads; of any guesses, which do not change what it costs."""
    falling = [0.5 / (rank + 1) for rank in range(max(sizes))]
    guesses = search([falling] * depth, max(sizes) - 1).choices
    return {size: Tree.from_paths(guesses[: size - 1]) for size in sizes}


def filler(base, past: int) -> np.ndarray:
    """Token ids (past,) that stand before what is timed; which ones does not change what it costs."""
    return np.arange(past) % min(1000, base.config.vocab_size - 1) + 1


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
        self._hidden = decode.prefill(base, filler(base, past), self._cache)
        self._criterion = decode.Greedy(base)
        self._steps: dict[int, list[float]] = {n: [] for n in self._trees}
        self._drafts: list[float] = []
        self._order = np.random.default_rng(0)
        for n, tree in self._trees.items():
            for _ in range(UNTIMED):
                self._step(tree, n)

    def round(self, burst: float = 0.1) -> None:
        """Time every size once: the median of the second half of so many seconds.

        A processor that has just worked through 64 rows is slow for a while.
        """
        drafts = []
        for n in self._order.permutation(list(self._trees)).tolist():
            tree = self._trees[n]
            begin, timed = time.perf_counter(), []
            while time.perf_counter() < begin + burst or len(timed) < 2:
                timed.append(self._step(tree, n))
            drafted, step = np.median(timed[len(timed) // 2 :], axis=0).tolist()
            self._steps[n].append(step)
            drafts += [drafted] if n > 1 else []
        self._drafts.append(float(np.mean(drafts)) if drafts else 0.0)

    def rounds(self) -> Rounds:
        """What the rounds so far have timed."""
        return Rounds(tuple(self._trees), np.array(list(self._steps.values())).T, np.array(self._drafts))

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
    base,
    drafter,
    trees: Mapping[int, Tree],
    past: int = 256,
    rounds: int = 30,
    burst: float = 0.1,
    progress: bool = False,
) -> Rounds:
    """What a Meter finds in so many rounds of bursts of so many seconds."""
    meter = Meter(base, drafter, trees, past)
    for _ in tqdm(range(rounds), desc="timing steps", disable=not progress):
        meter.round(burst)
    return meter.rounds()
