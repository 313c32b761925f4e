"""Recurrent drafters: one cell for all depths, which hears each guessed token before it makes the next guess.

Where Medusa's heads each look at one hidden state alone, a cell steps along the tokens: guess k follows from the
hidden state and the embeddings of the k tokens before it, in training the true ones, in drafting those of the
tree's node. cells.py holds the cells, this file the loop over depths that they share.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from medusa_core import runtime
from medusa_core.config import HeadsConfig
from medusa_core.heads.cells import CELLS, EPS
from medusa_core.heads.drafter import Drafter, top_logprobs
from medusa_core.losses import medusa1_loss, row_weights, smooth_l1
from medusa_core.tree import check_depth

runtime.start()
import jittor as jt

from medusa_core.kernels.ops import Kernels, place
from medusa_core.kernels.pack import pack, store


class RecurrentHeads(Drafter):
    """A cell of kind `config.kind`, unrolled to depth K = num_heads, on the base's frozen LM head."""

    BASE_METHODS = ("embedding_rows",)
    LOSS_SETTINGS = ("feature_weight",)

    def __init__(self, config: HeadsConfig, lm_head: np.ndarray, draft_ids=None, *, embedding_rows):
        """embedding_rows(ids (n,)) -> (n, d): the base's embedding; the rest as `Drafter`."""
        super().__init__(config, lm_head, draft_ids)
        self.cell = CELLS[config.kind](config.hidden_size, config.state_size)
        self._embedding_rows = embedding_rows

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """Embeddings (..., d) float32 of tokens (...), scaled to a root mean square of 1; below 0, those of token 0.

        A base normalises its embeddings before its first layer, too: their own scale says little, and in
        SmolLM2 it is a fourteenth of the hidden states'.
        """
        ids, row = np.unique(np.maximum(tokens, 0), return_inverse=True)  # a block's tokens repeat K times
        rows = self._embedding_rows(ids)
        rows = rows / np.sqrt((rows * rows).mean(axis=1, keepdims=True) + EPS)
        return rows[row].reshape(*tokens.shape, -1)

    def outputs(self, hidden, embeddings):
        """What the LM head reads at each depth, (K, N, d), after hidden (N, d) and embeddings (K, N, d)."""
        state, outputs = self.cell.state_from(hidden), []
        for depth in range(self.config.num_heads):
            state = self.cell.step(state, embeddings[depth])
            outputs.append(self.cell.output(hidden, state))
        return jt.stack(outputs)

    def execute(self, hidden, embeddings):
        """Logits (K, N, v) of the tokens 2 .. K + 1 places on, given the embeddings of those before each."""
        return self.logits(self.outputs(hidden, embeddings))

    def logits(self, outputs):
        """Logits (..., v) of cell outputs (..., d), as one product."""
        flat_outputs = outputs.reshape((-1, outputs.shape[-1]))
        return jt.nn.linear(flat_outputs, self._lm_head).reshape((*outputs.shape[:-1], -1))

    def loss(self, batch, counts, decay: float, teacher_weight: float, feature_weight: float = 0.0):
        """Loss of a `hidden.Batch`, teacher-forced: `medusa1_loss`, and what the outputs miss of the base's states.

        feature_weight: of the smooth L1 distance between a guess's output and the state that the base chose that
        token from; it covers the rows that the cross-entropy covers. Returns HeadLoss, whose rows leave it out.
        """
        self._packed = None  # the weights are about to change
        teacher = self.base_logits(jt.array(batch.teacher_hidden)) if teacher_weight else None
        targets = self.targets(batch)
        outputs = self.outputs(jt.array(batch.hidden), jt.array(self.embed(batch.tokens[:-1])))
        logits = self.logits(outputs)
        result = medusa1_loss(logits, targets, decay, counts, teacher, batch.teacher_row, teacher_weight)
        if not feature_weight:
            return result
        missed = smooth_l1(outputs, jt.array(batch.teacher_hidden[batch.teacher_row]))  # (K, N)
        weights = jt.array(feature_weight * row_weights(targets, decay, counts))
        return dataclasses.replace(result, loss=result.loss + (missed * weights).sum())

    def draft(self, hidden, token: int, tree):
        """Fill a tree with guesses from the last hidden state (d,), a jt.Var or NumPy array.

        Returns tokens (n,) int32, the root being `token`, and logprob (n,) float32 of each node given its
        parent. Raises TreeError when the tree is deeper than K.
        """
        check_depth(tree, self.config.num_heads)
        if tree.size == 1:
            return np.array([token], np.int32), np.zeros(1, np.float32)
        self.check_width(int(tree.rank.max()) + 1)
        with jt.no_grad():
            if jt.flags.use_cuda:
                return self.draft_plain(jt.array(hidden), token, tree)
            self._packed = self._packed or PackedCell(self)
            return self._packed.draft(jt.array(hidden), self.embed(np.array([token])), token, tree)

    def draft_plain(self, hidden, token: int, tree):
        """The same in Jittor's own operators and NumPy: what CUDA runs, and the tests' oracle."""
        tokens = np.full(tree.size, token, np.int32)
        logprob = np.zeros(tree.size, np.float32)
        hidden = hidden.reshape((1, -1))
        state, row = (
            self.cell.state_from(hidden),
            np.zeros(tree.size, np.int32),
        )  # each node's row of the state
        for depth in range(tree.max_depth):
            below = np.flatnonzero(tree.depth == depth + 1)
            nodes = np.unique(tree.parent[below])
            above = jt.array(row[tree.parent[nodes]]) if depth else jt.array(np.zeros(1, np.int32))
            state = self.cell.step(tuple(part[above] for part in state), jt.array(self.embed(tokens[nodes])))
            row[nodes] = np.arange(len(nodes))
            logits = self.logits(self.cell.output(hidden, state)).numpy()  # (nodes, v)
            ids, values = top_logprobs(logits, int(tree.rank[below].max()) + 1)
            chosen = row[tree.parent[below]], tree.rank[below]
            tokens[below], logprob[below] = self.to_tokens(ids[chosen]), values[chosen]
        return tokens, logprob

    @staticmethod
    def shapes(config: HeadsConfig) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor in the file of heads with this config."""
        cell = CELLS[config.kind].shapes(config.hidden_size, config.state_size)
        shapes = {f"cell.{name}": shape for name, shape in cell.items()}
        return shapes if config.output == "shared" else {**shapes, "draft_ids": (config.draft_vocab_size,)}


class PackedCell:
    """A copy of recurrent heads for the CPU kernel, and of the embeddings of the tokens they can guess.

    In bfloat16 by default: drafts may be rounded, since none can change the output.
    """

    def __init__(self, heads: RecurrentHeads, dtype: str = "bfloat16", isa: int | None = None):
        config, cell = heads.config, heads.cell
        values = [getattr(cell, name).numpy() for name in cell.shapes(config.hidden_size, config.state_size)]
        matrices = [pack(value, dtype).ravel() for value in values if value.ndim == 2]
        self._matrices = place(np.concatenate(matrices))
        self._vectors = jt.array(np.concatenate([value for value in values if value.ndim == 1]))
        self._embedding = place(store(heads.embed(heads.to_tokens(np.arange(config.output_size))), dtype))
        self._lm_head = place(pack(heads._lm_head.numpy(), dtype))
        self._kernels, self._config, self._to_tokens = Kernels(dtype, isa), config, heads.to_tokens

    def draft(self, hidden, embedding: np.ndarray, token: int, tree):
        """As `RecurrentHeads.draft`; embedding (1, d): that of `token`."""
        nodes = jt.array(np.stack([tree.parent, tree.depth, tree.rank]))
        weights = [self._matrices, self._vectors, self._embedding, self._lm_head]
        ids, logprob = self._kernels.draft_tree(
            self._config.kind,
            self._config.state_size,
            hidden,
            jt.array(embedding),
            nodes,
            weights,
            self._config.output_size,
        )
        tokens = self._to_tokens(ids.numpy())
        tokens[0] = token
        return tokens.astype(np.int32), logprob.numpy()
