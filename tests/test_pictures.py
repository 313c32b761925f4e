"""Pictures beside saved figures: which are missing, which are kept, and what is said where none can be drawn."""

import base64
import io
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from medusa_core import pictures
from medusa_core.pictures import DRAWN, PNG, NoPictures
from medusa_core.report import PLOTLY


def figure(colour="red", **layout):
    return {"data": [{"type": "bar", "y": [1, 2], "marker": {"color": colour}}], "layout": layout}


def notebook(*drawn):
    outputs = [new_output("display_data", data={PLOTLY: each}) for each in drawn]
    return new_notebook(cells=[new_code_cell("1", outputs=outputs)])


def test_only_outputs_with_a_figure_get_a_picture():
    content = notebook(figure())
    content.cells[0].outputs.append(new_output("display_data", data={"text/plain": "1"}))
    assert len(pictures.missing(content)) == 1


def test_a_known_picture_is_taken_over_without_a_browser(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    before = notebook(figure())
    output = before.cells[0].outputs[0]
    output["data"][PNG], output["metadata"][DRAWN] = "AAAA", pictures.digest(figure())
    after = notebook(figure())
    assert pictures.draw(after, pictures.saved(before)) == 0
    assert after.cells[0].outputs[0].data[PNG] == "AAAA"
    assert pictures.missing(after) == []


def test_a_picture_of_another_figure_is_missing():
    content = notebook(figure())
    output = content.cells[0].outputs[0]
    output["data"][PNG], output["metadata"][DRAWN] = "AAAA", pictures.digest(figure())
    output["data"][PLOTLY] = figure("blue")
    assert pictures.missing(content) == [output]


def test_without_a_browser_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(NoPictures, match=r"pip install -e '\.\[browser\]'.*apt install chromium"):
        pictures.draw(notebook(figure()))


def test_a_chromium_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("kaleido", reason="kaleido is not installed: pip install -e '.[browser]'")
    monkeypatch.setenv("CHROMIUM", "/no/chromium")
    with pytest.raises(NoPictures, match="/no/chromium"):
        pictures.draw(notebook(figure()))


def test_colours_become_a_palette_of_the_same_picture():
    pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install -e '.[browser]'")
    image, file = pillow.new("RGB", (4, 3), (200, 30, 40)), io.BytesIO()
    image.putpixel((1, 1), (10, 200, 90))
    image.save(file, "PNG")
    small = pillow.open(io.BytesIO(base64.b64decode(pictures._small(file.getvalue()))))
    assert small.mode == "P"
    assert small.convert("RGB").tobytes() == image.tobytes()
