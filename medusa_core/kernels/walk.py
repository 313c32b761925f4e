"""From "who may see whom" to the walk of each row: a contiguous run of slots, then single slots in order."""

from __future__ import annotations

import numpy as np


def walks(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Turn a mask (n, S) into start (n,), end (n,), count (n,) and extra (n, D) int32.

    Row i sees the slots [start, end) and then extra[i, :count[i]], increasing; unused places of `extra` hold -1.
    Raises ValueError for a row that sees nothing.
    """
    check_sight(mask)
    n, slots = mask.shape
    start = mask.argmax(axis=1)
    place = np.arange(slots)
    closed = ~mask & (place >= start[:, None])
    end = np.where(closed.any(axis=1), closed.argmax(axis=1), slots)
    rest = mask & (place >= end[:, None])
    count = rest.sum(axis=1)
    extra = np.full((n, max(1, count.max(initial=0))), -1, np.int32)
    row, slot = np.nonzero(rest)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    extra[row, np.arange(len(row)) - first[row]] = slot
    return start.astype(np.int32), end.astype(np.int32), count.astype(np.int32), extra


def check_sight(mask: np.ndarray) -> None:
    """Raise ValueError unless every row of a mask (..., S) sees something: no softmax is without terms."""
    if not mask.any(axis=-1).all():
        raise ValueError("a row of the mask sees nothing, not even itself")
