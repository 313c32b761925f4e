"""Path shares: counted paths make the best tree, for a number of nodes or for a machine."""

from itertools import combinations, product

import numpy as np
import pytest

from medusa_core.cost import StepCost
from medusa_core.path_shares import PathShares
from medusa_core.tree import Tree, TreeError, expected_tokens, search


def test_shares_are_frequencies_of_successive_hits():
    ranks = [[0, 1, 9], [0, 1, 0], [0, 7, 0], [99, 0, 0]]
    shares = PathShares.count(np.array(ranks), most=5)
    assert shares.share == {(0,): 0.75, (0, 1): 0.5, (0, 1, 0): 0.25}


def test_equally_frequent_paths_come_by_length_then_by_rank():
    shares = PathShares.count(np.array([[0, 0], [1, 9]]), most=5)
    assert list(shares.share.items()) == [((0,), 0.5), ((1,), 0.5), ((0, 0), 0.5)]


def test_the_best_tree_is_the_best_of_all_trees():
    ranks = np.random.default_rng(0).integers(0, 4, (200, 3))
    shares = PathShares.count(ranks, most=2)
    paths = [path for depth in (1, 2, 3) for path in product(range(2), repeat=depth)]
    for nodes in range(5):
        best = max(
            shares.expected(Tree.from_paths(chosen))
            for chosen in combinations(paths, nodes)
            if all(path[:-1] in ((), *chosen) for path in chosen)
        )
        assert shares.expected(shares.best(nodes)) == pytest.approx(best)


def test_independent_heads_give_the_trees_of_the_papers_search():
    rng = np.random.default_rng(1)
    accuracy = np.array([[0.5, 0.2, 0.1], [0.4, 0.15, 0.05]])
    ranks = np.stack([rng.choice(4, 100_000, p=[*row, 1 - row.sum()]) for row in accuracy], axis=1)
    shares = PathShares.count(ranks, most=3)
    tree = search(accuracy, 4)
    assert shares.best(4).choices == tree.choices
    assert shares.expected(tree) == pytest.approx(expected_tokens(tree, accuracy), abs=0.01)


def test_dependent_heads_give_more_tokens_than_the_product_of_their_accuracies():
    ranks = np.repeat([[0, 0], [5, 5]], 50, axis=0)  # both right or both wrong
    chain = Tree.from_paths([(0,), (0, 0)])
    assert PathShares.count(ranks).expected(chain) == 2.0
    assert expected_tokens(chain, [[0.5], [0.5]]) == 1.75


def test_the_machine_decides_how_many_nodes_pay():
    shares = PathShares({(0,): 0.5, (1,): 0.25, (0, 0): 0.2, (2,): 0.1})
    free = StepCost((1.0,) * 8)
    assert shares.choose(free).size == 5
    assert shares.choose(StepCost((1.0, 1.1, 1.2, 3.0, 3.0))).size == 3
    dear = StepCost((1.0, 1.1, 1.2, 3.0, 3.0), draft_seconds=5.0)
    assert shares.choose(dear).size == 1
    assert shares.choose(dear, least=1).size == 3
    assert shares.curve(StepCost((1.0, 2.0, 2.0), 1.0)).tolist() == pytest.approx([1.0, 1.5 / 3, 1.75 / 3])


@pytest.mark.parametrize("nodes", [-1, 3])
def test_more_nodes_than_were_counted_are_refused(nodes):
    with pytest.raises(TreeError, match="2 paths were counted"):
        PathShares({(0,): 0.5, (1,): 0.2}).best(nodes)


def test_ranks_of_another_shape_are_refused():
    with pytest.raises(TreeError, match=r"ranks must be \(positions, heads\)"):
        PathShares.count(np.zeros(3, int))
