"""What a decoding step costs on this machine, by the number of rows: measured once, used to choose trees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medusa_core.tree import Tree

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


def measure(
    base, drafter, tree: Tree, past: int = 256, repeats: int = 15, rows: Sequence[int] = ROWS
) -> StepCost:
    """Time steps of each number of rows behind `past` tokens, and drafts along `tree`; medians of `repeats`.

    The numbers of rows take turns, so that a slow moment of the machine does not fall on one of them; those between
    are interpolated. A larger step never counts as cheaper than a smaller one.
    """
    from medusa_core import decode

    largest = max(rows)
    cache = base.new_cache(1, past + largest)
    hidden = decode.prefill(base, np.arange(past) % 1000 + 1, cache)
    shapes = {n: Tree.from_paths([(rank,) for rank in range(n - 1)]) for n in rows}
    criterion = decode.Greedy(base)
    seconds: dict[int, list[float]] = {n: [] for n in rows}
    drafts = []
    for repeat in range(repeats + 1):
        for n, shape in shapes.items():
            tokens = np.arange(n, dtype=np.int32) + 10
            for again in range(2):  # the first finds the caches as the other numbers of rows left them
                begin = time.perf_counter()
                decode.verify(base, shape, tokens, past, cache, criterion)
                if again and repeat:
                    seconds[n].append(time.perf_counter() - begin)
            if drafter is not None:
                begin = time.perf_counter()
                drafter.draft(hidden[0], 10, tree)
                if repeat:
                    drafts.append(time.perf_counter() - begin)
    medians = np.maximum.accumulate([np.median(seconds[n]) for n in rows])
    steps = np.interp(np.arange(1, largest + 1), rows, medians)
    return StepCost(tuple(steps.tolist()), float(np.median(drafts)) if drafts else 0.0)
