"""Medusa heads as others publish them, in and out: config.json and medusa_lm_head.safetensors, .pt or .jtr.

python -m medusa_core.convert_heads medusa-vicuna-7b-v1.3 --out artifacts/heads/vicuna
python -m medusa_core.convert_heads artifacts/heads/medusa1 --model embedded --out exported
"""

import argparse
import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medusa_core import commands, heads
from medusa_core.checkpoint import load, load_pickle, require, shapes_of
from medusa_core.config import HeadsConfig
from medusa_core.convert import ConvertError, read_model, resolve
from medusa_core.files import replacing_folder, write_json
from medusa_core.model_folder import Weights, read_json

PUBLISHED = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "medusa_lm_head.jtr")
# Of head i: block j is x + SiLU(W x + b), and the LM head has the number behind the last block.
BLOCK, LM_HEAD = re.compile(r"(\d+)\.(\d+)\.linear\.(weight|bias)"), re.compile(r"(\d+)\.(\d+)\.weight")


def import_heads(source: Path, out: Path, model: str | None = None) -> HeadsConfig:
    """Turn published Medusa heads into the folder `out`, which `heads.load` reads, and return their configuration.

    Sizes are those of the tensors: config.json of published heads is known to name too few. Heads without LM heads
    of their own use the base's, and need `model` ("embedded" or a model folder) to know its vocabulary.
    Raises ConvertError or CheckpointError naming the file and the tensors that are missing or do not fit.
    """
    source, out = Path(source), Path(out)
    _absent(out)
    path = next((source / name for name in PUBLISHED if (source / name).is_file()), None)
    if path is None:
        raise ConvertError(f"{source}: holds none of {', '.join(PUBLISHED)}")
    read = Weights(path) if path.suffix == ".safetensors" else load_pickle(path)
    found = {name.removeprefix("medusa_head."): array for name, array in read.items()}
    numbers = sorted({int(name.split(".")[0]) for name in found if re.match(r"\d+\.", name)})
    blocks = [match for name in found if (match := BLOCK.fullmatch(name))]
    if not blocks:
        raise ConvertError(
            f"{path}: holds no blocks named 0.0.linear.weight, ...; it has {', '.join(sorted(found)[:5])}"
        )
    if scalars := sorted(name for name, array in found.items() if not np.ndim(array)):
        raise ConvertError(f"{path}: {', '.join(scalars)}: single numbers, expected vectors and matrices")
    count, layers = len(numbers), 1 + max(int(match[2]) for match in blocks)
    size = found[blocks[0][0]].shape[0]
    vocabularies = [array.shape[0] for name, array in found.items() if LM_HEAD.fullmatch(name)]
    own = bool(vocabularies)
    if not own and model is None:
        raise ConvertError(f"{path}: these heads share the base's LM head; name their base with --model")
    vocabulary = vocabularies[0] if own else read_model(resolve(model))[0].vocab_size
    found = _checked(path, found, count, layers, size, vocabulary if own else None)
    tensors = {}
    for layer in range(layers):
        for ours, theirs in ((f"weight{layer}", "weight"), (f"bias{layer}", "bias")):
            tensors[ours] = np.stack([found[f"{i}.{layer}.linear.{theirs}"] for i in range(count)])
    if own:
        tensors["lm_head"] = np.stack([found[f"{i}.{layers}.weight"] for i in range(count)])
    settings = read_json(source / "config.json") if (source / "config.json").is_file() else {}
    config = HeadsConfig(
        hidden_size=size,
        vocab_size=vocabulary,
        num_heads=count,
        num_layers=layers,
        output="own" if own else "shared",
        base_model=str(settings.get("base_model_name_or_path") or ""),
    )
    with replacing_folder(out) as partial:
        heads.write(partial, config, tensors, {"source": path.name})
    return config


def export_heads(source: str | Path, out: Path, model: str | None = None) -> None:
    """Write heads of kind "medusa" as published ones: bfloat16, an LM head for each head.

    Heads that share the base's LM head, or its rows of frequent tokens, get the whole of it, from `model`.
    Raises ConvertError where they cannot be written so, HeadsError, ConfigError or CheckpointError where not read.
    """
    folder, out = heads.resolve(source), Path(out)
    _absent(out)
    config = heads.read_config(folder)
    if config.kind != "medusa":
        raise ConvertError(
            f"{folder}: heads of kind {config.kind!r} have no published form, only medusa ones"
        )
    if heads.adapters(folder):
        raise ConvertError(
            f"{folder}: these heads need the base that learned with them ({heads.ADAPTERS_FILE})"
        )
    tensors, _ = load(folder / heads.WEIGHTS_FILE)
    own = config.output == "own"
    lm_heads = tensors["lm_head"] if own else [_lm_head(config, model, folder)] * config.num_heads
    written = {}
    for i in range(config.num_heads):
        for layer in range(config.num_layers):
            written[f"{i}.{layer}.linear.weight"] = tensors[f"weight{layer}"][i]
            written[f"{i}.{layer}.linear.bias"] = tensors[f"bias{layer}"][i]
        written[f"{i}.{config.num_layers}.weight"] = lm_heads[i]
    written = {name: np.array(array).astype(ml_dtypes.bfloat16) for name, array in written.items()}
    with replacing_folder(out) as partial:
        try:
            save_file(written, partial / PUBLISHED[0], metadata={"format": "pt"})
        except SafetensorError as error:
            raise ConvertError(f"{out}: cannot be written: {error}") from error
        write_json(
            partial / "config.json",
            {
                "base_model_name_or_path": config.base_model,
                "medusa_num_heads": config.num_heads,
                "medusa_num_layers": config.num_layers,
                "hidden_size": config.hidden_size,
                "vocab_size": config.vocab_size,
            },
        )


def _lm_head(config: HeadsConfig, model: str | None, folder: Path) -> np.ndarray:
    if model is None:
        raise ConvertError(f"{folder}: these heads use the base's LM head; name their base with --model")
    base, weights = read_model(resolve(model))
    name = "model.embed_tokens.weight" if base.tie_word_embeddings else "lm_head.weight"
    if (base.vocab_size, base.hidden_size) != (config.vocab_size, config.hidden_size):
        raise ConvertError(
            f"{folder}: made for {config.vocab_size} tokens and states of {config.hidden_size}, "
            f"but {model} has {base.vocab_size} and {base.hidden_size}"
        )
    return weights[name]


def _checked(
    path: Path, found: dict[str, np.ndarray], count: int, layers: int, size: int, vocabulary: int | None
) -> dict[str, np.ndarray]:
    """The tensors of `count` equal heads in float32; raises where names, shapes or values are wrong."""
    expected = {}
    for i in range(count):
        for j in range(layers):
            expected |= {f"{i}.{j}.linear.weight": (size, size), f"{i}.{j}.linear.bias": (size,)}
        if vocabulary is not None:
            expected[f"{i}.{layers}.weight"] = (vocabulary, size)
    require(shapes_of(found), expected, str(path))
    found = {name: np.asarray(array, np.float32) for name, array in found.items()}
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ConvertError(f"{path}: a value of tensor {name} is NaN or infinite; download it again")
    return found


def _absent(out: Path) -> None:
    if out.exists():
        raise ConvertError(f"{out}: already exists; delete it first or choose another --out")


def _is_published(folder: Path) -> bool:
    config = folder / "config.json"
    if any((folder / name).is_file() for name in PUBLISHED):
        return True
    return config.is_file() and "medusa_num_heads" in read_json(config)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m medusa_core.convert_heads",
        description="Read Medusa heads as others publish them, or write them so; which, follows from the source.",
    )
    parser.add_argument(
        "source", help="folder of published heads; or a shipped name or a folder of our heads"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--model", help='their base, "embedded" or a model folder, where its LM head is needed'
    )
    options = parser.parse_args(arguments)

    def work() -> None:
        if _is_published(Path(options.source)):
            config = import_heads(options.source, options.out, options.model)
            own = "an LM head each" if config.output == "own" else "the base's LM head"
            blocks = f"{config.num_heads} heads of {config.num_layers} blocks"
            print(f"{options.out}: {blocks} for states of {config.hidden_size}, {own}")
        else:
            export_heads(options.source, options.out, options.model)
            print(f"{options.out}: {PUBLISHED[0]} and config.json")

    return commands.finish(work)


if __name__ == "__main__":
    sys.exit(main())
