"""Exported pages: every figure is drawn and moves without a kernel, nothing is fetched, and text stays text."""

import nbformat
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect

from medusa_core import report
from medusa_core.plots import fig_tree
from medusa_core.runtime import ROOT
from medusa_core.tree import Tree

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_page_of_a_chapter_draws_all_its_figures(chapter, page, tmp_path):
    _open(page, chapter, tmp_path)
    outputs = [o for cell in nbformat.read(chapter, 4).cells for o in cell.get("outputs", ())]
    figures = page.raw.locator(".js-plotly-plot")
    expect(figures).to_have_count(sum(report.PLOTLY in output.get("data", ()) for output in outputs))
    for figure in figures.all():
        expect(figure.locator(".main-svg").first).to_be_attached()
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.raw.evaluate(wide) <= 0, "the page scrolls sideways"


def test_a_slider_switches_a_figure_on_the_page_of_chapter_11(page, tmp_path):
    (chapter,) = (path for path in CHAPTERS if path.name.startswith("11"))
    _open(page, chapter, tmp_path)
    figure = page.raw.locator(".js-plotly-plot", has=page.raw.locator(".slider-container")).first
    expect(figure.locator(".gtitle")).to_contain_text("batch size 1 ")
    figure.locator(".slider-tick-touch-rect, .slider-rail-touch-rect").last.scroll_into_view_if_needed()
    rail = figure.locator(".slider-rail-touch-rect")
    box = rail.bounding_box()
    rail.click(position={"x": box["width"] - 12, "y": box["height"] / 2})
    expect(figure.locator(".gtitle")).to_contain_text("batch size 64")


def test_text_of_a_model_cannot_become_script(page, tmp_path):
    tree = Tree.from_paths([[0], [0, 0]])
    figure = fig_tree(tree, texts=[HOSTILE] * 3).to_plotly_json()
    cell = new_code_cell("print(text)")
    cell.outputs = [
        new_output("stream", text=HOSTILE),
        new_output("execute_result", data={"text/plain": HOSTILE}),
        new_output("display_data", data={report.PLOTLY: nbformat.from_dict(_plain(figure))}),
    ]
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "hostile.ipynb")
    _open(page, tmp_path / "hostile.ipynb", tmp_path)
    expect(page.raw.locator(".js-plotly-plot .main-svg").first).to_be_attached()
    expect(page.raw.get_by_text("<script>window.hit = 1</script>").first).to_be_visible()
    assert page.raw.evaluate("() => window.hit === undefined")


def _plain(figure: dict) -> dict:
    import json

    from plotly.utils import PlotlyJSONEncoder

    return json.loads(json.dumps(figure, cls=PlotlyJSONEncoder))


def _open(page, notebook, folder) -> None:
    target = folder / f"{notebook.stem}.html"
    report.export(notebook, target)
    page.raw.goto(target.as_uri())
