"""How heads guess along whole texts: the rank of every token that came, and the tokens a step that trees make of it.

Greedy decoding with heads gives the base's own greedy text whatever the tree. So along such a text a tree needs no
decoding: the ranks say which path a step accepts, and where the next step begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medusa_core.path_shares import PathShares
from medusa_core.tree import Tree, check_depth


@dataclass(frozen=True)
class TextRanks:
    """texts: an array (T - 1, K) for each text of T tokens. Row p is a step whose root is token p: column k is the
    rank of token p + 1 + k in the list of the head that guesses it. Tokens past the end, and those that heads do not
    know, have ranks beyond every list. Recurrent heads have heard the true tokens before each guess, as a node on
    the true path has.
    """

    texts: Sequence[np.ndarray]

    @property
    def heads(self) -> int:
        """K, the deepest guess."""
        return self.texts[0].shape[1]

    @property
    def positions(self) -> int:
        """Places that a step could start from."""
        return sum(map(len, self.texts))

    def halves(self) -> tuple[TextRanks, TextRanks]:
        """Every other text, and the rest: what a tree is chosen on, and what it is judged on."""
        return TextRanks(self.texts[::2]), TextRanks(self.texts[1::2])

    def accuracy(self, ranks: int = 10) -> np.ndarray:
        """How often (K, ranks) the token that came was each head's guess of that rank; text ends do not count."""
        columns = [np.concatenate([text[: max(len(text) - k, 0), k] for text in self.texts])
                   for k in range(self.heads)]  # fmt: skip
        return np.array([[(column == rank).mean() for rank in range(ranks)] for column in columns])

    def shares(self, most: int = 16, paths: int = 1024) -> PathShares:
        """How often each path is right, over all places."""
        return PathShares.count(np.concatenate(self.texts), most, paths)

    def steps(self, tree: Tree) -> list[tuple[int, int]]:
        """(tokens, steps) of decoding each text with a tree, the prompt's own forward and its token left out.

        Raises TreeError when the tree is deeper than K.
        """
        check_depth(tree, self.heads)
        inside = {(), *tree.choices}
        return [_walk(text.tolist(), inside) for text in self.texts]

    def tokens_per_step(self, tree: Tree) -> float:
        """Tokens a step over all texts."""
        tokens, steps = np.sum(self.steps(tree), axis=0)
        return float(tokens / steps)


def _walk(ranks: list[list[int]], inside: set[tuple[int, ...]]) -> tuple[int, int]:
    """Step through one text: every step accepts the longest path of the tree that is right, and adds a token."""
    place = steps = 0
    while place < len(ranks):
        row, depth = ranks[place], 0
        while depth < len(row) and tuple(row[: depth + 1]) in inside:
            depth += 1
        place, steps = place + depth + 1, steps + 1
    return len(ranks), steps


def measure(drafter, states) -> TextRanks:
    """The ranks that heads give the tokens of texts; states: the base's over them (`hidden.HiddenStates`)."""
    from medusa_core import train  # starts Jittor
    from medusa_core.train_config import TrainConfig

    # Blocks of one place, so that none is left over at the end of the last text.
    ranks = train.target_ranks(drafter, states, TrainConfig(block=1, eval_positions=len(states.tokens)))
    ends = np.unique(states.end)
    lengths = np.diff(ends, prepend=0) - 1  # the last token of a text has nothing after it
    return TextRanks([part for part in np.split(ranks, np.cumsum(lengths)[:-1]) if len(part)])
