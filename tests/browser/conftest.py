"""A browser, a JupyterLab and what a failure leaves behind, for the tests of this folder.

`make browser-test` runs them; `pytest tests` does not come here, since they take minutes. Each waits for at most a
minute or two for anything, and a failed one leaves its screenshot and its console under artifacts/runs/browser/.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from lab import Lab
from watched import WatchedPage

from medusa_core import runtime

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEFT = runtime.ARTIFACTS / "runs" / "browser"
RESULTS = runtime.ARTIFACTS / "results"
WAIT_MS = 20_000  # for a click to show; what takes longer says so


def pytest_addoption(parser):
    parser.addoption("--write-screenshots", action="store_true", help="renew artifacts/results/figures/*.png")
    parser.addoption("--write-times", action="store_true", help="renew artifacts/results/browser.json")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The installed Chromium; without one, or without playwright to drive it, tests are skipped."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")
    named = os.environ.get("CHROMIUM", "")
    found = next(filter(None, map(shutil.which, [named] if named else CHROMIUM)), None)
    if found is None:
        pytest.skip(
            f"no {named or 'Chromium'} is installed (Debian: apt install chromium), or name it: CHROMIUM="
        )
    return found


@pytest.fixture(scope="session")
def browser(chromium):
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    # Root has no sandbox, and containers have little shared memory.
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=flags, timeout=60_000)
        yield running
        running.close()


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    """JupyterLab with settings of its own, on a folder of copies, so that nothing here touches the chapters."""
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def page(browser, request):
    """A page that a test has for itself; the test fails if its console or network has something to complain of."""
    size = {"width": 1440, "height": 1300}  # the largest figure with its controls
    with WatchedPage(browser, size, WAIT_MS) as watched:
        yield watched
        failed = request.node.stash.get(FAILED, False)
        if failed or watched.complaints:
            _leave(request.node.name, watched)
        if not failed:
            assert not watched.complaints, "\n".join(watched.complaints)


@pytest.fixture
def picture(page, request):
    """Save an element as a figure of the README, when asked to by --write-screenshots."""

    def save(name: str, element) -> None:
        if request.config.getoption("--write-screenshots"):
            page.save_picture(element, RESULTS / "figures" / f"{name}.png")

    return save


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Tell the page's fixture, which ends after the test, whether the test failed."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


def _leave(test: str, watched) -> None:
    LEFT.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w-]+", "-", test).strip("-")
    watched.raw.screenshot(path=LEFT / f"{stem}.png")
    (LEFT / f"{stem}.txt").write_text("\n".join(watched.console) + "\n", encoding="utf-8")
    print(f"see {Path('artifacts/runs/browser') / stem}.png and .txt")
