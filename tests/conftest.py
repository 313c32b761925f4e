"""What several test files need."""

import plotly.io as pio
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import Widget


@pytest.fixture
def shell(monkeypatch):
    """An IPython shell whose outputs can be captured, with the renderer that plotly chooses in a kernel."""
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()
    Widget.close_all()
