"""Small checkpoints as model hubs hold them: a configuration, random weights, a tokenizer."""

import json
import pickle
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from medusa_core.config import ModelConfig
from medusa_core.convert import tensor_shapes

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def config_json(**changes) -> dict:
    raw = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "tie_word_embeddings": False,
        "max_position_embeddings": 64,
    }
    return {**raw, **changes}


def weights_for(raw: dict) -> dict[str, np.ndarray]:
    """Return random tensors that float16 and bfloat16 both hold exactly."""
    rng = np.random.default_rng(0)
    shapes = tensor_shapes(ModelConfig.from_hf(raw))
    return {name: rng.integers(-64, 64, shape).astype(np.float32) / 64 for name, shape in shapes.items()}


def write_tokenizer(folder: Path, size: int = 40, adds_bos: bool = False) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: size - 3]
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def reconfigure(folder: Path, **changes) -> dict:
    raw = config_json(**changes)
    (folder / "config.json").write_text(json.dumps(raw))
    return raw


def halves(weights: dict[str, np.ndarray]) -> tuple[dict, dict]:
    names = sorted(weights)
    return {n: weights[n] for n in names[::2]}, {n: weights[n] for n in names[1::2]}


def write_sharded(folder: Path, weights: dict, whole: str, write) -> None:
    stem, suffix = whole.rsplit(".", 1)
    shards = {f"{stem}-0000{i + 1}-of-00002.{suffix}": part for i, part in enumerate(halves(weights))}
    for name, part in shards.items():
        write(part, folder / name)
    index = {"weight_map": {tensor: name for name, part in shards.items() for tensor in part}}
    (folder / f"{whole}.index.json").write_text(json.dumps(index))


def write_pickle(weights: dict, path: Path) -> None:
    path.write_bytes(pickle.dumps(weights))


def nothing_left(out: Path) -> bool:
    return [path.name for path in out.parent.iterdir() if out.name in path.name] == [f".{out.name}.lock"]
