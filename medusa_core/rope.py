"""Rotary position tables with the scalings of published checkpoints."""

from __future__ import annotations

import math

import numpy as np

from medusa_core.config import ModelConfig


def frequencies(config: ModelConfig) -> np.ndarray:
    """Angle per position of each pair of features, (head_dim / 2,) float64.

    Plain, "linear" (positions divided by a factor) and "llama3" (only long wavelengths are stretched, with a smooth
    band between; Llama 3.1 model card) scaling.
    """
    pairs = np.arange(0, config.head_dim, 2) / config.head_dim
    angle = config.rope_theta**-pairs
    scaling = config.rope_scaling
    if scaling is None:
        return angle
    if scaling["rope_type"] == "linear":
        return angle / scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * angle / (2 * math.pi)  # over the original context
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * angle + (1 - kept) * angle / scaling["factor"]


def tables(config: ModelConfig, length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of every position below `length`, each (length, head_dim / 2) float32."""
    angle = np.arange(length)[:, None] * frequencies(config)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
