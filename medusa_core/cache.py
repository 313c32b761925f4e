"""Preallocated key/value caches: forwards write new rows at the end, `commit` keeps the accepted ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class CacheFull(ValueError):
    """More rows than the cache has slots left for."""


class Cache:
    """Lengths and slot bookkeeping of a cache for `batch` sequences of at most `slots` rows; storage is a subclass's.

    The rows [0, length[b]) of sequence b are committed; a forward writes its T rows behind them without advancing.
    """

    def __init__(self, batch: int, slots: int):
        self.slots = slots
        self.length = np.zeros(batch, np.int32)

    def reserve(self, tokens: int, rows: np.ndarray) -> None:
        """Raise CacheFull unless `tokens` more rows fit behind each of the sequences `rows`."""
        longest = int(self.length[rows].max())
        if longest + tokens > self.slots:
            raise CacheFull(
                f"{longest} rows in the cache and {tokens} more do not fit in {self.slots} slots: "
                "make the cache longer or the prompt or max_new_tokens shorter"
            )

    def advance(self, tokens: int, row: int = 0) -> None:
        """Keep the first `tokens` of the rows just written to sequence `row`."""
        self.length[row] += tokens

    def commit(self, path: Sequence[int], row: int = 0) -> None:
        """Keep the rows just written at offsets `path` (increasing), moved together, and drop the others."""
        length = int(self.length[row])
        moves = [
            (row, length + source, length + place) for place, source in enumerate(path) if source != place
        ]
        if moves:
            self._move(np.asarray(moves, np.int32))
        self.length[row] = length + len(path)

    def clear(self, row: int = 0) -> None:
        """Forget sequence `row`; its slots are written over."""
        self.length[row] = 0

    def _move(self, moves: np.ndarray) -> None:
        """Copy slots: moves (m, 3) of sequence, from, to, in order."""
        raise TypeError("Cache holds no tensors; use base.new_cache()")
