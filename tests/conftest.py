"""What several test files need."""

import json
from pathlib import Path

import plotly.io as pio
import pytest
from fake_hub import config_json, weights_for, write_tokenizer
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import Widget
from safetensors.numpy import save_file

from medusa_core.convert import convert


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
