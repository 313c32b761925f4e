"""How often each path of guesses is right, counted on held-out text, and the trees that follow from it.

Multiplying head accuracies (Medusa paper, 2.3.3; `tree.search`) takes the heads for independent. They are not: where
the first guess is right, the second is more often right too. Counting whole paths needs no such assumption.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from medusa_core.cost import StepCost
from medusa_core.tree import Tree, TreeError


@dataclass(frozen=True)
class PathShares:
    """share[path]: the part of the positions at which the base's next tokens have just these ranks, head by head."""

    share: dict[tuple[int, ...], float]

    @classmethod
    def count(cls, ranks: np.ndarray, most: int = 10, paths: int = 256) -> PathShares:
        """Count from ranks (N, K): the rank of the base's token in each head's list, whatever is not below `most`
        being a miss. The `paths` most frequent are kept; equally frequent ones by length, then by rank.
        """
        ranks = np.asarray(ranks)
        if ranks.ndim != 2 or not len(ranks):
            raise TreeError(f"ranks must be (positions, heads), got shape {ranks.shape}")
        hits = (ranks >= 0) & (ranks < most)
        depth = np.where(hits.all(axis=1), ranks.shape[1], hits.argmin(axis=1))
        counts: Counter = Counter()
        for row, length in zip(ranks.tolist(), depth.tolist()):
            counts.update(tuple(row[:end]) for end in range(1, length + 1))
        best = sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))[:paths]
        return cls({path: count / len(ranks) for path, count in best})

    def best(self, nodes: int) -> Tree:
        """The tree of `nodes` nodes below the root with the most expected tokens a step."""
        if not 0 <= nodes <= len(self.share):
            raise TreeError(f"{nodes} nodes asked for, but {len(self.share)} paths were counted")
        return Tree.from_paths(list(self.share)[:nodes])  # most frequent first, so a parent is never missing

    def expected(self, tree: Tree) -> float:
        """Tokens a step that a tree gives: 1 for the base's own, and the share of each path."""
        return 1.0 + sum(self.share.get(path, 0.0) for path in tree.choices)

    def curve(self, cost: StepCost) -> np.ndarray:
        """Expected speed-up (N,) over plain decoding of the best trees of 0 .. N - 1 nodes below the root.

        The root alone is plain decoding, which drafts nothing.
        """
        nodes = min(cost.rows - 1, len(self.share))
        expected = 1.0 + np.cumsum([0.0, *list(self.share.values())[:nodes]])
        return np.array([value / cost.overhead(n + 1, drafted=n > 0) for n, value in enumerate(expected)])

    def choose(self, cost: StepCost, least: int = 0) -> Tree:
        """The tree of `least` nodes below the root or more with the most expected tokens per second at that cost."""
        return self.best(least + int(np.argmax(self.curve(cost)[least:])))
