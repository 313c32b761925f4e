"""Batched generation: many sequences advance one token a forward, each with its own length, dice and end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Stretch:
    """A part of a request: tokens fed as they are, then tokens sampled until one of `stop` or the limit.

    temperature 0 takes the most likely token; above it the `top_k` most likely share the probability.
    """

    fed: list[int]
    max_new_tokens: int
    stop: tuple[int, ...]
    temperature: float = 0.0
    top_k: int = 50
    tokens: list[int] = field(default_factory=list)  # what was sampled, a stop token included

    @property
    def done(self) -> bool:
        return len(self.tokens) >= self.max_new_tokens or (bool(self.tokens) and self.tokens[-1] in self.stop)

    @property
    def stopped(self) -> bool:
        """Whether the stretch ended at a stop token and not at its limit."""
        return bool(self.tokens) and self.tokens[-1] in self.stop


@dataclass
class Request:
    """A sequence made of stretches, one after another in the same context; `seed` fixes its dice."""

    key: int
    stretches: list[Stretch]
    seed: int


class _Sequence:
    """A request in progress: the token to feed next, and where in its stretches it is."""

    def __init__(self, request: Request):
        self.request = request
        self.rng = np.random.default_rng([request.seed, request.key])
        self.part = 0
        self.pending = list(request.stretches[0].fed)[::-1]

    @property
    def stretch(self) -> Stretch:
        return self.request.stretches[self.part]

    @property
    def samples(self) -> bool:
        """Whether the logits of the token just taken will be used."""
        return not self.pending

    def accept(self, ids: np.ndarray, values: np.ndarray) -> bool:
        """Take the next token from the k highest logits (k,), highest first; returns whether the request is over."""
        stretch = self.stretch
        token = choose(ids[: stretch.top_k], values[: stretch.top_k], stretch.temperature, self.rng)
        stretch.tokens.append(token)
        self.pending.append(token)
        if not stretch.done:
            return False
        if not stretch.stopped or self.part + 1 == len(self.request.stretches):
            return True  # a stretch cut off at its limit leaves nothing sensible to go on from
        self.part += 1
        self.pending = [*self.stretch.fed[::-1], token]
        return False


def choose(ids: np.ndarray, values: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """Pick one of `ids` by softmax(values / temperature); temperature 0 picks the first, the most likely."""
    if temperature == 0:
        return int(ids[0])
    weight = np.exp((values - values[0]).astype(np.float64) / temperature)
    cumulative = np.cumsum(weight)  # whose last value `weight.sum()` need not be, which adds in another order
    return int(ids[np.searchsorted(cumulative, rng.random() * cumulative[-1])])


def generate(base, requests: Iterable[Request], batch: int, slots: int) -> Iterator[Request]:
    """Yield each request once its stretches hold their tokens, in the order in which they end.

    `batch` sequences share a forward, each in a cache row of `slots` slots; the text of a request does not depend on
    the others when the base's rows do not. A request that could outgrow its row is a ValueError.
    """
    cache = base.new_cache(batch, slots)
    waiting = iter(requests)
    active: dict[int, _Sequence] = {}  # by cache row
    free = list(range(batch))
    while True:
        while free and (request := next(waiting, None)) is not None:
            _check(request, slots)
            row = free.pop()
            cache.clear(row)
            active[row] = _Sequence(request)
        if not active:
            return
        rows = sorted(active)  # a cache whose rows all take part, in their order, need not be gathered
        hidden = _step(base, cache, active, np.array(rows, np.int32))
        sampling = [(place, row) for place, row in enumerate(rows) if active[row].samples]
        if not sampling:
            continue
        k = max(s.top_k if s.temperature else 1 for s in (active[row].stretch for _, row in sampling))
        k = min(k, base.config.vocab_size)
        ids, values = base.top(hidden[[place for place, _ in sampling]], k)
        for (_, row), row_ids, row_values in zip(sampling, ids, values, strict=True):
            if active[row].accept(row_ids, row_values):
                yield active.pop(row).request
                free.append(row)


def _step(base, cache, active: dict[int, _Sequence], rows: np.ndarray):
    """Feed one token of each active sequence, those of the cache's `rows`; returns hidden (len(rows), d)."""
    ids = np.array([[active[row].pending.pop()] for row in rows], np.int32)
    length = cache.length[rows]  # (B,)
    see = np.arange(length.max() + 1) <= length[:, None]  # (B, S)
    if base.config.sliding_window:
        see &= length[:, None] - np.arange(length.max() + 1) < base.config.sliding_window
    hidden = base(ids, length[:, None], see[:, None], cache, rows)
    for row in rows:
        cache.advance(1, row)
    return hidden[:, 0]


def _check(request: Request, slots: int) -> None:
    need = sum(len(s.fed) + s.max_new_tokens for s in request.stretches)
    if not all(s.fed and s.max_new_tokens > 0 for s in request.stretches):
        raise ValueError(f"request {request.key} has a stretch without tokens to feed or to sample")
    if need > slots:
        raise ValueError(f"request {request.key} may need {need} slots, a cache row has {slots}")
