"""The live figure that takes an output's place when a control first changes: nothing else on the page moves."""

import nbformat
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer
from playwright.sync_api import expect

from medusa_core import report

MASKS = "from medusa_core.widgets import explore_mask\nexplore_mask()"
SIMULATOR = "from medusa_core.widgets_simulator import explore_simulator\nexplore_simulator()"
# Alone on a page: no output of plotly's kind has brought a plotly.js.
ALONE = """from IPython.display import display
from medusa_core.plots import fig_tree
from medusa_core.tree import chain
from medusa_core.widgets_chart import Chart
chart = Chart(fig_tree(chain(4)))
display(chart)"""
LIVE = ".js-plotly-plot:not(.jp-RenderedPlotly)"
# Scrolls to the page's end, where a figure that is gone for one frame would move what is seen, and makes window.least:
# the least position of all frames from now on.
WATCH = """output => {
  const scroller = output.closest('.jp-WindowedPanel-outer');
  scroller.scrollTop = scroller.scrollHeight;
  window.least = scroller.scrollTop;
  const look = () => {
    window.least = Math.min(window.least, scroller.scrollTop);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  return window.least;
}"""
# JupyterLab lays its page out some time after the window has another size, and the figure follows that: what still
# differs, or is as it was `before`, after 20 seconds; null if nothing does.
OTHER_WIDTH = """(figure, before) => new Promise(resolve => {
  const place = figure.closest('.jp-OutputArea-output'), end = performance.now() + 20000;
  const look = () => {
    const widths = {
      place: place.clientWidth,
      figure: figure.clientWidth,
      drawn: +figure.querySelector('.main-svg').getAttribute('width'),
    };
    if (widths.place !== before && widths.place === widths.drawn) resolve(null);
    else if (performance.now() > end) resolve(widths);
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""


def test_the_first_change_keeps_focus_and_scroll_position(lab, page):
    notebook = lab.cell(page, "live-place", MASKS)
    notebook.run_all()
    output = notebook.output_of("explore_mask()")
    explorer = Explorer(output)
    slider = explorer.slider("Past")
    slider.focus()
    page.raw.set_viewport_size({"width": 1440, "height": 500})
    page.raw.wait_for_timeout(500)  # the figures take the page's new size
    before = output.evaluate(WATCH)
    assert before > 0
    page.raw.keyboard.press("ArrowRight")
    expect(output.locator(LIVE)).to_have_count(1)
    expect(explorer.title()).to_contain_text("9 queries x 14 keys")
    assert page.raw.evaluate("window.least") == before
    assert slider.evaluate("e => e === document.activeElement")


def test_a_live_figure_takes_the_width_of_its_page(lab, page):
    notebook = lab.cell(page, "live-width", SIMULATOR)
    notebook.run_all()
    output = notebook.output_of("explore_simulator()")
    Explorer(output).choose("Machine", "H100")
    live = output.locator(LIVE)
    expect(live).to_have_count(1)
    for width in (1000, 1400):
        before = live.evaluate("figure => figure.closest('.jp-OutputArea-output').clientWidth")
        page.raw.set_viewport_size({"width": width, "height": 900})
        assert not (wrong := live.evaluate(OTHER_WIDTH, before)), f"at {width}: {wrong}"


def test_a_saved_notebook_keeps_the_figure_and_no_plotly(lab, page, tmp_path):
    notebook = lab.cell(page, "live-saved", MASKS)
    notebook.run_all()
    explorer = Explorer(notebook.output_of("explore_mask()"))
    explorer.choose("Tree", "chain of 4")
    expect(explorer.output.locator(LIVE)).to_have_count(2)
    notebook.save()
    file = lab.notebooks / "live-saved.ipynb"
    assert file.stat().st_size < 1_000_000 and "widgets" not in nbformat.read(file, 4).metadata
    report.export(file, tmp_path / "page.html")
    page.raw.goto((tmp_path / "page.html").as_uri())
    expect(page.raw.locator(".js-plotly-plot .gtitle").first).to_contain_text("5 queries x 9 keys")


def test_a_page_without_plotly_gets_it_from_the_kernel(lab, page):
    notebook = lab.cell(page, "live-alone", ALONE)
    notebook.run_all()
    expect(page.raw.locator(f"{LIVE} .main-svg").first).to_be_visible()
