"""Where a decoding step's time goes: draft, each stage of the forward, LM head, and what lies outside the kernels."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from medusa_core import decode, masks, meter
from medusa_core.tree import Tree

OUTSIDE = "Python and Jittor"


def profile_step(base, drafter, tree: Tree, past: int = 256, repeats: int = 30) -> dict[str, float]:
    """Median seconds by part of a step that fills and verifies `tree` behind `past` tokens; the last part is OUTSIDE.

    Without a drafter the tree's tokens are given.
    """
    cache = base.new_cache(1, past + tree.size)
    hidden = decode.prefill(base, meter.filler(base, past), cache)
    tokens = np.arange(tree.size, dtype=np.int32) + 10
    criterion = decode.Greedy(base)
    rounds = []
    for _ in range(repeats + 1):
        draft = _seconds(lambda: drafter.draft(hidden[0], 10, tree)) if drafter is not None else 0.0
        whole = _seconds(lambda: decode.verify(base, tree, tokens, past, cache, criterion))
        stages = base.stage_seconds(
            tokens,
            masks.positions(tree, past),
            masks.tree_mask(tree, past, base.config.sliding_window),
            cache,
        )
        read = partial(base.top, decode.verify(base, tree, tokens, past, cache, criterion)[0], 1)
        head = _seconds(read)
        rounds.append(
            {"draft": draft, **stages, "LM head": head, OUTSIDE: whole - sum(stages.values()) - head}
        )
    return {part: float(np.median([each[part] for each in rounds[1:]])) for part in rounds[0]}


def seconds_by_context(base, lengths, repeats: int = 15) -> dict[int, float]:
    """Median seconds of a plain step behind each number of tokens; the lengths take turns."""
    caches = {}
    for length in lengths:
        caches[length] = base.new_cache(1, length + 1)
        decode.prefill(base, meter.filler(base, length), caches[length])
    criterion = decode.Greedy(base)
    found = {length: [] for length in lengths}
    for _ in range(repeats + 1):
        for length, cache in caches.items():
            for again in range(3):  # the first finds another context's keys in the processor's caches
                one = _seconds(partial(decode.verify, base, decode.ROOT_ONLY, [10], length, cache, criterion))
                if again:
                    found[length].append(one)
    return {length: float(np.median(each[2:])) for length, each in found.items()}


def _seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
