"""Windows of a token set: what a base model is fed while it learns, always in one shape.

A window is `length` rows. Sequences are cut to that length, and short ones share a window: each numbers its
positions from 0 and sees itself only. As in hidden.py, rows that an answer token is chosen from have targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medusa_core import masks
from medusa_core.data import DataError
from medusa_core.losses import NO_TARGET
from medusa_core.token_set import TokenSet


@dataclass(frozen=True)
class WindowBatch:
    """B windows of T rows; N = B T rows together, K tokens are guessed."""

    ids: np.ndarray  # (B, T) int32
    positions: np.ndarray  # (B, T) int32
    mask: np.ndarray  # (B, T, T) bool
    tokens: np.ndarray  # (K + 1, N) int32: the next token, then those to guess; NO_TARGET where there is none
    teacher_row: np.ndarray  # (K, N) int32: the row that each guessed token was chosen from


@dataclass(frozen=True)
class Windows:
    """A token set laid out in W windows of T rows."""

    ids: np.ndarray  # (W, T) int32, 0 in padding
    positions: np.ndarray  # (W, T) int32, 0 in padding
    target: np.ndarray  # (W, T) int32 the answer token chosen from a row, 0 elsewhere
    end: np.ndarray  # (W, T) int32 the row after the last of this answer; 0 where no answer token is chosen

    @property
    def length(self) -> int:
        """T, rows of a window."""
        return self.ids.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(
        self, numbers: np.ndarray, heads: int, size: int, sliding_window: int | None = None
    ) -> WindowBatch:
        """Return `size` windows: those numbered `numbers`, then repetitions without targets; heads is K."""
        chosen = np.resize(numbers, size)
        length = self.length
        place = np.arange(length)
        ahead = place + np.arange(heads + 1)[:, None]  # (K + 1, T)
        inside = ahead[:, None] < self.end[chosen]  # (K + 1, B, T)
        following = self.target[chosen][:, np.minimum(ahead, length - 1)].swapaxes(0, 1)  # (K + 1, B, T)
        tokens = np.where(inside, following, np.int32(NO_TARGET))
        tokens[:, len(numbers) :] = NO_TARGET
        row = np.arange(size * length) + np.arange(1, heads + 1)[:, None]
        positions = self.positions[chosen]
        own = place >= (place - positions)[:, :, None]  # from the first row of the query's sequence on
        return WindowBatch(
            ids=self.ids[chosen],
            positions=positions,
            mask=masks.causal(length, window=sliding_window) & own,
            tokens=tokens.reshape(heads + 1, -1),
            teacher_row=np.minimum(row, size * length - 1).astype(np.int32),
        )


def cut(tokens: TokenSet, length: int) -> Windows:
    """Lay out a token set in windows of `length` rows, as few as best-fit packing finds.

    Answers are cut at the end of a window; those whose prompt is longer than it are left out. Raises DataError when
    none is left.
    """
    kept = [
        (np.concatenate([prompt, answer])[: length + 1].astype(np.int32), len(prompt) - 1)
        for prompt, answer in zip(tokens.prompt_ids, tokens.answer_ids, strict=True)
        if 0 < len(prompt) <= length and len(answer)
    ]
    if not kept:
        raise DataError(f"no prompt of the {len(tokens)} fits into a window of {length} tokens")
    bins = _pack([len(ids) - 1 for ids, _ in kept], length)
    shape = (len(bins), length)
    windows = Windows(*(np.zeros(shape, np.int32) for _ in range(4)))
    for number, members in enumerate(bins):
        begin = 0
        for member in members:
            ids, first = kept[member]
            stop = begin + len(ids) - 1
            windows.ids[number, begin:stop] = ids[:-1]
            windows.positions[number, begin:stop] = np.arange(len(ids) - 1)
            windows.target[number, begin + first : stop] = ids[first + 1 :]
            windows.end[number, begin + first : stop] = stop
            begin = stop
    return windows


def _pack(lengths: list[int], size: int) -> list[list[int]]:
    """Put items into bins of `size`, the longest first, each where it leaves the least room."""
    bins: list[list[int]] = []
    with_room: list[list[int]] = [
        [] for _ in range(size + 1)
    ]  # numbers of the bins by the room they have left
    for item in np.argsort(-np.asarray(lengths), kind="stable"):
        need = lengths[item]
        room = next((room for room in range(need, size + 1) if with_room[room]), size)
        number = with_room[room].pop() if with_room[room] else len(bins)
        if number == len(bins):
            bins.append([])
        bins[number].append(int(item))
        with_room[room - need].append(number)
    return bins
