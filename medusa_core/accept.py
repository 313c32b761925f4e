"""Acceptance: which drafted path the base model confirms, the token that follows it, and why for every node.

All criteria walk down from the root, so the -1 cells that pad a tree's path table never take part. A node
token of -1 is an empty slot (a dynamic tree padded to a fixed size) and is never accepted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from medusa_core.tree import Tree

EPSILON, DELTA = 0.09, 0.3  # of typical acceptance, as in the paper
REASONS = (
    "root",
    "accepted",
    "shorter path",
    "less likely path",
    "same tokens",
    "rejected",
    "parent rejected",
    "empty",
)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one verification step decided.

    path: accepted node indices from the root (always node 0) to the last accepted one.
    next_token: the base model's own token after the path (the bonus token).
    probability (n,): the base's probability of each node given its parent; NaN where the walk never asked.
    threshold (n,): what the probability had to exceed; NaN where the criterion has none.
    accepted (n,) bool: the node and all its ancestors passed.
    reason (n,): one of REASONS: "root", "accepted" (on the path), "shorter path", "less likely path" or "same
    tokens" (passed, but another path won), "rejected", "parent rejected", "empty".
    """

    path: tuple[int, ...]
    next_token: int
    probability: np.ndarray
    threshold: np.ndarray
    accepted: np.ndarray
    reason: tuple[str, ...]


def greedy(tree: Tree, tokens, best) -> Verdict:
    """Accept the longest path that the base's argmax confirms; output equals plain greedy decoding.

    tokens (n,) node tokens, root first; best (n,) the base's argmax after each node. A greedy base gives its
    argmax probability 1 and everything else 0.
    """
    tokens, best = _as_list(tree, tokens, "tokens"), _as_list(tree, best, "best")
    passed = [True] * tree.size
    probability = [1.0] * tree.size
    deepest, level = 0, [0] * tree.size
    for node, parent in enumerate(tree.parents[1:], start=1):
        match = tokens[node] == best[parent]
        probability[node] = 1.0 if match else 0.0
        passed[node] = match and passed[parent]
        level[node] = level[parent] + 1
        if passed[node] and level[node] > level[deepest]:
            deepest = node
    threshold = [0.0] * tree.size
    return _verdict(tree, tokens, passed, deepest, best[deepest], probability, threshold, "same tokens")


def typical(
    tree: Tree, tokens, logits, temperature: float, epsilon: float = EPSILON, delta: float = DELTA
) -> Verdict:
    """Accept the longest path of nodes with p > min(epsilon, delta * exp(-H)); not lossless.

    tokens (n,) node tokens, root first; logits (n, V) of the base after each node; p and the entropy H (nats)
    are of softmax(logits of the parent / temperature). Equally long paths: the likelier wins. The next token
    is the argmax after the path. Medusa paper, section 2.3.1. Raises ValueError for temperature 0.
    """
    tokens, logits = _as_list(tree, tokens, "tokens"), _checked_logits(tree, logits)

    def ask(parent: int) -> tuple[float, list[float]]:
        return _read_below(tree, tokens, parent, logits[parent], temperature)

    return _typical(tree, tokens, ask, lambda node: int(np.argmax(logits[node])), epsilon, delta)


def check_thresholds(epsilon: float, delta: float, acceptance: Collection[str]) -> None:
    """Raise ValueError where epsilon or delta are set and none of `acceptance` is typical, which alone reads them."""
    if "typical" not in acceptance and (epsilon, delta) != (EPSILON, DELTA):
        raise ValueError(
            f"epsilon {epsilon} and delta {delta} are typical acceptance's, and acceptance is "
            f"{' and '.join(acceptance)}: leave them out, or ask for typical"
        )


def typical_again(
    tree: Tree, tokens, probability, entropy, best, epsilon: float = EPSILON, delta: float = DELTA
) -> Verdict:
    """Typical acceptance from what `read_logits` kept of the logits (n, V), so that no model is needed.

    probability (n,) of each node given its parent and entropy (n,) after each node, both at the temperature in
    question; best (n,) the base's argmax after each node.
    """
    tokens, best = _as_list(tree, tokens, "tokens"), _as_list(tree, best, "best")
    probability = _as_list(tree, probability, "probability")
    entropy = _as_list(tree, entropy, "entropy")

    def ask(parent: int) -> tuple[float, list[float]]:
        return entropy[parent], [probability[child] for child in tree.children[parent]]

    return _typical(tree, tokens, ask, best.__getitem__, epsilon, delta)


def read_logits(tree: Tree, tokens, logits, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """What typical acceptance needs of logits (n, V) at a temperature, for every node, asked or not.

    Returns the probability (n,) of each node given its parent, 1 for the root, and the entropy (n,) in nats of the
    next token after each node. Raises ValueError for temperature 0.
    """
    tokens, logits = _as_list(tree, tokens, "tokens"), _checked_logits(tree, logits)
    probability, entropy = np.ones(tree.size), np.empty(tree.size)
    for parent, children in enumerate(tree.children):
        entropy[parent], probability[list(children)] = _read_below(
            tree, tokens, parent, logits[parent], temperature
        )
    return probability, entropy


def exact(tree: Tree, tokens, logits, temperature: float, rng: np.random.Generator) -> Verdict:
    """Sample from the base after each accepted node and descend while a child holds the sampled token.

    tokens (n,) node tokens, root first; logits (n, V) of the base after each node. Every produced token is one
    draw from the base's own distribution, so the output is distributed as in plain sampling, and with equal
    logits and generator state it is the same text. Raises ValueError for temperature 0.
    """
    tokens, logits = _as_list(tree, tokens, "tokens"), _checked_logits(tree, logits)
    passed = [True] + [False] * (tree.size - 1)
    probability, threshold = [1.0] + [np.nan] * (tree.size - 1), [np.nan] * tree.size
    reached = [0]  # siblings may repeat a token: all nodes that spell the text so far stay in play
    while True:
        weights, _ = _softmax(logits[reached[0]], temperature)
        drawn, total = _draw(weights, rng)
        below = [child for node in reached for child in tree.children[node]]
        for node in below:
            probability[node] = float(weights[tokens[node]]) / total if tokens[node] >= 0 else 0.0
        matching = [node for node in below if tokens[node] == drawn]
        if not matching:
            return _verdict(tree, tokens, passed, reached[0], drawn, probability, threshold, "same tokens")
        for node in matching:
            passed[node] = True
        reached = matching


def _read_below(tree: Tree, tokens: list, parent: int, row, temperature: float) -> tuple[float, list[float]]:
    """Entropy of softmax(row (V,) / temperature) in nats, and the probability of each child of `parent`."""
    weights, scaled = _softmax(row, temperature)
    total = float(weights.sum())
    entropy = float(np.log(total)) - float(np.dot(weights, scaled)) / total
    below = [tokens[child] for child in tree.children[parent]]
    return entropy, [float(weights[token]) / total if token >= 0 else 0.0 for token in below]


def _typical(tree: Tree, tokens: list, ask, best, epsilon: float, delta: float) -> Verdict:
    """The walk of typical acceptance; ask(parent) and best(node) are called only where it gets to."""
    passed = [True] + [False] * (tree.size - 1)
    probability, threshold = [1.0] + [np.nan] * (tree.size - 1), [0.0] + [np.nan] * (tree.size - 1)
    score = [(0, 0.0)] * tree.size  # (length, sum of log p) of the path that ends here
    winner = 0
    for parent, children in enumerate(tree.children):
        if not (passed[parent] and children):
            continue  # a softmax over the vocabulary is only worth its time below an accepted node
        entropy, chances = ask(parent)
        bar = min(epsilon, delta * float(np.exp(-entropy)))
        for node, p in zip(children, chances):
            probability[node], threshold[node] = p, bar
            passed[node] = p > bar
            if passed[node]:
                score[node] = (score[parent][0] + 1, score[parent][1] + float(np.log(p)))
                winner = max(winner, node, key=score.__getitem__)  # the first of equals stays
    return _verdict(tree, tokens, passed, winner, best(winner), probability, threshold, "less likely path")


def _draw(weights: np.ndarray, rng: np.random.Generator) -> tuple[int, float]:
    """A token drawn in proportion to the weights (V,), and the sum of the weights."""
    cumulative = np.cumsum(weights.astype(np.float64))
    total = cumulative[-1]
    drawn = np.searchsorted(cumulative, rng.random() * total, side="right")
    # The product may round up to the total: then the last token with any weight is meant.
    return int(min(drawn, np.searchsorted(cumulative, total, side="left"))), float(total)


def _softmax(row: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Unnormalised weights (V,) of one row of logits, and their logarithms (the largest is 0)."""
    if not temperature > 0:
        raise ValueError(
            f"temperature {temperature} cannot be sampled from: use greedy acceptance for temperature 0"
        )
    top = row.max()
    if not np.isfinite(top):
        raise ValueError(f"logits have no finite maximum ({top}): the model's output is broken")
    scaled = np.maximum((row - top) / row.dtype.type(temperature), row.dtype.type(-1e30))  # -inf * 0 is NaN
    return np.exp(scaled), scaled


def _as_list(tree: Tree, values, name: str) -> list:
    values = np.asarray(values).tolist()
    if len(values) != tree.size:
        raise ValueError(
            f"{name} has {len(values)} entries, but the tree has {tree.size} nodes, root included"
        )
    return values


def _checked_logits(tree: Tree, logits) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.dtype != np.float64:
        logits = logits.astype(np.float32, copy=False)
    if logits.ndim != 2 or len(logits) != tree.size:
        raise ValueError(f"logits must be ({tree.size}, vocabulary) for this tree, got shape {logits.shape}")
    return logits


def _verdict(tree, tokens, passed, last, next_token, probability, threshold, tie) -> Verdict:
    parents = tree.parents
    path = [last]
    while path[-1]:
        path.append(parents[path[-1]])
    path.reverse()
    return Verdict(
        path=tuple(path),
        next_token=next_token,
        probability=np.array(probability),
        threshold=np.array(threshold),
        accepted=np.array(passed),
        reason=_reasons(tree, tokens, passed, path, tie),
    )


def _reasons(tree: Tree, tokens: list, passed: list, path: list, tie: str) -> tuple[str, ...]:
    reasons = ["root"] * tree.size
    for node, parent in enumerate(tree.parents[1:], start=1):
        if tokens[node] < 0:
            reasons[node] = "empty"
        elif passed[node]:
            reasons[node] = "shorter path"
        else:
            reasons[node] = "rejected" if passed[parent] else "parent rejected"
    rivals = sum(passed) > len(path)
    for node in range(tree.size - 1, 0, -1) if rivals else ():
        if passed[node] and (
            tree.depth[node] == len(path) - 1 or tie in (reasons[c] for c in tree.children[node])
        ):
            reasons[node] = tie
    for node in path[1:]:
        reasons[node] = "accepted"
    return tuple(reasons)
