"""Model folders: what goes in comes out, and what does not fit is refused by name with nothing left behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fake_hub import (
    config_json,
    nothing_left,
    reconfigure,
    weights_for,
    write_pickle,
    write_sharded,
)
from safetensors.numpy import save_file

from medusa_core import model_folder
from medusa_core.checkpoint import CheckpointError
from medusa_core.config import ConfigError, ModelConfig
from medusa_core.convert import ConvertError, convert, main, read_model
from medusa_core.text import chat_ids, load_tokenizer


def same(folder: Path, weights: dict[str, np.ndarray], dtype=ml_dtypes.bfloat16) -> None:
    """Check that a model folder holds `weights`, which are exact in half precision."""
    _, found = read_model(folder)
    assert set(found) == set(weights)
    for name, array in weights.items():
        assert found[name].dtype == dtype, name
        np.testing.assert_array_equal(found[name].astype(np.float32), array, err_msg=name)


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


def test_the_command_line_converts_and_reports_errors_without_a_traceback(hub, tmp_path, capsys):
    save_file(weights_for(config_json()), hub / "model.safetensors")
    assert main([str(hub), "--out", str(tmp_path / "out"), "--dtype", "float16"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert main([str(hub), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}: already exists")
    assert main([str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 1
    with pytest.raises(SystemExit):
        main([str(hub)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedded", "--dtype", "float16"], "the embedded model is bfloat16"),
        (["embedded", "--template", "chatml"], "--template is not for a GGUF file"),
        (["a.gguf", "--out", "x", "--template", "chatml"], "--template is not for a GGUF file"),
        (["folder", "--out", "x", "--config", "y"], "--config is for a .pkl file"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_converting_starts_neither_jittor_nor_torch():
    program = (
        "import sys, medusa_core.convert, medusa_core.text, medusa_core.checkpoint\n"
        "sys.exit(any(name in sys.modules for name in ('jittor', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0
