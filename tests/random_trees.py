"""Trees of any shape, for tests that ask them all the same."""

import numpy as np

from medusa_core.tree import Tree


def random_tree(nodes: int, depth: int, width: int, rng: np.random.Generator) -> Tree:
    """`nodes` nodes below the root, at most `depth` deep, ranks below `width`; so many must fit."""
    open_paths = [(rank,) for rank in range(width)] if depth else []
    chosen = []
    for _ in range(nodes):
        path = open_paths.pop(rng.integers(len(open_paths)))
        chosen.append(path)
        if len(path) < depth:
            open_paths += [path + (rank,) for rank in range(width)]
    return Tree.from_paths(chosen)
