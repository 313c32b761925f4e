"""Draft trees: validated rank paths, the buffers derived from them, and the search for the best tree.

A path is a tuple of ranks: (2, 0) is "the first head's third guess, then the second head's best guess".
A tree is a prefix-closed set of paths below a root, which is the token the base model has just chosen.
Row order everywhere: root, then the paths sorted by (length, path), as in the Medusa repository.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from numbers import Integral

import numpy as np


class TreeError(ValueError):
    """Choices that are not a tree, or a tree that does not fit the heads it is used with."""


@dataclass(frozen=True, eq=False)
class Tree:
    """A validated tree of n nodes, root included, and the index arrays that decoding needs.

    choices: the n - 1 paths without the root, sorted; node i > 0 is choices[i - 1].
    parents: each node's parent, -1 for the root; parent (n,) int32 holds the same.
    depth (n,) int32, 0 for the root. rank (n,) int32, -1 for the root.
    mask (n, n) bool: mask[i, j] is True when node j is node i or one of its ancestors.
    paths (leaves, max_depth + 1) int32: node indices from root to leaf, padded with -1, in the order of the
    Medusa repository's retrieve_indices (last leaf first).
    """

    choices: tuple[tuple[int, ...], ...]
    parents: tuple[int, ...]

    @classmethod
    def from_paths(cls, paths) -> Tree:
        """Build a tree from rank paths in any order; no path at all gives the root alone.

        Raises TreeError naming the path that is malformed, repeated, or lacks its parent.
        """
        choices = sorted((_checked_path(path) for path in paths), key=lambda path: (len(path), path))
        index = {(): 0}
        for path in choices:
            if path in index:
                raise TreeError(f"path {list(path)} is given twice; each path may appear once")
            if path[:-1] not in index:
                raise TreeError(f"path {list(path)} has no parent: add {list(path[:-1])} to the tree")
            index[path] = len(index)
        return cls(tuple(choices), (-1, *(index[path[:-1]] for path in choices)))

    @classmethod
    def from_parents(cls, parents: Sequence[int]) -> Tree:
        """Build a tree from each node's parent, -1 for the root; siblings rank in the order given.

        Raises TreeError unless nodes come depth by depth, children in the order of their parents.
        """
        choices: list[tuple[int, ...]] = [()]
        children = [0] * len(parents)
        for node, parent in enumerate(parents[1:], start=1):
            if not 0 <= parent < node:
                raise TreeError(f"node {node} has parent {parent}: expected a node from 0 to {node - 1}")
            choices.append((*choices[parent], children[parent]))
            children[parent] += 1
            if (len(choices[node]), choices[node]) <= (len(choices[node - 1]), choices[node - 1]):
                raise TreeError(
                    f"node {node} (parent {parent}) comes too late: nodes are listed depth by depth"
                )
        if not len(parents) or parents[0] != -1:
            raise TreeError("the first node is the root, whose parent is -1")
        return cls(tuple(choices[1:]), tuple(parents))

    @cached_property
    def parent(self) -> np.ndarray:
        return np.array(self.parents, np.int32)

    @cached_property
    def depth(self) -> np.ndarray:
        return np.array([0, *map(len, self.choices)], np.int32)

    @cached_property
    def rank(self) -> np.ndarray:
        return np.array([-1, *(path[-1] for path in self.choices)], np.int32)

    @cached_property
    def mask(self) -> np.ndarray:
        mask = np.eye(self.size, dtype=bool)
        for node, parent in enumerate(self.parents[1:], start=1):  # the parent's row is complete
            mask[node] |= mask[parent]
        return mask

    @cached_property
    def paths(self) -> np.ndarray:
        inner = {path[:-1] for path in self.choices}
        leaves = [path for path in reversed(self.choices) if path not in inner] or [()]
        index = {path: node for node, path in enumerate(((), *self.choices))}
        paths = np.full((len(leaves), self.max_depth + 1), -1, dtype=np.int32)
        for row, leaf in zip(paths, leaves):
            row[: len(leaf) + 1] = [index[leaf[:end]] for end in range(len(leaf) + 1)]
        return paths

    @property
    def size(self) -> int:
        """Number of nodes n, root included: the rows of one verification step."""
        return len(self.choices) + 1

    @property
    def max_depth(self) -> int:
        """Length of the longest path: the number of heads the tree needs."""
        return len(self.choices[-1]) if self.choices else 0

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Child node indices of each node, in row order."""
        below = [[] for _ in range(self.size)]
        for node in range(1, self.size):
            below[self.parent[node]].append(node)
        return tuple(map(tuple, below))

    def token_index(self, topk: int = 10) -> np.ndarray:
        """Index (n,) int32 of each node in [root token, head 1's topk, head 2's topk, ...] (tree_indices).

        Raises TreeError when a rank is not among the topk.
        """
        if self.size > 1 and self.rank.max() >= topk:
            raise TreeError(f"the tree uses rank {self.rank.max()}, but only ranks below {topk} are drafted")
        index = self.rank + topk * (self.depth - 1) + 1
        index[0] = 0
        return index

    def path_to(self, node: int) -> tuple[int, ...]:
        """Node indices from the root to `node`, both included."""
        return tuple(np.flatnonzero(self.mask[node]).tolist())

    def __repr__(self):
        return f"Tree({self.size} nodes with root, depth {self.max_depth}, {len(self.paths)} leaves)"


def _checked_path(path) -> tuple[int, ...]:
    if isinstance(path, (str, bytes)) or not hasattr(path, "__iter__"):
        raise TreeError(f"path {path!r} is not a list of ranks; write for example [0, 1]")
    ranks = tuple(path)
    for rank in ranks:
        if not isinstance(rank, Integral) or isinstance(rank, bool) or rank < 0:
            raise TreeError(f"path {list(ranks)}: rank {rank!r} is not a whole number from 0 up")
    if not ranks:
        raise TreeError("an empty path was given; the root is always there and is not listed")
    return tuple(map(int, ranks))


def chain(depth: int) -> Tree:
    """Every head's best guess and nothing else: `depth` nodes below the root."""
    return Tree.from_paths([(0,) * length for length in range(1, depth + 1)])


def dense(widths) -> Tree:
    """All combinations of the first widths[k] ranks of head k."""
    levels = [range(width) for width in widths]
    return Tree.from_paths([path for end in range(1, len(levels) + 1) for path in product(*levels[:end])])


def capacity(depth: int, width: int) -> int:
    """How many nodes below the root a tree of `depth` heads with `width` ranks each can have."""
    return sum(width**level for level in range(1, depth + 1))


def search(accuracy, nodes: int) -> Tree:
    """The tree of `nodes` nodes below the root with the most expected tokens: the largest path products.

    accuracy (K, R): accuracy[k, i] = how often head k's guess of rank i is the base's token. Ties go to the
    shorter, then the lower-ranked path. Medusa paper, section 2.3.3. Raises TreeError when K heads with R
    ranks have fewer paths than `nodes`.
    """
    return Tree.from_paths([path for _, path in _best_paths(accuracy, nodes)])


def expected_tokens(tree: Tree, accuracy) -> float:
    """Tokens per step that a tree should give if heads were independent: 1 + the sum of path products.

    accuracy (K, R) as in `search`. Raises TreeError when the tree is deeper than K or wider than R.
    """
    return 1.0 + float(path_products(tree, accuracy)[1:].sum())


def path_products(tree: Tree, accuracy) -> np.ndarray:
    """Probability (n,) that each node is accepted: the product of accuracies along its path; 1 for the root."""
    accuracy = _checked_accuracy(accuracy)
    check_depth(tree, len(accuracy))
    if tree.rank.max() >= accuracy.shape[1]:
        raise TreeError(
            f"the tree uses rank {tree.rank.max()}, but accuracy has {accuracy.shape[1]} ranks a head"
        )
    value = np.ones(tree.size)
    for node in range(1, tree.size):
        value[node] = value[tree.parent[node]] * accuracy[tree.depth[node] - 1, tree.rank[node]]
    return value


def check_depth(tree: Tree, num_heads: int) -> None:
    """Raise TreeError when the tree needs more heads than there are."""
    if tree.max_depth > num_heads:
        raise TreeError(
            f"the tree is {tree.max_depth} deep but there are {num_heads} heads: "
            f"use a tree of depth {num_heads} at most, or heads trained with num_heads >= {tree.max_depth}"
        )


def _best_paths(accuracy, nodes: int) -> list[tuple[float, tuple[int, ...]]]:
    """The `nodes` largest path products with their paths, largest first."""
    accuracy = _checked_accuracy(accuracy)
    heads, ranks = accuracy.shape
    _check_capacity(nodes, heads, ranks)
    # Measured accuracies need not fall with rank; visiting them in falling order makes the next sibling and
    # the first child the only candidates that a chosen node adds.
    order = np.argsort(-accuracy, axis=1, kind="stable")
    falling = np.take_along_axis(accuracy, order, axis=1)
    heap = [(-falling[0, 0], 1, (0,), 1.0)]  # (-product, length, places, parent's product)
    found = []
    while len(found) < nodes:
        value, length, places, above = heapq.heappop(heap)
        found.append((-value, tuple(int(order[k, place]) for k, place in enumerate(places))))
        if places[-1] + 1 < ranks:
            sibling = places[:-1] + (places[-1] + 1,)
            heapq.heappush(heap, (-above * falling[length - 1, sibling[-1]], length, sibling, above))
        if length < heads:
            heapq.heappush(heap, (value * falling[length, 0], length + 1, places + (0,), -value))
    return found


def _checked_accuracy(accuracy) -> np.ndarray:
    accuracy = np.asarray(accuracy, dtype=float)
    if accuracy.ndim != 2 or not accuracy.size:
        raise TreeError(f"accuracy must be (heads, ranks), got shape {accuracy.shape}")
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise TreeError("accuracy must hold numbers from 0 to 1")
    return accuracy


def _check_capacity(nodes: int, depth: int, width: int) -> None:
    if nodes < 0 or nodes > capacity(depth, width):
        raise TreeError(
            f"{nodes} nodes asked for, but {depth} levels of {width} ranks hold 0 to {capacity(depth, width)}"
        )
