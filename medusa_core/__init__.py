"""Medusa decoding on Jittor: base model, masks, trees, heads, training and benchmarks."""

__version__ = "0.1.0"
