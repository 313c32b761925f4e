"""Where two greedy answers part, and by how little: the evidence that a difference is a rounding tie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medusa_core import masks


def first_difference(base, prompt_ids: Sequence[int], plain: Sequence[int], drafted: Sequence[int]) -> dict:
    """Where two greedy answers part, and how close the base's two best logits are there.

    position counts answer tokens from 0; a token is None where an answer had ended. gap is the best logit
    minus the second, recomputed by one forward over the prompt and the tokens in common.
    """
    position = next(
        (n for n, pair in enumerate(zip(plain, drafted)) if pair[0] != pair[1]), min(len(plain), len(drafted))
    )
    ids = np.array([[*prompt_ids, *plain[:position]]], np.int32)  # (1, T)
    length = ids.shape[1]
    mask = masks.causal(length, window=base.config.sliding_window)
    hidden = base(ids, np.arange(length, dtype=np.int32)[None], mask[None])  # (1, T, d)
    tokens, logits = base.top(hidden[0, length - 1 :], 2)  # (1, 2)
    return {
        "position": position,
        "plain_token": plain[position] if position < len(plain) else None,
        "drafted_token": drafted[position] if position < len(drafted) else None,
        "top_tokens": tokens[0].tolist(),
        "top_logits": logits[0].tolist(),
        "gap": float(logits[0, 0] - logits[0, 1]),
    }
