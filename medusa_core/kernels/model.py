"""A base model on the CPU kernels: packed weights, one op a forward, bits that do not depend on the batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medusa_core import rope, runtime
from medusa_core.cache import Cache
from medusa_core.config import ModelConfig
from medusa_core.kernels.ops import STAGES, Kernels, place, room
from medusa_core.kernels.pack import pack, unpack_rows
from medusa_core.kernels.walk import walks

runtime.start()
import jittor as jt

ROWS_AT_ONCE = 192  # of a long prefill; keeps the activations in the second-level cache


class KernelCache(Cache):
    """Keys and values as the kernels read them, (layers, batch, kv_heads, head_dim * slots) float32 each."""

    def __init__(self, config: ModelConfig, kernels: Kernels, batch: int, slots: int):
        super().__init__(batch, -(-slots // 16) * 16)
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, config.head_dim * self.slots)
        self.keys, self.values = jt.zeros(shape), jt.zeros(shape)
        self._kernels, self._head_dim = kernels, config.head_dim

    def _move(self, moves: np.ndarray) -> None:
        with jt.no_grad():
            self._kernels.commit(jt.array(moves), self._head_dim, self.keys, self.values)


class KernelModel:
    """Llama, Mistral or Qwen2 for inference on the CPU.

    weights: float arrays under their Hugging Face names; dtype: "bfloat16" or "float32", of the matrices and of what
    they are multiplied with. Sums are float32. A row's result has the same bits whatever rows share the call.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, np.ndarray],
        dtype: str = "bfloat16",
        isa=None,
        dot=None,
        tiles=None,
    ):
        if config.head_dim % 16 or config.hidden_size % 16 or config.intermediate_size % 16:
            raise ValueError(
                "the CPU kernels need head_dim, hidden_size and intermediate_size in multiples of 16"
            )
        self.config = config
        self._kernels = Kernels(dtype, isa, dot, tiles)
        layers = [f"model.layers.{i}." for i in range(config.num_hidden_layers)]

        # One packed matrix a layer: the named ones on top of one another. A layer at a time is read and packed, so that
        # a model need not fit into memory twice.
        def stack(*names: str):
            stacked = None
            for i, layer in enumerate(layers):
                matrix = pack(np.concatenate([weights[f"{layer}{n}.weight"] for n in names]), dtype)
                stacked = room((len(layers), *matrix.shape), matrix.dtype) if stacked is None else stacked
                stacked.data[i] = matrix
            return stacked

        embedding = place(pack(weights["model.embed_tokens.weight"], dtype))
        self._lm_head = (
            embedding if config.tie_word_embeddings else place(pack(weights["lm_head.weight"], dtype))
        )
        qkv = [f"self_attn.{x}_proj" for x in "qkv"]
        norms = [
            weights[f"{layer}{n}_layernorm.weight"] for layer in layers for n in ("input", "post_attention")
        ]
        norms = np.stack([*norms, weights["model.norm.weight"]]).astype(np.float32)
        size = config.head_dim * (config.num_attention_heads + 2 * config.num_key_value_heads)
        bias = np.zeros((len(layers), size), np.float32)
        if config.attention_bias:
            bias[:] = [np.concatenate([weights[f"{layer}{n}.bias"] for n in qkv]) for layer in layers]
        self._weights = [
            embedding,
            stack(*qkv),
            stack("self_attn.o_proj"),
            stack("mlp.gate_proj", "mlp.up_proj"),
            stack("mlp.down_proj"),
            jt.array(norms),
            jt.array(bias),
        ]
        self._rope = [jt.array(table) for table in rope.tables(config, config.max_position_embeddings)]
        self._model = {
            "layers": len(layers),
            "hidden": config.hidden_size,
            "intermediate": config.intermediate_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "eps": config.rms_norm_eps,
        }

    def new_cache(self, batch: int = 1, length: int | None = None) -> KernelCache:
        """An empty cache for `batch` sequences of up to `length` rows (default: the model's context)."""
        return KernelCache(self.config, self._kernels, batch, length or self.config.max_position_embeddings)

    def __call__(self, ids, positions, mask, cache=None, rows=None):
        """Hidden states (B, T, d) after the final norm, for ids and positions (B, T) under mask (B, T, S) or (T, S).

        Without a cache S = T. With one, row b of the call is sequence rows[b] (default b): its T rows go to the slots
        behind the committed ones, and S = the longest committed length + T. Raises ValueError on ids, positions or
        masks out of range, and where a row sees one that comes after it and is computed later.
        """
        if cache is None:
            cache = self.new_cache(*np.atleast_2d(ids).shape)
        table, extra = _rows(*check_call(self.config, ids, positions, mask, cache, rows), cache)
        batch, tokens = np.atleast_2d(ids).shape
        _check_order(table, extra)
        with jt.no_grad():
            hidden = [
                self._forward(table[i : i + ROWS_AT_ONCE], extra[i : i + ROWS_AT_ONCE], cache)
                for i in range(0, len(table), ROWS_AT_ONCE)
            ]
            hidden = hidden[0] if len(hidden) == 1 else jt.concat(hidden)
            return hidden.reshape(batch, tokens, self.config.hidden_size)

    def stage_seconds(self, ids, positions, mask, cache) -> dict[str, float]:
        """Run a forward over at most ROWS_AT_ONCE rows for its time alone: seconds of each of kernels.ops.STAGES."""
        table, extra = _rows(*check_call(self.config, ids, positions, mask, cache, None), cache)
        with jt.no_grad():
            seconds = jt.zeros(len(STAGES))
            self._forward(table, extra, cache, seconds).sync()
            return dict(zip(STAGES, seconds.numpy().tolist()))

    def _forward(self, table: np.ndarray, extra: np.ndarray, cache: KernelCache, seconds=None):
        table, extra = jt.array(table.astype(np.int32)), jt.array(extra)
        return self._kernels.forward(
            self._model, self._weights, self._rope, table, extra, cache.keys, cache.values, seconds
        )

    def logits(self, hidden):
        """Logits (..., V) of hidden states (..., d)."""
        with jt.no_grad():
            flat = hidden.reshape(-1, self.config.hidden_size)
            out = self._kernels.logits(flat, self._lm_head, self.config.vocab_size)
            return out.reshape(*hidden.shape[:-1], self.config.vocab_size)

    def top(self, hidden, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The k highest logits of hidden states (n, d): ids (n, k) int32 and values (n, k), highest first."""
        n, vocab = hidden.shape[0], self.config.vocab_size
        if tuple(hidden.shape) != (n, self.config.hidden_size) or not 1 <= k <= vocab:
            raise ValueError(
                f"the {k} best of {vocab} tokens asked for, of hidden states {tuple(hidden.shape)}"
            )
        with jt.no_grad():
            ids, values = self._kernels.top(hidden, self._lm_head, self.config.vocab_size, k)
            return ids.numpy(), values.numpy()

    def lm_head_rows(self, ids) -> np.ndarray:
        """Rows of the LM head for the tokens `ids`, (len(ids), d) float32."""
        return unpack_rows(self._lm_head.numpy(), ids)

    def embedding_rows(self, ids) -> np.ndarray:
        """Rows of the token embedding for the tokens `ids`, (len(ids), d) float32."""
        return unpack_rows(self._weights[0].data, ids)  # a view: training asks at every update


def _rows(ids, positions, mask, rows, cache) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's table of rows (B T, 7) and their single slots (B T, D), from the arguments of a checked call."""
    batch, tokens = ids.shape
    start, end, count, extra = walks(mask.reshape(batch * tokens, -1))
    slot = cache.length[rows][:, None] + np.arange(tokens)
    columns = [ids.ravel(), np.repeat(rows, tokens), positions.ravel(), slot.ravel(), start, end, count]
    return np.stack(columns, axis=1), extra


def _check_order(table: np.ndarray, extra: np.ndarray) -> None:
    """Raise ValueError where a row sees a slot of its sequence that only a later part of the call fills."""
    last = np.maximum(table[:, 5] - 1, extra.max(axis=1)) if len(table) > ROWS_AT_ONCE else ()
    for begin in range(0, len(last), ROWS_AT_ONCE):
        part = table[begin : begin + ROWS_AT_ONCE]
        cut = part[:, 1] == part[-1, 1]  # of the sequence that the next part may go on with
        if (last[begin : begin + ROWS_AT_ONCE][cut] > part[-1, 3]).any():
            raise ValueError(f"a row sees one that comes after it, among more than {ROWS_AT_ONCE}")


def check_call(config: ModelConfig, ids, positions, mask, cache, rows):
    """The arguments of a base model's call as arrays: ids, positions (B, T), mask (B, T, S), rows (B,).

    Raises ValueError on ids, positions or a mask out of range, CacheFull when the rows do not fit.
    """
    ids, positions = np.atleast_2d(ids), np.atleast_2d(positions)
    batch, tokens = ids.shape
    rows = np.arange(batch) if rows is None else np.asarray(rows)
    known = batch if cache is None else len(cache.length)
    if rows.shape != (batch,) or not 0 <= min(rows) <= max(rows) < known or len(set(rows.tolist())) < batch:
        raise ValueError(
            f"rows are {rows.tolist()}: expected {batch} different numbers from 0 to {known - 1}"
        )
    slots, length = tokens, 0
    if cache is not None:
        cache.reserve(tokens, rows)
        length = cache.length[rows]  # (B,)
        slots += int(length.max())
    if mask.shape[-2:] != (tokens, slots):
        raise ValueError(f"the mask is {mask.shape[-2:]} for {tokens} rows over {slots} slots")
    for values, what, limit in (
        (ids, "token id", config.vocab_size),
        (positions, "position", config.max_position_embeddings),
    ):
        if values.size == 0 or values.min() < 0 or values.max() >= limit:
            raise ValueError(f"a {what} lies outside [0, {limit}), or there is none")
    mask = np.broadcast_to(mask, (batch, tokens, slots))
    if batch > 1 and (mask & (np.arange(slots) >= np.reshape(length + tokens, (-1, 1, 1)))).any():
        raise ValueError("the mask lets a row see slots behind its sequence's own, which hold nothing")
    return ids, np.broadcast_to(positions, ids.shape), mask, rows
