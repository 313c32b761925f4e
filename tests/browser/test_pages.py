"""The report's pages: every figure is drawn and moves without a kernel, nothing is fetched, and text stays text."""

import json

import nbformat
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect
from plotly.utils import PlotlyJSONEncoder
from steps import Steps, go_up_by_one

from medusa_core import report, site
from medusa_core.plots import fig_tree
from medusa_core.plots.replay import PLAY_MS
from medusa_core.runtime import ROOT
from medusa_core.tree import Tree

CHAPTERS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The site that `make report` builds, in a folder of its own."""
    folder = tmp_path_factory.mktemp("pages") / "report"
    site.build(ROOT, folder)
    return folder


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_page_of_a_chapter_draws_all_its_figures(chapter, pages, page):
    page.raw.goto((pages / f"{chapter}.html").as_uri())
    outputs = [o for cell in nbformat.read(CHAPTERS[chapter], 4).cells for o in cell.get("outputs", ())]
    figures = page.raw.locator(".js-plotly-plot")
    expect(figures).to_have_count(sum(report.PLOTLY in output.get("data", ()) for output in outputs))
    for figure in figures.all():
        expect(figure.locator(".main-svg").first).to_be_attached()


def test_a_slider_switches_a_figure_on_the_page_of_chapter_11(pages, page):
    page.raw.goto((pages / "11_plan_for_scale.html").as_uri())
    figure = page.raw.locator(".js-plotly-plot", has=page.raw.locator(".slider-container")).first
    expect(figure.locator(".gtitle")).to_contain_text("batch size 1 ")
    rail = figure.locator(".slider-rail-touch-rect")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    rail.click(position={"x": box["width"] - 12, "y": box["height"] / 2})
    expect(figure.locator(".gtitle")).to_contain_text("batch size 64")


def test_an_answer_plays_and_pauses_on_the_page_of_chapter_10(pages, page):
    page.raw.goto((pages / "10_replay_acceptance.html").as_uri())
    figure = page.raw.locator(".js-plotly-plot", has=page.raw.locator(".updatemenu-button")).first
    shown = figure.locator(".slider-label").first  # the others are the places to go to
    expect(shown).to_have_text("step 4")
    play, pause = (figure.locator(".updatemenu-button", has_text=name) for name in ("Play", "Pause"))
    steps = Steps(figure, ".slider-label")
    play.click()
    assert go_up_by_one(steps.after(2))
    pause.click()
    at = shown.text_content()
    page.raw.wait_for_timeout(1.5 * PLAY_MS)
    expect(shown).to_have_text(at)
    steps = Steps(figure, ".slider-label")
    play.click()
    assert go_up_by_one(steps.after(2))
    figure.locator(".slider-rail-touch-rect").click(position={"x": 2, "y": 4})  # interrupts, too
    page.raw.wait_for_timeout(1.5 * PLAY_MS)
    expect(shown).to_have_text("step 0")


def test_text_of_a_model_cannot_become_script(page, tmp_path):
    tree = Tree.from_paths([[0], [0, 0]])
    figure = json.loads(json.dumps(fig_tree(tree, texts=[HOSTILE] * 3), cls=PlotlyJSONEncoder))
    cell = new_code_cell("print(text)")
    cell.outputs = [
        new_output("stream", text=HOSTILE),
        new_output("execute_result", data={"text/plain": HOSTILE}),
        new_output("display_data", data={report.PLOTLY: nbformat.from_dict(figure)}),
    ]
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "hostile.ipynb")
    report.export(tmp_path / "hostile.ipynb", tmp_path / "hostile.html")
    page.raw.goto((tmp_path / "hostile.html").as_uri())
    expect(page.raw.locator(".js-plotly-plot .main-svg").first).to_be_attached()
    expect(page.raw.get_by_text("<script>window.hit = 1</script>").first).to_be_visible()
    assert page.raw.evaluate("() => window.hit === undefined")
