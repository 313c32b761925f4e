"""Model folders: a base model in Hugging Face layout, with a manifest that says what every file must hold.

config.json, model.safetensors (bfloat16 or float16), tokenizer.json, tokenizer_config.json with the chat
template, and manifest.json: where the model came from, its dtype, size and SHA-256 of every file.
"""

import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

from medusa_core.checkpoint import open_safetensors, require, write_failure
from medusa_core.config import ModelConfig
from medusa_core.files import replacing, write_json

FORMAT = 1
WEIGHTS = "model.safetensors"
MANIFEST = "manifest.json"


class ConvertError(ValueError):
    """A model that cannot be found, read, converted or trusted; the message names it and the way out."""


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a base model with its shape, matrices as (out, in), under Hugging Face names."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
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
        block["self_attn.q_proj.bias"] = (queries,)
        block["self_attn.k_proj.bias"] = block["self_attn.v_proj.bias"] = (keys,)
    shapes = {"model.embed_tokens.weight": (config.vocab_size, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


class Weights(Mapping):
    """The tensors of a safetensors file by name; each is read when it is asked for, so that a model need not fit twice.

    Raises CheckpointError naming the file when it is missing or damaged.
    """

    def __init__(self, path: Path):
        self._path = path
        with open_safetensors(path) as file:
            self._names = list(file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(f"{self._path}: no tensor {name}")
        with open_safetensors(self._path) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, without reading them."""
        with open_safetensors(self._path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in self._names}


def read_model(folder: Path) -> tuple[ModelConfig, Weights]:
    """Read a model folder's configuration, and its weights as they are asked for, after checking the manifest.

    The weights have the folder's half precision (`ml_dtypes.bfloat16` or float16), names and shapes as
    `tensor_shapes` says. Raises ConvertError or CheckpointError naming the file that is missing or changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name in ("config.json", WEIGHTS):
        if sha256(folder / name) != manifest["files"][name]["sha256"]:
            raise ConvertError(
                f"{folder / name}: not what {MANIFEST} says; delete the folder and convert again"
            )
    config = ModelConfig.from_hf(read_json(folder / "config.json"), where=str(folder / "config.json"))
    weights = Weights(folder / WEIGHTS)
    require(weights.shapes(), tensor_shapes(config), str(folder / WEIGHTS))
    return config, weights


def read_manifest(folder: Path) -> dict:
    """Return the manifest of a model folder; raises ConvertError when a file is absent or of another size.

    Sizes are compared, not contents, so this is cheap enough for every start.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ConvertError(
            f"{folder}: not a model folder, it has no {MANIFEST}; make one from a checkpoint: "
            f"python -m medusa_core.convert {folder} --out OTHER_FOLDER"
        )
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise ConvertError(f"{path}: format is {manifest.get('format')!r}, expected {FORMAT}; convert again")
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise ConvertError(
                f"{file}: missing, or not the {entry['bytes']:,} bytes that {MANIFEST} says; "
                "delete the folder and convert again"
            )
    return manifest


def write_folder(
    out: Path,
    config: ModelConfig,
    tensors: dict[str, np.ndarray],
    dtype: str,
    write_tokenizer: Callable[[Path], None],
    source: str,
) -> None:
    """Write a model folder: `out` appears complete or not at all. The caller holds the lock on `out`.

    Raises ConvertError when the disk is full or cannot be written.
    """
    with _appearing(out) as partial:
        write_json(partial / "config.json", {**config.to_hf(), "dtype": dtype})
        with replacing(partial / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})  # transformers insists on this mark
        write_tokenizer(partial)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(partial.iterdir())
        }
        write_json(partial / MANIFEST, {"format": FORMAT, "source": source, "dtype": dtype, "files": files})


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Let one process at a time make `out`; a killed process gives its lock back."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another program that makes {out} ...", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; on success it becomes `out`, on failure it is removed."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
