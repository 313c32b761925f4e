"""Packing of weight matrices for the CPU kernels (see linear.h), and its inverse."""

from __future__ import annotations

import ml_dtypes
import numpy as np

LANES = 16


def pack(weight: np.ndarray, dtype: str) -> np.ndarray:
    """Pack a (N, K) matrix in blocks of 16 rows.

    dtype "bfloat16": (N/16, K/2, 16, 2) uint16 bit patterns, rounded to nearest even; "float32": (N/16, K, 16).
    N is padded with zeros to a multiple of 16; K must be a multiple of 16.
    """
    rows, depth = weight.shape
    if depth % LANES:
        raise ValueError(f"a packed matrix needs a multiple of {LANES} input features, this one has {depth}")
    blocks = -(-rows // LANES)
    if blocks * LANES != rows:
        weight = np.concatenate([weight, np.zeros((blocks * LANES - rows, depth), weight.dtype)])
    stored = store(weight, dtype)
    if dtype == "float32":
        return np.ascontiguousarray(stored.reshape(blocks, LANES, depth).transpose(0, 2, 1))
    return np.ascontiguousarray(stored.reshape(blocks, LANES, depth // 2, 2).transpose(0, 2, 1, 3))


def store(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values as the kernels keep them, unpacked: uint16 bit patterns of bfloat16, or float32."""
    if dtype == "float32":
        return values.astype(np.float32)
    return values.astype(ml_dtypes.bfloat16).view(np.uint16)


def unpack_rows(packed: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return rows `ids` of a packed matrix as float32 (len(ids), K)."""
    block, lane = np.divmod(np.asarray(ids), LANES)
    if packed.dtype == np.float32:
        return packed[block, :, lane]
    picked = packed[block, :, lane, :].reshape(len(block), -1)  # (n, K/2, 2) -> (n, K)
    return (picked.astype(np.uint32) << 16).view(np.float32)
