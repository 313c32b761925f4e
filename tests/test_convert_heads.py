"""Medusa heads that others published guess here as their layout says, and go back into it."""

import json
import pickle

import ml_dtypes
import numpy as np
import pytest
from fake_base import FakeBase
from safetensors.numpy import load_file, save_file

from medusa_core import convert_heads, heads
from medusa_core.checkpoint import CheckpointError
from medusa_core.config import ConfigError
from medusa_core.convert import ConvertError

VOCABULARY, SIZE, HEADS, LAYERS = 50, 16, 3, 2


def published(own: bool = True) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(0), {}
    for i in range(HEADS):
        for j in range(LAYERS):
            found[f"{i}.{j}.linear.weight"] = rng.standard_normal((SIZE, SIZE)).astype(np.float32) / 4
            found[f"{i}.{j}.linear.bias"] = rng.standard_normal(SIZE).astype(np.float32)
        if own:
            found[f"{i}.{LAYERS}.weight"] = rng.standard_normal((VOCABULARY, SIZE)).astype(np.float32)
    return found


def logits(found, hidden, lm_heads) -> np.ndarray:
    """What the published code computes: residual blocks of SiLU, then the head's LM head; (K, N, V)."""
    out = []
    for i in range(HEADS):
        x = hidden
        for j in range(LAYERS):
            y = x @ found[f"{i}.{j}.linear.weight"].T + found[f"{i}.{j}.linear.bias"]
            x = x + y / (1 + np.exp(-y))
        out.append(x @ lm_heads[i].T)
    return np.stack(out)


@pytest.fixture
def source(tmp_path):
    """Function that writes published heads; config.json names two heads, as the one on the hub does."""

    def write(tensors, name="medusa_lm_head.safetensors"):
        folder = tmp_path / "published"
        folder.mkdir()
        settings = {"base_model_name_or_path": "lmsys/vicuna", "medusa_num_heads": 2, "medusa_num_layers": 1}
        (folder / "config.json").write_text(json.dumps(settings))
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(tensors))
        return folder

    return write


@pytest.mark.parametrize("name", ["medusa_lm_head.safetensors", "medusa_lm_head.jtr"])
def test_published_heads_compute_here_what_their_layout_says(source, tmp_path, name):
    found, base = published(), FakeBase(tmp_path / "base", VOCABULARY, SIZE)
    config = convert_heads.import_heads(source(found, name), tmp_path / "out")
    assert (config.num_heads, config.num_layers, config.output) == (HEADS, LAYERS, "own")
    assert config.base_model == "lmsys/vicuna"
    hidden = np.random.default_rng(1).standard_normal((5, SIZE)).astype(np.float32)
    ours = heads.load(tmp_path / "out", base)(heads_input(hidden)).numpy()
    expected = logits(found, hidden, [found[f"{i}.{LAYERS}.weight"] for i in range(HEADS)])
    assert np.allclose(ours, expected, atol=1e-4)


def heads_input(hidden):
    import jittor as jt

    return jt.array(hidden)


def test_heads_without_an_lm_head_use_that_of_the_base_they_name(source, tmp_path, converted):
    folder = source(published(own=False))
    with pytest.raises(ConvertError, match=r"share the base's LM head; name their base with --model"):
        convert_heads.import_heads(folder, tmp_path / "heads")
    config = convert_heads.import_heads(folder, tmp_path / "heads", str(converted))
    assert (config.output, config.vocab_size) == ("shared", 40)


def test_what_goes_out_comes_in_again(source, tmp_path):
    found = {n: a.astype(ml_dtypes.bfloat16).astype(np.float32) for n, a in published().items()}
    convert_heads.import_heads(source(found), tmp_path / "ours")
    convert_heads.export_heads(tmp_path / "ours", tmp_path / "out")
    written = load_file(tmp_path / "out" / "medusa_lm_head.safetensors")
    assert written.keys() == found.keys()
    assert all(np.array_equal(written[name].astype(np.float32), found[name]) for name in found)
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (settings["medusa_num_heads"], settings["medusa_num_layers"]) == (HEADS, LAYERS)
    assert settings["base_model_name_or_path"] == "lmsys/vicuna"


def test_shipped_heads_go_out_with_the_whole_lm_head_of_their_base(tmp_path, capsys):
    arguments = ["medusa1", "--out", str(tmp_path / "out")]
    assert convert_heads.main(arguments) == 1
    assert "name their base with --model" in capsys.readouterr().err
    assert convert_heads.main([*arguments, "--model", "embedded"]) == 0
    config = convert_heads.import_heads(tmp_path / "out", tmp_path / "again")
    assert (config.num_heads, config.vocab_size, config.output) == (4, 49152, "own")


def test_a_published_folder_without_its_weights_is_told_what_it_lacks(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text('{"medusa_num_heads": 4}')
    assert convert_heads.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    assert "in: holds none of medusa_lm_head.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gru", "moe", "medusa2"])
def test_heads_that_have_no_published_form_are_refused(tmp_path, name):
    with pytest.raises(ConvertError, match=r"no published form|learned with them"):
        convert_heads.export_heads(name, tmp_path / "out", "embedded")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("1.1.linear.bias"), r"medusa_lm_head\.safetensors: .*missing 1\.1\.linear\.bias"),
        (lambda found: found.update({"1.0.linear.bias": np.zeros((), "f4")}), r"1\.0\.linear\.bias: single numbers"),
        (lambda found: found.pop("0.2.weight"), r"missing 0\.2\.weight \(50, 16\)"),
        (lambda found: found.update(extra=np.zeros(1, np.float32)), r"unexpected extra \(1,\)"),
        (lambda found: found["2.0.linear.bias"].fill(np.nan), r"tensor 2\.0\.linear\.bias is NaN"),
        (lambda found: [found.pop(name) for name in list(found) if "linear" in name], r"holds no blocks named"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_missing_or_wrong_is_named(source, tmp_path, change, message):
    found = published()
    change(found)
    with pytest.raises((ConvertError, CheckpointError), match=message):
        convert_heads.import_heads(source(found), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_an_empty_folder_says_what_was_looked_for(source, tmp_path):
    folder = source(published())
    with pytest.raises(ConvertError, match=r"published: already exists"):
        convert_heads.import_heads(folder, folder)
    with pytest.raises(
        ConfigError, match=rf"published form; python -m medusa_core\.convert_heads {folder} --out"
    ):
        heads.read_config(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConvertError, match=r"holds none of medusa_lm_head\.safetensors"):
        convert_heads.import_heads(tmp_path / "empty", tmp_path / "out")
