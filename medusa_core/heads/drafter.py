"""What kinds of heads share: the base's LM head over the tokens they can guess, their targets, and their file."""

from __future__ import annotations

import numpy as np

from medusa_core import runtime
from medusa_core.config import HeadsConfig
from medusa_core.losses import OUTSIDE
from medusa_core.top import highest

runtime.start()
import jittor as jt


class Drafter(jt.Module):
    """Parameters are the Vars of a subclass; attributes with a leading underscore are frozen.

    Jittor does not list those as parameters, so they are neither trained nor saved.
    """

    BASE_METHODS: tuple[str, ...] = ()  # of the base, which the constructor takes under their names
    LOSS_SETTINGS: tuple[str, ...] = ()  # of TrainConfig, which `loss` takes under their names
    INDEPENDENT = False  # a guess does not depend on the guesses before it

    def __init__(self, config: HeadsConfig, lm_head: np.ndarray, draft_ids=None):
        """lm_head (v, d) float32: the base's LM head, its rows `draft_ids` (v,) when those are given."""
        self.config = config
        if lm_head.shape != (config.output_size, config.hidden_size):
            wanted = (config.output_size, config.hidden_size)
            raise ValueError(f"lm_head has shape {lm_head.shape}, expected {wanted}")
        self._lm_head = jt.array(np.ascontiguousarray(lm_head, np.float32)).stop_grad()
        self._packed = None  # made when the first draft is asked for
        self._draft_ids = None if draft_ids is None else np.asarray(draft_ids, np.int32)

    def targets(self, batch) -> np.ndarray:
        """Return (K, N) int32 what the heads should guess, as indices of their logits (see losses.py)."""
        return self.to_draft(batch.tokens[1:])

    def base_logits(self, hidden):
        """The base's logits (m, v) of hidden states (m, d), over the heads' vocabulary."""
        with jt.no_grad():
            return jt.nn.linear(hidden, self._lm_head)

    def to_draft(self, tokens: np.ndarray) -> np.ndarray:
        """Map token ids to indices of the logits: OUTSIDE where there is none, negative values stay."""
        if self._draft_ids is None:
            return tokens.astype(np.int32)
        index = np.full(self.config.vocab_size, OUTSIDE, np.int32)
        index[self._draft_ids] = np.arange(len(self._draft_ids), dtype=np.int32)
        return np.where(tokens >= 0, index[np.maximum(tokens, 0)], tokens).astype(np.int32)

    def to_tokens(self, ids: np.ndarray) -> np.ndarray:
        """Map indices of the logits to token ids."""
        return ids if self._draft_ids is None else self._draft_ids[ids]

    def check_width(self, k: int) -> None:
        """Raise ValueError unless k tokens can be guessed, at least one."""
        if not 1 <= k <= self.config.output_size:
            raise ValueError(f"the tree ranks {k} tokens but the heads know {self.config.output_size}")

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what the heads' file holds, under the names of `shapes`."""
        tensors = {name: value.numpy() for name, value in self.state_dict().items()}
        return tensors if self._draft_ids is None else {**tensors, "draft_ids": self._draft_ids}

    def load_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Set every parameter from checked tensors."""
        for name, parameter in self.state_dict().items():
            parameter.assign(jt.array(tensors[name].astype(np.float32)))
        self._packed = None


def top_logprobs(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and log-probabilities (n, k) of the largest of logits (n, v), best first, ties by index."""
    ids = highest(logits, k)
    top = logits.max(axis=1, keepdims=True)
    norm = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return ids, np.take_along_axis(logits, ids, axis=1) - norm
