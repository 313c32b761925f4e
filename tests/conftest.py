"""What several test files need."""

import json
import os
from pathlib import Path

import plotly.io as pio
import pytest
from fake_base import FakeBase, token_set
from fake_hub import config_json, weights_for, write_tokenizer
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import Widget
from safetensors.numpy import save_file

from medusa_core.convert import convert

# Recorded texts are of the order that all processors share; tests of the matrix unit's ask for it.
os.environ.setdefault("MEDUSA_AMX", "0")


@pytest.fixture
def shell(monkeypatch):
    """An IPython shell whose outputs can be captured, with the renderer that plotly chooses in a kernel."""
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()
    Widget.close_all()


@pytest.fixture
def hub(tmp_path) -> Path:
    """A Hugging Face folder without weights: configuration and tokenizer."""
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json()))
    write_tokenizer(folder)
    return folder


@pytest.fixture
def converted(hub, tmp_path) -> Path:
    """A model folder made of such a folder with weights."""
    save_file(weights_for(config_json()), hub / "model.safetensors")
    return convert(hub, tmp_path / "out")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Function that trains heads in tmp_path / name and returns (history, tensors of the heads)."""
    import train_tiny  # with Jittor, which few tests need

    from medusa_core import checkpoint, heads, train

    monkeypatch.setattr(train.runtime, "ARTIFACTS", tmp_path)
    base = FakeBase(tmp_path / "base")

    def run(name, resume=False, **changes):
        config = train_tiny.config(tmp_path / name, **{"epochs": 4.0, **changes})
        history = train.train(config, base, token_set(60), resume)
        return history, checkpoint.load(tmp_path / name / "heads" / heads.WEIGHTS_FILE)[0]

    run.base = base
    return run
