"""What a decoding step costs on this machine, by the number of rows: measured once, used to choose trees."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    base, drafter, trees: Mapping[int, Tree], past: int = 256, repeats: int = 6, burst: float = 0.5
) -> StepCost:
    """Time steps of each of `trees`, by their number of rows, behind `past` tokens; medians over repeats.

    As in decoding, every step of more than one row follows a draft and ends with a commit. The sizes take turns, in
    bursts of so many seconds of which the second half counts: a processor that has just worked through 64 rows is
    slow for a while. Those between are interpolated, and a larger step never counts as cheaper than a smaller one.
    """
    from medusa_core import decode

    rows = sorted(trees)
    cache = base.new_cache(1, past + rows[-1])
    hidden = decode.prefill(base, np.arange(past) % 1000 + 1, cache)
    criterion = decode.Greedy(base)
    steps: dict[int, list[float]] = {n: [] for n in rows}
    drafts: list[float] = []
    for n in (n for _ in range(repeats) for n in rows):
        tokens = np.arange(n, dtype=np.int32) + 10
        begin, found, drafted = time.perf_counter(), [], []
        while (start := time.perf_counter()) < begin + burst or len(found) < 2:
            if drafter is not None and n > 1:
                drafter.draft(hidden[0], 10, trees[n])
                drafted.append(time.perf_counter() - start)
            start = time.perf_counter()
            out, _ = decode.verify(base, trees[n], tokens, past, cache, criterion)
            cache.commit((0,))
            cache.length[0] = past
            hidden = out[:1]
            found.append(time.perf_counter() - start)
        steps[n].append(float(np.median(found[len(found) // 2 :])))
        drafts += drafted[len(drafted) // 2 :]
    medians = np.maximum.accumulate([np.median(steps[n]) for n in rows])
    seconds = np.interp(np.arange(1, rows[-1] + 1), rows, medians)
    return StepCost(tuple(seconds.tolist()), float(np.median(drafts)) if drafts else 0.0)
