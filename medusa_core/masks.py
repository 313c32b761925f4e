"""Attention masks from one definition: a query may see a key iff the key is on the query's own path.

The path of a token is everything before it in its text; of a tree node, the prefix and then its ancestors.
True means "may look". A sliding window of w further limits a query to the last w positions, itself included.
"""

from __future__ import annotations

import numpy as np

from medusa_core.tree import Tree

OPEN = ("prefix", "ancestor", "self")
CLOSED = ("future", "sibling branch", "padding", "outside window")


def causal(length: int, past: int = 0, window: int | None = None) -> np.ndarray:
    """Mask (length, past + length) of `length` new tokens after `past` cached ones; past 0 is training or prefill."""
    query = np.arange(past, past + length)[:, None]
    key = np.arange(past + length)
    mask = key <= query
    if window is not None:
        mask &= query - key < _checked_window(window)
    return mask


def padded(valid: np.ndarray, window: int | None = None) -> np.ndarray:
    """Training mask (B, T, T): causal, and no query sees a padded key.

    valid (B, T) is True for real tokens, padding on either side. A padded position sees itself, so that no
    softmax row is empty; its output means nothing.
    """
    valid = np.asarray(valid, dtype=bool)
    if valid.ndim != 2:
        raise ValueError(f"valid must be (batch, length), got shape {valid.shape}")
    length = valid.shape[1]
    mask = causal(length, window=window) & valid[:, None, :]
    mask[:, np.arange(length), np.arange(length)] = True
    return mask


def tree_mask(tree: Tree, past: int, window: int | None = None) -> np.ndarray:
    """Mask (n, past + n) of one verification step: the whole past, then ancestors and self only.

    Node i stands at position past + depth[i]; the window counts positions, not rows.
    """
    mask = np.ones((tree.size, past + tree.size), dtype=bool)
    mask[:, past:] = tree.mask
    if window is not None and past + tree.max_depth >= _checked_window(window):
        query = past + tree.depth[:, None]
        key = np.concatenate([np.arange(past), past + tree.depth])
        mask &= query - key < window
    return mask


def positions(tree: Tree, past: int) -> np.ndarray:
    """Position ids (n,) int32 of a verification step: siblings compete for the same position."""
    return tree.depth + np.int32(past)


def reason(
    query: int, key: int, past: int = 0, tree: Tree | None = None, valid=None, window: int | None = None
) -> str:
    """Why one cell is open ("prefix", "ancestor", "self") or closed (one of CLOSED).

    query counts the new tokens or nodes, key counts columns (past first). valid (past + T,) marks real keys
    of one sample; without it there is no padding. With a tree, rows are its nodes.
    """
    own = key - past  # the key's row, negative in the past
    if valid is not None and not valid[key] and own != query:
        return "padding"
    if own < 0:
        distance, why = _depth(tree, query) + past - key, "prefix"
    elif own == query:
        distance, why = 0, "self"
    elif tree is None:
        distance, why = query - own, "prefix" if own < query else "future"
    elif tree.mask[query, own]:
        distance, why = tree.depth[query] - tree.depth[own], "ancestor"
    else:
        distance, why = 0, "future" if tree.mask[own, query] else "sibling branch"
    return "outside window" if window is not None and distance >= _checked_window(window) else why


def _depth(tree: Tree | None, query: int) -> int:
    return query if tree is None else int(tree.depth[query])


def _checked_window(window: int) -> int:
    if window < 1:
        raise ValueError(f"window {window} must be at least 1: a query sees itself")
    return window
