"""Plain and Medusa decoding as generators of Step: verify a tree, accept a path, commit its rows, draft again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from medusa_core import accept, masks
from medusa_core.grow import DEEPEST, Draft
from medusa_core.heads.context import ContextIndex
from medusa_core.plan import Plan
from medusa_core.trace import Step
from medusa_core.tree import Tree

PIECE = 512  # rows of a prompt in one forward
ROOT_ONLY = Tree.from_paths([])


def prefill(base, ids: Sequence[int], cache, row: int = 0):
    """Run a prompt through the base and commit it; returns the hidden state of its last token, (1, d).

    In pieces: masks and scores hold rows times context, which for a whole long prompt is more than the model's weights.
    """
    ids = np.asarray(ids, np.int32)
    for past in range(0, len(ids), PIECE):
        piece = ids[past : past + PIECE]
        mask = masks.causal(len(piece), past, base.config.sliding_window)
        hidden = base(piece, past + np.arange(len(piece)), mask, cache, rows=[row])
        cache.advance(len(piece), row)
    return hidden[0, -1:]


def plain(base, prompt_ids, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> Iterator[Step]:
    """Decode one token a step: the most likely one, or a sample when the temperature is above 0.

    It is `medusa` with a tree that is only its root, so both are timed alike.
    """
    acceptance = "exact" if temperature else "greedy"
    return medusa(base, None, ROOT_ONLY, prompt_ids, max_new_tokens, acceptance, temperature, seed=seed)


def medusa(
    base,
    drafter,
    tree: Tree,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    acceptance: str = "greedy",
    temperature: float = 0.0,
    epsilon: float = accept.EPSILON,
    delta: float = accept.DELTA,
    seed: int = 0,
    plan: Plan | None = None,
) -> Iterator[Step]:
    """Decode with `drafter` filling `tree` at every step; the first Step is the prefill, which yields one token.

    With a plan, each step checks the guesses that it picks from the drafter's and the text's (see plan.py).

    acceptance: "greedy" and "exact" give the text of `plain` at temperature 0 and above, the latter from the same
    seed, where the rows of a base have the same bits whatever shares their forward (the kernels' have, a GPU's need
    not); "typical" is the paper's. Ends at an end token, at the limit, or when the model's context is full; the last
    rows of the context, where the tree no longer fits, are decoded without it.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; the prompt's own forward gives 1 already")
    context = base.config.max_position_embeddings
    criterion = _criterion(base, acceptance, temperature, epsilon, delta, seed)
    most = plan.cost.rows if plan else tree.size
    cache = base.new_cache(1, min(context, len(prompt_ids) + max_new_tokens) + most)
    clock = _Clock()

    hidden = prefill(base, prompt_ids, cache)  # (1, d)
    verdict = criterion.decide(ROOT_ONLY, [prompt_ids[-1]], criterion.read(hidden))
    token, left = int(verdict.next_token), max_new_tokens - 1
    done = left == 0 or token in base.config.eos_token_ids
    first = Draft(ROOT_ONLY, [prompt_ids[-1]], [0.0], ("root",))
    yield _step([token], first, verdict, 0, {"prefill": clock.lap()})

    context_index = ContextIndex([*prompt_ids, token])
    deepest = DEEPEST if plan else tree.max_depth
    while not done and (length := int(cache.length[0])) < context:
        times = {}
        clock.lap()  # what the caller did since the last step belongs to no phase
        if length + deepest >= context:
            draft = Draft(ROOT_ONLY, [token], [0.0], ("root",))
        elif plan:
            draft = plan.draft(drafter, hidden[0], context_index)
        else:
            draft = _fill(drafter, tree, hidden[0], token)
        times["draft"] = clock.lap()
        rows, read = verify(base, draft.tree, draft.tokens, length, cache, criterion)
        times["verify"] = clock.lap()
        verdict = criterion.decide(draft.tree, draft.tokens, read)
        times["accept"] = clock.lap()
        cache.commit(verdict.path)
        last = verdict.path[-1]
        hidden, token = rows[last : last + 1], verdict.next_token
        produced = [int(draft.tokens[node]) for node in verdict.path[1:]] + [token]
        if plan:
            context_index.extend(produced)
        produced, done = _cut(produced, left, base.config.eos_token_ids)
        left -= len(produced)
        times["commit"] = clock.lap()
        yield _step(produced, draft, verdict, length, times)


def verify(base, tree: Tree, tokens, length: int, cache, criterion):
    """Run the nodes of a tree behind `length` committed rows; returns their hidden states (n, d) and what the criterion
    reads of them.
    """
    mask = masks.tree_mask(tree, length, base.config.sliding_window)
    rows = base(tokens, masks.positions(tree, length), mask, cache)[0]
    return rows, criterion.read(rows)


def _fill(drafter, tree: Tree, hidden, token: int) -> Draft:
    if tree.size == 1:
        return Draft(tree, [token], [0.0], ("root",))
    tokens, logprob = drafter.draft(hidden, token, tree)
    return Draft(tree, tokens, logprob, ("root", *("heads",) * (tree.size - 1)))


class _Clock:
    """Seconds since the last lap."""

    def __init__(self):
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


class Greedy:
    """Greedy acceptance; reads only the base's argmax: a vocabulary of logits need not leave the kernel."""

    def __init__(self, base):
        self.base = base

    def read(self, hidden) -> np.ndarray:
        ids, values = self.base.top(hidden, 1)  # (n, 1)
        if not np.isfinite(values).all():
            raise ValueError("logits have no finite maximum: the model's output is broken")
        return ids[:, 0]

    def decide(self, tree: Tree, tokens, best: np.ndarray) -> accept.Verdict:
        return accept.greedy(tree, tokens, best)


class _Sampling:
    """Reads the logits of every node and hands them to `judge`(tree, tokens, logits)."""

    def __init__(self, base, judge):
        self.base, self.decide = base, judge

    def read(self, hidden) -> np.ndarray:
        return self.base.logits(hidden).numpy()  # (n, V)


def _criterion(base, acceptance: str, temperature: float, epsilon: float, delta: float, seed: int):
    if acceptance == "greedy":
        return Greedy(base)
    if acceptance == "typical":
        return _Sampling(base, partial(accept.typical, temperature=temperature, epsilon=epsilon, delta=delta))
    if acceptance == "exact":
        rng = np.random.default_rng(seed)
        return _Sampling(base, partial(accept.exact, temperature=temperature, rng=rng))
    raise ValueError(f"acceptance {acceptance!r} is unknown: expected greedy, typical or exact")


def _cut(tokens: list[int], left: int, eos: tuple[int, ...]) -> tuple[list[int], bool]:
    """The tokens up to the first end token and the limit, and whether either was met."""
    tokens = tokens[:left]
    for place, token in enumerate(tokens):
        if token in eos:
            return tokens[: place + 1], True
    return tokens, len(tokens) == left


def _step(produced, draft: Draft, verdict, length, times) -> Step:
    return Step(
        tokens=produced,
        parents=draft.tree.parents,
        source=draft.source,
        node_tokens=np.asarray(draft.tokens, np.int32),
        node_logprob=np.asarray(draft.logprob, np.float32),
        path=verdict.path,
        probability=verdict.probability,
        threshold=verdict.threshold,
        reason=verdict.reason,
        length=length,
        times=times,
    )
