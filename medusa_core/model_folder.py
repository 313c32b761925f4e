"""Model folders: a base model in Hugging Face layout, with a manifest that says what every file must hold.

config.json, model.safetensors (bfloat16 or float16), tokenizer.json, tokenizer_config.json with the chat template,
and manifest.json: where the model came from, its dtype, size and SHA-256 of every file.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

from medusa_core.checkpoint import open_safetensors, require, sync, write_failure
from medusa_core.config import ModelConfig

FORMAT = 1
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"


class ConvertError(ValueError):
    """A model that cannot be found, read, converted or trusted; the message names it and the way out."""


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a base model with its shape, matrices as (out, in), under Hugging Face names."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
    block = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.attention_bias:
        block |= {f"self_attn.{name}_proj.bias": (size,) for name, size in zip("qkv", (queries, keys, keys), strict=True)}
    shapes = {"model.embed_tokens.weight": (config.vocab_size, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Read a model folder's configuration and weights, after checking them against the manifest.

    Returns the weights in the folder's half precision (`ml_dtypes.bfloat16` or float16), named and shaped as
    `tensor_shapes` says. Raises ConvertError or CheckpointError naming the file that is missing or changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name in ("config.json", WEIGHTS):
        if sha256(folder / name) != manifest["files"][name]["sha256"]:
            raise ConvertError(f"{folder / name}: differs from {MANIFEST}; delete {folder} and convert it again")
    config = ModelConfig.from_hf(read_json(folder / "config.json"), where=str(folder / "config.json"))
    with open_safetensors(folder / WEIGHTS) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    require(tensors, tensor_shapes(config), str(folder / WEIGHTS))
    return config, tensors


def read_manifest(folder: Path) -> dict:
    """Return the manifest of a whole model folder; raises ConvertError when a file is absent or of another size.

    Sizes are compared, not contents, so this is cheap enough for every start.
    """
    if not (folder / MANIFEST).is_file():
        how = f"python -m medusa_core.convert {folder} --out OTHER_FOLDER"
        raise ConvertError(f"{folder}: not a model folder ({MANIFEST} is missing); make one from a checkpoint: {how}")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ConvertError(f"{folder / MANIFEST}: format is {manifest.get('format')!r}, expected {FORMAT}; convert again")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise ConvertError(f"{path}: missing or not {entry['bytes']:,} bytes; delete {folder} and convert it again")
    return manifest


def write_folder(out: Path, config: ModelConfig, tensors: dict[str, np.ndarray], dtype: str, tokenizer, source: str):
    """Write a model folder at once: `out` appears complete or not at all.

    `tokenizer(folder)` writes the tokenizer's files. Raises ConvertError when the disk is full or cannot be written.
    """
    with _appearing(out) as partial:
        write_json(partial / "config.json", {**config.to_hf(), "dtype": dtype})
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})  # transformers insists on this mark
        tokenizer(partial)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(partial.iterdir())
        }
        write_json(partial / MANIFEST, {"format": FORMAT, "source": source, "dtype": dtype, "files": files})


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Let one process at a time make `out`; a killed process gives its lock back."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; on success it becomes `out`, on failure it is removed. Needs the lock on `out`."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in partial.iterdir():
            path.chmod(0o644)
            sync(path)
        partial.rename(out)
        sync(out.parent)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConvertError(write_failure(out, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_json(path: Path) -> dict:
    """Read a JSON object; raises ConvertError naming the file, and the line of a mistake."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConvertError(f"{path}: no such file") from None
    except ValueError as error:
        raise ConvertError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConvertError(f"{path}: holds a {type(found).__name__}, expected a JSON object")
    return found


def write_json(path: Path, value: dict) -> None:
    """Write a JSON object that people can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
