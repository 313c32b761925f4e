"""A tree of guesses grown best first, from all who guess: heads, the context's chain, the corpus.

The children of a node are the union of what each proposes there, with one probability a token; a node's value is the
product along its path, the expectation of being accepted. The most valuable guesses are checked, as many as pay.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medusa_core.cost import StepCost
from medusa_core.heads.context import LONGEST
from medusa_core.heads.corpus import LONGEST as TAIL
from medusa_core.heads.corpus import Corpus
from medusa_core.tree import Tree

# Heads and corpus are two opinions on one token: their product, each to this power, is right more often than either or
# any mean of them (held-out text: 2.55 tokens a step from 5 guesses; their mean 2.46).
POWER = 0.7
DEEPEST = 8  # guesses on a path
OTHERS = 300  # tokens among which the probability that an opinion gives to none by name is spread
FLOOR = 0.02  # a guess below this value does not pay, unless a row costs less of a step than that


class Draft(NamedTuple):
    """A tree of guesses: tokens and the log-probability of each node given its parent, and who guessed it."""

    tree: Tree
    tokens: Sequence[int]
    logprob: Sequence[float]
    source: tuple[str, ...]


class HeadGuesses:
    """What heads guess below each node of their tree; independent heads guess the same at every node of a depth."""

    def __init__(self, tree: Tree, tokens: list[int], logprob: list[float], independent: bool):
        self.below: list[dict[int, tuple[float, int]]] = [{} for _ in range(tree.size)]
        for node in range(1, tree.size):
            self.below[tree.parents[node]][tokens[node]] = math.exp(logprob[node]), node
        self.at_depth: list[dict[int, tuple[float, int]]] = []
        if independent:
            depth = [0] * tree.size
            for node in range(1, tree.size):
                depth[node] = depth[tree.parents[node]] + 1
            levels = [[n for n in range(tree.size) if depth[n] == d] for d in range(max(depth))]
            self.at_depth = [max((self.below[n] for n in level), key=len) for level in levels]

    def children(self, place: int, depth: int) -> dict[int, tuple[float, int]]:
        """Guessed tokens below node `place`, -1 where it is none of the heads' own: {token: (probability, node)}."""
        if depth < len(self.at_depth):
            return self.at_depth[depth]
        return self.below[place] if place >= 0 else {}


@dataclass(frozen=True)
class Sources:
    """Who guesses after `text`; chain and length are the context's proposal, rates what it is worth (context.py)."""

    text: Sequence[int]
    heads: HeadGuesses | None = None
    corpus: Corpus | None = None
    chain: Sequence[int] = ()
    length: int = 0
    rates: Sequence[float] = ()

    def best(self) -> float:
        """Probability of the likeliest guess for the next token, 0 where there is none."""
        return max((p for p, *_ in self.children((), 0, True).values()), default=0.0)

    def children(self, path: Sequence[int], place: int, on_chain: bool) -> dict[int, tuple[float, int, str]]:
        """Guesses for the token after `path`: {token: (probability, node of the heads' tree or -1, who)}."""
        depth = len(path)
        heads = self.heads.children(place, depth) if self.heads else {}
        corpus = self.corpus.next([*self.text[-TAIL:], *path][-TAIL:]) if self.corpus else {}
        found = pooled(heads, corpus)
        if on_chain and depth < len(self.chain):
            rate = self.rates[min(self.length + depth, LONGEST)]
            confirm(found, self.chain[depth], rate)
        return found


def pooled(heads: dict, corpus: dict[int, float]) -> dict[int, tuple[float, int, str]]:
    """One probability a token from two opinions: their product, each to POWER, normalised with the unnamed tokens'."""
    if not corpus:
        return {token: (p, node, "heads") for token, (p, node) in heads.items()}
    if not heads:
        return {token: (p, -1, "corpus") for token, p in corpus.items()}
    unnamed = _unnamed([p for p, _ in heads.values()]), _unnamed(corpus.values())
    scores, total = {}, OTHERS * (unnamed[0] * unnamed[1]) ** POWER
    for token in heads.keys() | corpus.keys():
        p, node = heads.get(token, (unnamed[0], -1))
        score = (p * corpus.get(token, unnamed[1])) ** POWER
        who = "heads" if token not in corpus else "both" if token in heads else "corpus"
        scores[token] = score, node, who
        total += score
    return {token: (score / total, node, who) for token, (score, node, who) in scores.items()}


def _unnamed(named) -> float:
    """Probability of each token that an opinion does not name: its share of the rest, and less than any named one."""
    return min(max(1.0 - sum(named), 1e-3) / OTHERS, *named)


def confirm(found: dict, token: int, rate: float) -> None:
    """Enter the context's next token, right with probability `rate`; the others count for when it is wrong."""
    known, node, who = found.pop(token, (0.0, -1, "context"))
    others = min(1.0, (1.0 - rate) / max(1.0 - known, 1e-9))
    for other, (p, *rest) in found.items():
        found[other] = (p * others, *rest)
    found[token] = max(rate, known), node, "context" if who in ("context", "corpus") else "both"


def grow(root: int, sources: Sources, cost: StepCost, drafted: bool) -> Draft:
    """The most valuable guesses after the token `root`, as many as bring the most tokens a second."""
    # (-value, serial, parent, token, probability, who, path, node of the heads' tree, on the chain)
    frontier, serial = [(-1.0, 0, -1, root, 1.0, "root", (), 0, True)], 0
    taken: list[tuple] = []
    floor = min(FLOOR, (cost.overhead(cost.rows) - cost.overhead(1)) / cost.rows)
    expected, count, most = 0.0, 1, 0.0
    while frontier and len(taken) < cost.rows:
        # No later guess is worth more than the next one: where it brings less than a row costs, none pays any more.
        if taken and -frontier[0][0] <= most * cost.least_increase[len(taken) - 1]:
            break
        node = heapq.heappop(frontier)
        value, _, _, _, _, _, path, place, on_chain = node
        expected -= value
        taken.append(node)
        if (gain := expected / cost.overhead(len(taken), drafted)) > most:
            count, most = len(taken), gain
        if len(path) == DEEPEST:
            continue
        for token, (p, below, who) in sources.children(path, place, on_chain).items():
            if -value * p >= floor:
                serial += 1
                follows = on_chain and len(path) < len(sources.chain) and sources.chain[len(path)] == token
                entry = (value * p, serial, len(taken) - 1, token, p, who, (*path, token), below, follows)
                heapq.heappush(frontier, entry)
    return _built(taken[:count])


def _built(taken: list[tuple]) -> Draft:
    """Nodes in the order they were taken, as a tree in the row order of trees: shallow first, siblings as taken."""
    ranks: list[tuple[int, ...]] = [()]
    children = [0] * len(taken)
    for _, _, parent, *_ in taken[1:]:
        ranks.append((*ranks[parent], children[parent]))
        children[parent] += 1
    rows = sorted(range(len(taken)), key=lambda node: (len(ranks[node]), ranks[node]))
    index = {node: row for row, node in enumerate(rows)}
    parents = (-1, *(index[taken[node][2]] for node in rows[1:]))
    return Draft(
        Tree(tuple(ranks[node] for node in rows[1:]), parents),
        [taken[node][3] for node in rows],
        [math.log(max(taken[node][4], 1e-9)) for node in rows],
        tuple(taken[node][5] for node in rows),
    )
