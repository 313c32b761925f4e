"""Trees: the official buffers, the search against brute force, and the published accuracies."""

from itertools import combinations, product

import numpy as np
import pytest
from random_trees import random_tree

from medusa_core import tree as trees
from medusa_core.cost import StepCost
from medusa_core.prospects import Measured, Prospects
from medusa_core.tree import Tree, TreeError

DEMO = [[0], [0, 0], [0, 1], [0, 2], [1], [1, 0], [1, 1], [1, 2]]

# Cumulative top-1..top-5 accuracy of heads 1..5, FasterDecoding/Medusa assets/medusa_acc.csv, four decimals.
PUBLISHED = {
    "7b": [
        [0.5604, 0.6717, 0.7271, 0.7599, 0.7799],
        [0.3164, 0.4236, 0.4851, 0.5282, 0.5625],
        [0.2010, 0.2879, 0.3475, 0.3834, 0.4169],
        [0.1474, 0.2250, 0.2737, 0.3109, 0.3397],
        [0.1175, 0.1866, 0.2346, 0.2721, 0.2998],
    ],
    "13b": [
        [0.5939, 0.7053, 0.7578, 0.7925, 0.8161],
        [0.3397, 0.4400, 0.5068, 0.5465, 0.5803],
        [0.2161, 0.3085, 0.3612, 0.4030, 0.4364],
        [0.1500, 0.2317, 0.2878, 0.3234, 0.3541],
        [0.1223, 0.1957, 0.2434, 0.2791, 0.3070],
    ],
    "33b": [
        [0.6046, 0.7162, 0.7649, 0.7983, 0.8223],
        [0.3558, 0.4690, 0.5287, 0.5692, 0.5961],
        [0.2246, 0.3197, 0.3785, 0.4210, 0.4462],
        [0.1596, 0.2488, 0.3073, 0.3480, 0.3755],
        [0.1370, 0.2067, 0.2621, 0.2984, 0.3258],
    ],
}


def per_rank(name):
    """Accuracy of each rank alone (K, 5): differences of the cumulative figures."""
    return np.diff(np.array(PUBLISHED[name]), axis=1, prepend=0.0)


def every_tree(depth, width, max_nodes):
    """All prefix-closed sets of rank paths, by filtering every subset of the full tree."""
    paths = [p for length in range(1, depth + 1) for p in product(range(width), repeat=length)]
    for count in range(max_nodes + 1):
        for subset in combinations(paths, count):
            if all(len(path) == 1 or path[:-1] in subset for path in subset):
                yield subset


def product_sum(paths, accuracy):
    return sum(float(np.prod([accuracy[k][rank] for k, rank in enumerate(path)])) for path in paths)


def test_official_demo_gives_the_official_buffers():
    tree = Tree.from_paths(DEMO)
    assert tree.token_index(topk=10).tolist() == [0, 1, 2, 11, 12, 13, 11, 12, 13]
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 2, 2, 2, 2]
    assert tree.paths.tolist() == [[0, 2, 8], [0, 2, 7], [0, 2, 6], [0, 1, 5], [0, 1, 4], [0, 1, 3]]
    ancestors = {0: [0], 1: [0, 1], 2: [0, 2], 3: [0, 1, 3], 5: [0, 1, 5], 8: [0, 2, 8]}
    for node, expected in ancestors.items():
        assert np.flatnonzero(tree.mask[node]).tolist() == expected


def test_row_order_does_not_depend_on_input_order():
    shuffled = Tree.from_paths(reversed(DEMO))
    assert shuffled.choices == Tree.from_paths(DEMO).choices
    assert shuffled.parent.tolist() == [-1, 0, 0, 1, 1, 1, 2, 2, 2]
    assert shuffled.rank.tolist() == [-1, 0, 1, 0, 1, 2, 0, 1, 2]


def test_leaves_of_unequal_depth_are_padded_with_minus_one():
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0), (2,), (1, 4)])
    assert tree.paths.tolist() == [[0, 1, 4, 6], [0, 2, 5, -1], [0, 3, -1, -1]]


def test_buffers_of_random_trees_follow_from_the_paths():
    rng = np.random.default_rng(0)
    for _ in range(30):
        tree = random_tree(nodes=int(rng.integers(1, 40)), depth=4, width=5, rng=rng)
        nodes = [(), *tree.choices]
        for i, path in enumerate(nodes):
            ancestors = [nodes.index(path[:end]) for end in range(len(path) + 1)]
            assert np.flatnonzero(tree.mask[i]).tolist() == ancestors == list(tree.path_to(i))
            assert tree.depth[i] == len(path)
            assert [nodes[child] for child in tree.children[i]] == [p for p in nodes if p and p[:-1] == path]
        leaves = [
            path for path in nodes if not any(other[: len(path)] == path for other in nodes if other != path)
        ]
        rows = [[nodes[node] for node in row if node >= 0] for row in tree.paths]
        assert [row[-1] for row in rows] == leaves[::-1]
        assert all(len(row) == len(row[-1]) + 1 for row in rows)


def test_root_alone_is_a_tree_of_one_row():
    tree = Tree.from_paths([])
    assert (tree.size, tree.max_depth) == (1, 0)
    assert tree.paths.tolist() == [[0]] and tree.mask.tolist() == [[True]]
    assert tree.token_index().tolist() == [0]


def test_chain_and_dense_shapes():
    assert trees.chain(3).choices == ((0,), (0, 0), (0, 0, 0))
    assert np.bincount(trees.dense([2, 3]).depth).tolist() == [1, 2, 6]
    assert trees.chain(0).size == trees.dense([]).size == 1


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([[0], [0, 0], [1, 0]], r"path \[1, 0\] has no parent: add \[1\]"),
        ([[0], [0]], r"path \[0\] is given twice"),
        ([[0], [-1]], "rank -1 is not a whole number"),
        ([[0.5]], "rank 0.5 is not a whole number"),
        ([[True]], "rank True is not a whole number"),
        ([[]], "empty path"),
        ([0, 1], "path 0 is not a list of ranks"),
        (["01"], "path '01' is not a list of ranks"),
    ],
)
def test_choices_that_are_no_tree_are_refused_by_path(paths, message):
    with pytest.raises(TreeError, match=message):
        Tree.from_paths(paths)


def test_rank_outside_the_drafted_topk_is_refused():
    with pytest.raises(TreeError, match="rank 9, but only ranks below 5"):
        Tree.from_paths([(0,), (9,)]).token_index(topk=5)


def test_tree_deeper_than_the_heads_is_refused():
    trees.check_depth(trees.chain(3), 3)
    with pytest.raises(TreeError, match="4 deep but there are 3 heads"):
        trees.check_depth(trees.chain(4), 3)


@pytest.mark.parametrize("seed", range(6))
def test_search_equals_brute_force(seed):
    # Ranks are not in falling order here, so the best siblings are not always the first ones.
    accuracy = np.random.default_rng(seed).uniform(0.05, 0.9, size=(2, 3))
    best = {}
    for paths in every_tree(depth=2, width=3, max_nodes=5):
        best[len(paths)] = max(best.get(len(paths), 0.0), product_sum(paths, accuracy))
    for nodes, value in best.items():
        found = trees.search(accuracy, nodes)
        assert found.size == nodes + 1
        assert product_sum(found.choices, accuracy) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_fastest_tree_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    accuracy = rng.uniform(0.05, 0.9, size=(2, 3))
    step_time = rng.uniform(1.0, 2.5, size=6)  # not monotone, as measured times are not
    draft_time = 0.3
    rates = [
        (1 + product_sum(paths, accuracy)) / (step_time[len(paths)] + (draft_time if paths else 0.0))
        for paths in every_tree(depth=2, width=3, max_nodes=5)
    ]
    found = fastest(accuracy, step_time, draft_time)
    rate = trees.expected_tokens(found, accuracy) / (
        step_time[found.size - 1] + (draft_time if found.size > 1 else 0)
    )
    assert rate == pytest.approx(max(rates), rel=1e-12)


def fastest(accuracy, step_time, draft_time):
    found = Prospects(Measured(np.asarray(accuracy), StepCost(tuple(step_time), draft_time)))
    return found.best(found.fastest)


def test_the_fastest_tree_with_constant_time_is_the_papers():
    accuracy = per_rank("7b")
    assert fastest(accuracy, np.ones(64), 0.1).choices == trees.search(accuracy, 63).choices


def test_no_tree_where_rows_cost_more_than_they_bring():
    steep = np.arange(1, 10, dtype=float)  # twice the rows, twice the time
    assert fastest(per_rank("7b"), steep, 0.0).size == 1


@pytest.mark.parametrize("name,tokens", [("7b", 2.38), ("13b", 2.48), ("33b", 2.52)])
def test_published_accuracies_predict_the_reference_tokens_per_step(name, tokens):
    accuracy = per_rank(name)
    found = trees.search(accuracy, 63)
    assert round(trees.expected_tokens(found, accuracy), 2) == tokens
    assert trees.expected_tokens(found, accuracy) == pytest.approx(1 + product_sum(found.choices, accuracy))


@pytest.mark.parametrize("nodes,tokens", [(7, 2.04), (15, 2.21), (31, 2.32), (127, 2.43), (255, 2.45)])
def test_7b_prediction_grows_with_the_tree_as_in_the_reference(nodes, tokens):
    accuracy = per_rank("7b")
    assert round(trees.expected_tokens(trees.search(accuracy, nodes), accuracy), 2) == tokens


def test_7b_prediction_for_a_chain_of_five():
    assert round(trees.expected_tokens(trees.chain(5), per_rank("7b")), 2) == 1.78


@pytest.mark.parametrize("name", PUBLISHED)
def test_searched_63_node_trees_have_the_shape_of_the_official_ones(name):
    # The published figures end at rank 5; the official trees were searched with 10 ranks. A 1/rank tail from
    # the fifth rank on stands for the missing half.
    five = per_rank(name)
    accuracy = np.concatenate([five, five[:, 4:] * 5 / np.arange(6, 11)], axis=1)[:4]
    found = trees.search(accuracy, 63)
    histogram = np.bincount(found.depth)[1:]
    assert histogram.sum() == 63 and histogram[0] == 10 and found.rank.max() == 9
    assert len(histogram) == 4  # official: 10/19..34/19..25/0..9
    assert 19 <= histogram[1] <= 34 and 19 <= histogram[2] <= 25 and 0 <= histogram[3] <= 9
    assert all(path[:-1] in found.choices for path in found.choices if len(path) > 1)
    assert trees.search(five[:4], 63).rank.max() == 4  # five ranks of data, no tenth guess


def test_expected_tokens_of_a_tree_by_hand():
    accuracy = [[0.5, 0.25], [0.4, 0.2]]
    # 1 + .5 + .25 + .5*.4 + .25*.2 = 2.0
    assert trees.expected_tokens(Tree.from_paths([(0,), (1,), (0, 0), (1, 1)]), accuracy) == pytest.approx(
        2.0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trees.search([[0.5, 0.2]], 3), "3 nodes asked for, but 1 levels of 2 ranks hold 0 to 2"),
        (lambda: trees.search([0.5], 1), r"accuracy must be \(heads, ranks\)"),
        (lambda: trees.search([[1.5]], 1), "numbers from 0 to 1"),
        (lambda: trees.search([[float("nan")]], 1), "numbers from 0 to 1"),
        (lambda: trees.expected_tokens(trees.chain(2), [[0.5]]), "2 deep but there are 1 heads"),
        (lambda: trees.expected_tokens(trees.dense([3]), [[0.5, 0.1]]), "rank 2, but accuracy has 2 ranks"),
    ],
)
def test_bad_search_input_is_refused(call, message):
    with pytest.raises(TreeError, match=message):
        call()


def test_a_tree_from_parents_is_the_tree_of_its_paths():
    for seed in range(5):
        tree = random_tree(12, 4, 3, np.random.default_rng(seed))
        dense_ranks = Tree.from_parents(tree.parents)
        assert dense_ranks.parents == tree.parents and (dense_ranks.mask == tree.mask).all()
        assert (dense_ranks.depth == tree.depth).all() and (dense_ranks.paths == tree.paths).all()
    assert Tree.from_parents([-1]).size == 1


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([], "the first node is the root"),
        ([0], "the first node is the root"),
        ([-1, 1], "node 1 has parent 1"),
        ([-1, -1], "node 1 has parent -1"),
        ([-1, 0, 1, 0], r"node 3 \(parent 0\) comes too late"),
        ([-1, 0, 0, 2, 1], r"node 4 \(parent 1\) comes too late"),
    ],
)
def test_parents_that_are_no_tree_in_row_order_are_refused(parents, message):
    with pytest.raises(TreeError, match=message):
        Tree.from_parents(parents)
