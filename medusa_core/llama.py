"""The base model in plain Jittor ops (Llama, Mistral, Qwen2), and `load`, which picks it or the CPU kernels.

A base model is handed to everything that needs one, never inherited from. What it offers:

    base.config, base.folder, base.adapters              SHA-256 of the LoRA file in its weights, or None
    base.new_cache(batch, length)                        -> Cache
    base(ids, positions, mask, cache=None, rows=None)    -> hidden (B, T, d), after the final norm
    base.logits(hidden (..., d))                         -> (..., V)
    base.top(hidden (n, d), k)                           -> ids, values (n, k) NumPy
    base.stage_seconds(ids, positions, mask, cache)      -> seconds of each stage of that forward
    base.lm_head_rows(ids), base.embedding_rows(ids)     -> (len(ids), d) NumPy
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from medusa_core import lora, rope, runtime
from medusa_core.cache import Cache
from medusa_core.config import ModelConfig
from medusa_core.convert import read_model, resolve
from medusa_core.kernels.model import KernelModel, check_call
from medusa_core.model_folder import sha256
from medusa_core.top import highest

runtime.start()
import jittor as jt

from medusa_core.kernels.rounding import RoundBFloat16
from medusa_core.kernels.span_attention import attention

DTYPES = ("bfloat16", "float32")


def load(
    model: str | Path, dtype: str = "bfloat16", backend: str = "auto", adapters: str | Path | None = None
):
    """Load a base model: "embedded", or a folder that `medusa_core.convert` made.

    dtype: storage of the matrices. backend: "kernel" (CPU kernels), "plain" (stock Jittor ops, runs on CUDA too), or
    "auto": plain on a GPU, kernels otherwise. adapters: a LoRA file to merge into the weights, or the folder of heads
    that were trained with it. Raises ConvertError when the folder is not whole, LoraError or CheckpointError when the
    adapters are not, or are another model's.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown: expected one of {', '.join(DTYPES)}")
    folder = resolve(str(model))
    config, weights = read_model(folder)
    if adapters is not None:
        adapters = lora.file_of(adapters)
        config, weights = lora.merge_into(config, weights, adapters, folder)
    if backend == "auto":
        backend = "plain" if jt.flags.use_cuda else "kernel"
    base = {"kernel": KernelModel, "plain": Llama}[backend](config, weights, dtype)
    base.folder = folder
    base.adapters = None if adapters is None else sha256(adapters)
    return base


class PlainCache(Cache):
    """Keys and values (B, slots, kv_heads, head_dim) of each layer, as Jittor Vars."""

    def __init__(self, config: ModelConfig, batch: int, slots: int):
        super().__init__(batch, slots)
        shape = (batch, slots, config.num_key_value_heads, config.head_dim)
        self.keys = [jt.zeros(shape) for _ in range(config.num_hidden_layers)]
        self.values = [jt.zeros(shape) for _ in range(config.num_hidden_layers)]

    def write(self, layer: int, rows: np.ndarray, keys, values):
        """Put keys and values (B, T, kv_heads, head_dim) behind the committed rows.

        Returns what `rows` hold now, (B, S, kv_heads, head_dim), S slots of the longest of them.
        """
        slot = self.length[rows][:, None] + np.arange(keys.shape[1])  # (B, T)
        place = (jt.array(np.repeat(rows[:, None], slot.shape[1], 1)), jt.array(slot))
        self.keys[layer][place] = keys
        self.values[layer][place] = values
        stop, stores = int(slot.max()) + 1, (self.keys[layer], self.values[layer])
        if np.array_equal(rows, np.arange(len(self.length))):
            return [store[:, :stop] for store in stores]  # of all sequences: nothing to gather
        return [store[jt.array(rows), :stop] for store in stores]

    def _move(self, moves: np.ndarray) -> None:
        row, source, target = (jt.array(column) for column in moves.T)
        with jt.no_grad():
            for store in (*self.keys, *self.values):
                store[row, target] = store[row, source].copy()


class Llama(jt.Module):
    """Llama, Mistral or Qwen2 in stock Jittor ops: differentiable, on CPU or CUDA; the kernels' test oracle.

    weights: float arrays under their Hugging Face names. "bfloat16" rounds the matrices and what they are multiplied
    with. On CUDA both are half precision; on the CPU, where Jittor has no such products, float32 with bfloat16 values.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray], dtype: str = "bfloat16"):
        super().__init__()
        self.config = config
        self._rounds = dtype == "bfloat16" and not jt.flags.use_cuda
        half = "bfloat16" if dtype == "bfloat16" and jt.flags.use_cuda else "float32"
        self._names = {
            name: name.replace(".", "__") for name in weights
        }  # a Var's name is a Python attribute
        for name, attribute in self._names.items():
            value = weights[name]
            if value.ndim == 2 and dtype == "bfloat16":
                value = value.astype(ml_dtypes.bfloat16)
            value = jt.array(value.astype(np.float32))
            value = value if value.ndim == 1 else value.cast(half)
            value.sync()  # now, or all of them wait in float32 for the first forward
            setattr(self, attribute, value)
        self._names.setdefault("lm_head.weight", self._names["model.embed_tokens.weight"])  # tied
        self._adapters = None
        self._rope = rope.tables(config, config.max_position_embeddings)

    def weight(self, name: str):
        """The Var of a Hugging Face tensor name; a tied LM head is the embedding."""
        return getattr(self, self._names[name])

    def replace(self, name: str, value):
        """Put the Var `value` in the place of the weight `name`; returns the one that was there."""
        before = self.weight(name)
        self._names[name] = name.replace(".", "__")
        setattr(self, self._names[name], value)
        return before

    def adapt(self, adapters) -> None:
        """Let `lora.Adapters` add to the products of the matrices they name; None detaches them."""
        self._adapters = adapters

    def new_cache(self, batch: int = 1, length: int | None = None) -> PlainCache:
        """An empty cache for `batch` sequences of up to `length` rows (default: the model's context)."""
        return PlainCache(self.config, batch, length or self.config.max_position_embeddings)

    def execute(self, ids, positions, mask, cache=None, rows=None):
        """Hidden states (B, T, d) after the final norm; arguments as `KernelModel.__call__`.

        Only without a cache can it be differentiated: a cache would keep the graph of every step alive.
        """
        if cache is None:
            return self._forward(ids, positions, mask, None, rows)
        with jt.no_grad():
            return self._forward(ids, positions, mask, cache, rows)

    def _forward(self, ids, positions, mask, cache, rows):
        ids, positions, mask, rows = check_call(self.config, ids, positions, mask, cache, rows)
        angle = [jt.array(table[positions][:, :, None, :]) for table in self._rope]  # (B, T, 1, head_dim / 2)
        attend = attention(mask)
        x = self.weight("model.embed_tokens.weight")[jt.array(ids)].float32()
        for layer in range(self.config.num_hidden_layers):
            name = f"model.layers.{layer}."
            normed = self._norm(x, name + "input_layernorm")
            x = x + self._attention(normed, name + "self_attn.", angle, attend, cache, rows, layer)
            x = x + self._mlp(self._norm(x, name + "post_attention_layernorm"), name + "mlp.")
        return self._norm(x, "model.norm")

    def stage_seconds(self, ids, positions, mask, cache) -> dict[str, float]:
        """Run a forward for its time alone: seconds, as one stage, since the operators of all layers are fused anew."""
        begin = time.perf_counter()
        with jt.no_grad():
            self(ids, positions, mask, cache).numpy()
        return {"forward": time.perf_counter() - begin}

    def logits(self, hidden):
        """Logits (..., V) of hidden states (..., d)."""
        return self._linear(hidden, "lm_head")

    def top(self, hidden, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The k highest logits of hidden states (n, d): ids (n, k) int32 and values (n, k), highest first."""
        with jt.no_grad():
            logits = self.logits(hidden).numpy()
        ids = highest(logits, k)
        return ids.astype(np.int32), np.take_along_axis(logits, ids, axis=1)

    def lm_head_rows(self, ids) -> np.ndarray:
        """Rows of the LM head for the tokens `ids`, (len(ids), d) float32."""
        return self._rows("lm_head", ids)

    def embedding_rows(self, ids) -> np.ndarray:
        """Rows of the token embedding for the tokens `ids`, (len(ids), d) float32."""
        return self._rows("model.embed_tokens", ids)

    def _rows(self, name: str, ids) -> np.ndarray:
        return self.weight(name + ".weight")[jt.array(np.asarray(ids, np.int32))].float32().numpy()

    def _attention(self, x, name, angle, attend, cache, rows, layer):
        config, (batch, tokens, _) = self.config, x.shape
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        q = rotate(self._linear(x, name + "q_proj").reshape(batch, tokens, heads, size), *angle)
        k = rotate(self._linear(x, name + "k_proj").reshape(batch, tokens, kv_heads, size), *angle)
        v = self._linear(x, name + "v_proj").reshape(batch, tokens, kv_heads, size)
        if cache is not None:
            k, v = cache.write(layer, rows, k, v)
        mixed = attend(q, k, v)  # (B, T, heads, head_dim)
        return self._linear(mixed.reshape(batch, tokens, heads * size), name + "o_proj")

    def _mlp(self, x, name):
        gate = self._linear(x, name + "gate_proj")
        return self._linear(gate * jt.sigmoid(gate) * self._linear(x, name + "up_proj"), name + "down_proj")

    def _linear(self, x, name):
        weight = self.weight(name + ".weight")
        rows = x.reshape(-1, x.shape[-1])  # two dimensions: only those products go to the BLAS
        read = RoundBFloat16.apply(rows) if self._rounds else rows.cast(weight.dtype)
        y = jt.nn.matmul_transpose(read, weight).float32()
        if self._adapters is not None and (added := self._adapters(rows, name)) is not None:
            y = y + added
        if name + ".bias" in self._names:
            y = y + self.weight(name + ".bias")
        return y.reshape(*x.shape[:-1], weight.shape[0])

    def _norm(self, x, name):
        scale = jt.rsqrt(jt.mean(x * x, dim=-1, keepdims=True) + self.config.rms_norm_eps)
        return x * scale * self.weight(name + ".weight")


def rotate(x, cosine, sine):
    """Rotary embedding of x (B, T, heads, head_dim) by angles (B, T, 1, head_dim / 2), halves rotated together."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return jt.concat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
