"""Pictures of saved figures, drawn by the installed Chromium."""

import base64
import io

import plotly.graph_objects as go
import pytest

from medusa_core import pictures
from medusa_core.report import PLOTLY


def test_a_figure_is_drawn_at_its_size_in_its_colour(chromium, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("CHROMIUM", chromium)
    bar = go.Figure(go.Bar(y=[1], marker_color="#cc0000"), {"height": 220})
    output = {"data": {PLOTLY: bar.to_plotly_json()}, "metadata": {}}
    assert pictures.draw({"cells": [{"outputs": [output]}]}) == 1
    picture = image.open(io.BytesIO(base64.b64decode(output["data"][pictures.PNG]))).convert("RGB")
    assert picture.size == (pictures.WIDTH, 220)
    assert picture.getpixel((pictures.WIDTH // 2, 110)) == (204, 0, 0)
