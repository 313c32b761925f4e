"""Small random base models for tests: configuration and weights under their Hugging Face names."""

from pathlib import Path

import ml_dtypes
import numpy as np

from medusa_core.config import ModelConfig
from medusa_core.model_folder import write_folder


def tiny(seed: int = 0, **changes) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """A model of 2 layers and 160 tokens; every weight is exact in bfloat16, so both storages hold the same."""
    fields = {
        "model_type": "llama",
        "vocab_size": 160,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "eos_token_ids": (159,),
    }
    config = ModelConfig(**{**fields, **changes})
    rng = np.random.default_rng(seed)
    d, f, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    q = config.num_attention_heads * config.head_dim

    def matrix(*shape):
        values = rng.standard_normal(shape).astype(np.float32) * (2.0 / shape[-1] ** 0.5)
        return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(config.vocab_size, d),
        "model.norm.weight": np.ones(d, np.float32),
    }
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = matrix(config.vocab_size, d)
    shapes = {
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        weights |= {f"{prefix}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = 1 + 0.1 * matrix(d)
        if config.attention_bias:
            weights |= {f"{prefix}self_attn.{x}_proj.bias": matrix(q if x == "q" else kv) for x in "qkv"}
    return config, weights


def folder_of(path: Path, **changes) -> Path:
    """Write a tiny model as a folder that `llama.load` reads, without a tokenizer."""
    config, weights = tiny(**changes)
    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in weights.items()}
    write_folder(path, config, tensors, "bfloat16", lambda folder: None, "test")
    return path
