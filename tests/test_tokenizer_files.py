"""A converted model's tokenizer fits the model, and its chat template begins a text as it does."""

import json
from pathlib import Path

import pytest
from fake_hub import config_json, nothing_left, weights_for, write_tokenizer
from safetensors.numpy import save_file

from medusa_core.convert import ConvertError, convert
from medusa_core.text import chat_ids, load_tokenizer


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


def test_the_tokenizer_is_looked_at_before_the_weights(hub, tmp_path):
    (hub / "tokenizer.json").unlink()  # and there are no weights either
    with pytest.raises(ConvertError, match=r"hub: has neither tokenizer\.json nor tokenizer\.model"):
        convert(hub, tmp_path / "out")


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
