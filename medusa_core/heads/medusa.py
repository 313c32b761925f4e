"""Medusa heads: K independent guesses of tokens 2..K+1 ahead from one hidden state (Medusa paper, 2.1)."""

from __future__ import annotations

import numpy as np

from medusa_core import runtime
from medusa_core.config import HeadsConfig
from medusa_core.heads.drafter import Drafter, top_logprobs
from medusa_core.losses import medusa1_loss
from medusa_core.tree import check_depth

runtime.start()
import jittor as jt

from medusa_core.kernels.grouped_linear import grouped_linear
from medusa_core.kernels.ops import Kernels, place
from medusa_core.kernels.pack import pack


class MedusaHeads(Drafter):
    """K heads of L residual blocks x + SiLU(W x + b), then an own, shared or restricted LM head.

    W and b start at zero, so untrained heads give the base's own logits. Blocks are stored by layer, all
    heads together: weight{l} (K, d, d), bias{l} (K, d), float32.
    """

    INDEPENDENT = True

    def __init__(self, config: HeadsConfig, lm_head: np.ndarray, draft_ids=None):
        """Arguments as `Drafter`."""
        super().__init__(config, lm_head, draft_ids)
        for name, value in self.initial_trunks().items():
            setattr(self, name, value)
        if config.output == "own":
            self.lm_head = jt.array(np.tile(lm_head.astype(np.float32), (config.num_heads, 1, 1)))

    def initial_trunks(self) -> dict:
        """The parameters of the trunks before training, by name."""
        shapes = self.trunk_shapes(self.config)
        return {name: jt.zeros(shape) for name, shape in shapes.items()}

    def execute(self, hidden):
        """Logits (K, N, v) of hidden states (N, d); head k (from 0) guesses the token k + 2 places on."""
        return self.logits(self.trunks(hidden))

    def trunks(self, hidden):
        """What each head's LM head reads, (K, N, d), of hidden states (N, d)."""
        positions, d = hidden.shape
        x = hidden.reshape((1, positions, d))
        for layer in range(self.config.num_layers):
            weight, bias = getattr(self, f"weight{layer}"), getattr(self, f"bias{layer}")
            x = x + jt.nn.silu(grouped_linear(x, weight) + bias.reshape((-1, 1, d)))  # (K, N, d)
        return x

    def logits(self, x):
        """Logits (K, N, v) of the trunks' outputs (K, N, d)."""
        if self.config.output == "own":
            return grouped_linear(x, self.lm_head)
        # One product for all heads: 2-D, so that it goes through oneDNN.
        heads, positions, d = x.shape
        return jt.nn.linear(x.reshape((heads * positions, d)), self._lm_head).reshape((heads, positions, -1))

    def loss(self, batch, counts, decay: float, teacher_weight: float):
        """Medusa-1 loss of a `hidden.Batch`; counts (K,) as in `medusa1_loss`. Returns HeadLoss."""
        self._packed = None  # the weights are about to change
        teacher = self.base_logits(jt.array(batch.teacher_hidden)) if teacher_weight else None
        logits, targets = self(jt.array(batch.hidden)), self.targets(batch)
        return medusa1_loss(logits, targets, decay, counts, teacher, batch.teacher_row, teacher_weight)

    def draft(self, hidden, token: int, tree):
        """Fill a tree with guesses from the last hidden state (d,), a jt.Var or NumPy array.

        Returns tokens (n,) int32, the root being `token`, and logprob (n,) float32 of each node given its
        parent. Raises TreeError when the tree is deeper than there are heads.
        """
        check_depth(tree, self.config.num_heads)
        if tree.size == 1:
            return np.array([token], np.int32), np.zeros(1, np.float32)
        ids, values = self.guesses(hidden, int(tree.rank.max()) + 1)  # each (K, k)
        place = (tree.depth[1:] - 1, tree.rank[1:])
        tokens = np.full(tree.size, token, np.int32)
        logprob = np.zeros(tree.size, np.float32)
        tokens[1:], logprob[1:] = ids[place], values[place]
        return tokens, logprob

    def guesses(self, hidden, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Each head's k best tokens after hidden (d,), and their log-probabilities, both (K, k), best first."""
        self.check_width(k)
        hidden = jt.array(hidden)
        if jt.flags.use_cuda:
            ids, values = top_logprobs(self.head_logits(hidden), k)
        else:
            self._packed = self._packed or self.pack()
            ids, values = self._packed.top(hidden, k)
        return self.to_tokens(ids), values

    def head_logits(self, hidden) -> np.ndarray:
        """Logits (K, v) float32 of one hidden state (d,)."""
        with jt.no_grad():
            return self(hidden.reshape((1, -1))).numpy()[:, 0]

    def pack(self):
        """The copy that drafts on the CPU."""
        return PackedHeads(self)

    @staticmethod
    def trunk_shapes(config: HeadsConfig) -> dict[str, tuple[int, ...]]:
        """Return name and shape of the trunks' parameters."""
        heads, d, shapes = config.num_heads, config.hidden_size, {}
        for layer in range(config.num_layers):
            shapes |= {f"weight{layer}": (heads, d, d), f"bias{layer}": (heads, d)}
        return shapes

    @classmethod
    def shapes(cls, config: HeadsConfig) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor in the file of heads with this config."""
        shapes, d = cls.trunk_shapes(config), config.hidden_size
        if config.output == "own":
            shapes["lm_head"] = (config.num_heads, config.vocab_size, d)
        if config.output == "draft":
            shapes["draft_ids"] = (config.draft_vocab_size,)
        return shapes


class PackedHeads:
    """A bfloat16 copy of the heads for the CPU kernel: drafts may be rounded, since none can change the output."""

    def __init__(self, heads: MedusaHeads):
        config = heads.config
        layers = [getattr(heads, f"weight{layer}").numpy() for layer in range(config.num_layers)]
        biases = [getattr(heads, f"bias{layer}").numpy() for layer in range(config.num_layers)]
        self._weight = place(np.stack([np.stack([pack(w, "bfloat16") for w in layer]) for layer in layers]))
        self._bias = jt.array(np.stack(biases))
        self._lm_head = packed_lm_heads(heads)
        self._vocab, self._kernels = config.output_size, Kernels("bfloat16")

    def top(self, hidden, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices and log-probabilities (K, k) of each head's best tokens after hidden (d,)."""
        with jt.no_grad():
            ids, values = self._kernels.draft(hidden, self._weight, self._bias, self._lm_head, self._vocab, k)
            return ids.numpy(), values.numpy()


def packed_lm_heads(heads: MedusaHeads):
    """The LM heads, packed in bfloat16: (1, ...) for all heads or (K, ...)."""
    own = heads.config.output == "own"
    lm_heads = heads.lm_head.numpy() if own else heads._lm_head.numpy()[None]
    return place(np.stack([pack(w, "bfloat16") for w in lm_heads]))
