"""How many bytes of weights a draft reads: what heads cost where memory is the limit."""

from __future__ import annotations

import math

from medusa_core import heads
from medusa_core.config import RECURRENT_KINDS, HeadsConfig

BYTES = 2  # of a weight: drafts read a bfloat16 copy
ONCE = ("cell.start", "cell.out_hidden", "cell.out_bias")  # of a cell: applied to the hidden state alone


def draft_megabytes(config: HeadsConfig, depth: int) -> float:
    """Megabytes of weights that drafting a tree of this depth reads.

    Medusa's and mixture heads are all computed, with one pass over a shared LM head. A recurrent cell is read anew
    at every depth, and so is the LM head, which few processor caches keep.
    """
    shapes = heads.kind(config.kind).shapes(config)
    numbers = sum(
        math.prod(shape) * _reads(name, config, depth)
        for name, shape in shapes.items()
        if name != "draft_ids"
    )
    if config.output != "own":
        lm_head = config.output_size * config.hidden_size
        numbers += lm_head * (depth if config.kind in RECURRENT_KINDS else 1)
    return BYTES * numbers / 1e6


def _reads(name: str, config: HeadsConfig, depth: int) -> float:
    """How often a draft reads a parameter: less than once where only the chosen experts are read."""
    if config.kind in RECURRENT_KINDS:
        return 1 if name in ONCE else depth
    if config.kind == "moe" and name in ("weight", "bias"):
        return config.active_experts / config.experts
    return 1
