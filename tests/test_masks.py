"""Masks against the definition "query i may see key j iff j is on i's path", worked out by slow loops."""

import numpy as np
import pytest
from random_trees import random_tree

from medusa_core import masks
from medusa_core.tree import Tree

RNG_SEED = 3


def text_path(query, past):
    """Keys on the path of new token `query` in plain text."""
    return list(range(past + query + 1))


def node_path(tree, query, past):
    """Keys on the path of node `query`, found from rank paths alone: the past, then its prefixes."""
    nodes = [(), *tree.choices]
    path = nodes[query]
    return list(range(past)) + [past + nodes.index(path[:end]) for end in range(len(path) + 1)]


def from_paths(paths, keys, window=None):
    """The mask whose row q is open at the last `window` entries of paths[q]."""
    mask = np.zeros((len(paths), keys), dtype=bool)
    for query, path in enumerate(paths):
        for key in path if window is None else path[-window:]:
            mask[query, key] = True
    return mask


def trees(count):
    rng = np.random.default_rng(RNG_SEED)
    return [random_tree(int(rng.integers(1, 25)), depth=4, width=4, rng=rng) for _ in range(count)]


@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize("past", [0, 1, 7])
def test_causal_mask_is_the_path_of_each_token(past, window):
    expected = from_paths([text_path(query, past) for query in range(6)], past + 6, window)
    assert np.array_equal(masks.causal(6, past, window), expected)


def test_cached_step_is_the_last_rows_of_the_whole_mask():
    assert np.array_equal(masks.causal(3, past=5), masks.causal(8)[5:])
    assert np.array_equal(masks.causal(3, past=5, window=4), masks.causal(8, window=4)[5:])


@pytest.mark.parametrize("window", [None, 1, 2, 5, 50])
@pytest.mark.parametrize("past", [0, 1, 6])
def test_tree_mask_is_the_path_of_each_node(past, window):
    for tree in trees(15):
        expected = from_paths([node_path(tree, q, past) for q in range(tree.size)], past + tree.size, window)
        assert np.array_equal(masks.tree_mask(tree, past, window), expected)


def test_every_path_of_a_tree_sees_what_it_would_see_as_plain_text():
    tree, past, window = trees(1)[0], 5, 4
    full = masks.tree_mask(tree, past, window)
    for row in tree.paths:
        path = row[row >= 0]
        columns = np.concatenate([np.arange(past), past + path])
        assert np.array_equal(full[np.ix_(path, columns)], masks.causal(len(path), past, window))


def test_positions_of_a_path_continue_the_past():
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 1)])
    assert masks.positions(tree, past=10).tolist() == [10, 11, 11, 12, 12]
    assert masks.positions(tree, past=10).dtype == np.int32


@pytest.mark.parametrize("window", [None, 2])
def test_padding_hides_keys_on_either_side(window):
    valid = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    mask = masks.padded(valid, window)
    assert mask.shape == (3, 5, 5)
    for b in range(3):
        for query in range(5):
            for key in range(5):
                near = window is None or query - key < window
                expected = key == query or (key < query and near and valid[b, key])
                assert mask[b, query, key] == expected, (b, query, key)


def test_left_padding_leaves_the_causal_mask_of_the_text():
    mask = masks.padded(np.array([[False, False, True, True, True]]))
    assert np.array_equal(mask[0, 2:, 2:], masks.causal(3))
    assert not mask[0, 2:, :2].any()


@pytest.mark.parametrize("window", [None, 2, 4])
def test_reason_is_open_exactly_where_the_mask_is(window):
    past = 3
    for tree in trees(5):
        mask = masks.tree_mask(tree, past, window)
        for query, key in np.ndindex(mask.shape):
            why = masks.reason(query, key, past, tree, window=window)
            assert (why in masks.OPEN) == mask[query, key], (query, key, why)
            assert why in masks.OPEN + masks.CLOSED
    mask = masks.causal(5, past, window)
    for query, key in np.ndindex(mask.shape):
        assert (masks.reason(query, key, past, window=window) in masks.OPEN) == mask[query, key]
    valid = np.array([False, True, True, False])
    mask = masks.padded(valid[None], window)[0]
    for query, key in np.ndindex(mask.shape):
        assert (masks.reason(query, key, valid=valid, window=window) in masks.OPEN) == mask[query, key]


def test_reasons_of_chosen_cells():
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 1)])  # rows: root, 0, 1, 00, 01
    row = [masks.reason(3, key, 2, tree) for key in range(7)]
    assert row == ["prefix", "prefix", "ancestor", "ancestor", "sibling branch", "self", "sibling branch"]
    assert [masks.reason(1, key, 2, tree) for key in (5, 6)] == ["future", "future"]
    assert masks.reason(3, 0, 2, tree, window=3) == "outside window"
    assert [masks.reason(1, key, past=2) for key in range(5)] == [
        "prefix",
        "prefix",
        "prefix",
        "self",
        "future",
    ]
    assert masks.reason(2, 0, valid=[False, True, True]) == "padding"
    assert masks.reason(0, 0, valid=[False, True, True]) == "self"


def test_bad_window_and_shape_are_refused():
    with pytest.raises(ValueError, match="window 0 must be at least 1"):
        masks.causal(3, window=0)
    with pytest.raises(ValueError, match=r"valid must be \(batch, length\)"):
        masks.padded(np.ones(3, dtype=bool))
