"""The dashboard opened from a folder: its filters, in JavaScript, leave what Python's leave, and take the keyboard."""

import json

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from playwright.sync_api import expect

from medusa_core import results, runtime, site
from medusa_core.plots.dashboard_panels import FILTERS, PANELS, View

NUMBERS = {panel.name: number for number, panel in enumerate(PANELS)}
SHOWN = ("name", "x", "y", "text", "customdata")
TRACES = "(place, keys) => place.data.map(trace => keys.map(key => trace[key] ?? null))"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert site.build(runtime.ROOT, folder) == []
    return folder


def test_the_dashboards_filters_show_what_python_draws(report, page):
    found = results.read(runtime.ARTIFACTS / "results")
    page.raw.goto((report / "dashboard.html").as_uri())
    expect(page.raw.locator("#chosen")).to_have_text("benchmark.json, all, greedy, all, all")
    for chosen in (
        {"acceptance": "typical", "temperature": "", "category": ""},
        {"acceptance": "", "temperature": "0.7", "category": "coding"},
    ):
        for name, value in chosen.items():
            page.raw.select_option(f"[data-filter={name}]", value)
        view = View("benchmark.json", **{name: value or None for name, value in chosen.items()})
        for panel in PANELS:
            figure = panel.draw(found, view)
            drawn = [[trace.get(key) for key in SHOWN] for trace in json.loads(figure.to_json())["data"]]
            number = NUMBERS[panel.name]
            assert page.raw.locator(f"#panel-{number}").evaluate(TRACES, SHOWN) == drawn, panel.name
            words = [f"{FILTERS[name].lower()} {getattr(view, name) or 'all'}" for name in panel.uses]
            expect(page.raw.locator(f"#shown-{number}")).to_have_text(", ".join(words))


def test_the_dashboards_filters_take_the_keyboard(report, page):
    page.raw.goto((report / "dashboard.html").as_uri())
    page.raw.locator("[data-filter=acceptance]").focus()
    page.raw.keyboard.press("ArrowDown")
    expect(page.raw.locator("#chosen")).to_have_text("benchmark.json, all, typical, all, all")
