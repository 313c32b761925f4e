"""The replay in JupyterLab: a recorded answer plays, jumps and is decided again, and a typed prompt is recorded."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer
from playwright.sync_api import expect
from steps import Steps, go_up_by_one

from medusa_core.plots.replay import PLAY_MS
from medusa_core.replay import decide_all, rejections
from medusa_core.trace import Trace
from medusa_core.widgets_replay import shipped

LIVE = """from medusa_core import record
from medusa_core.widgets_replay import explore_replay
explore_replay(recorder=record.load("embedded", "medusa1"))"""


def test_chapter_10_replays_acceptance(lab, page, picture):
    name, file = next(iter(shipped().items()))
    alone = min(rejections(decide_all(Trace.load(file))))  # the first step that takes none of its guesses
    chapter = lab.chapter(page, "10")
    chapter.run_all()
    explorer = Explorer(chapter.output_of("explore_replay("))
    before = explorer.drawing()
    explorer.press("Next rejection")
    expect(explorer.value("Step")).to_have_text(str(alone))
    explorer.wait_for_change(before)
    picture("explore_replay", explorer.figures.first)

    play = explorer.output.locator(".widget-play button").first
    before, steps = explorer.drawing(), Steps(explorer.row("Step"), ".widget-readout")
    play.press("Space")
    explorer.wait_for_change(before)
    played = steps.after(1)
    assert played[0] == alone + 1 and go_up_by_one(played)
    play.press("Space")

    explorer.drag("Step", 0.0)
    expect(explorer.value("Step")).to_have_text("0")
    explorer.choose("Criterion", "typical")
    expect(explorer.output).to_contain_text(f"{name}: ")
    expect(explorer.output).to_contain_text("typical, epsilon 0.09, delta 0.3")
    explorer.drag("epsilon", 1.0)
    expect(explorer.output).to_contain_text("typical, epsilon 1, delta 0.3")
    expect(explorer.alert()).to_have_count(0)


def test_the_first_play_starts_at_the_first_step_and_pause_holds_it(lab, page):
    notebook = lab.cell(
        page, "replay-play", "from medusa_core.widgets_replay import explore_replay\nexplore_replay()"
    )
    notebook.run_all()
    explorer = Explorer(notebook.output_of("explore_replay()"))
    play = explorer.output.locator(".widget-play button").first
    expect(explorer.value("Step")).to_have_text("0")
    before, steps = explorer.drawing(), Steps(explorer.row("Step"), ".widget-readout")
    play.click()
    explorer.wait_for_change(before)
    played = steps.after(3)
    assert played[0] == 1 and go_up_by_one(played)
    play.click()
    shown = explorer.value("Step").text_content()
    page.raw.wait_for_timeout(1.5 * PLAY_MS)
    expect(explorer.value("Step")).to_have_text(shown)
    explorer.choose("Criterion", "typical")
    before = explorer.drawing()
    explorer.press("Next change")
    explorer.wait_for_change(before)
    expect(explorer.alert()).to_have_count(0)


def test_a_typed_prompt_is_recorded_and_replayed(lab, page):
    notebook = lab.cell(page, "replay-own", LIVE)
    notebook.run_all()
    explorer = Explorer(notebook.output_of("explore_replay("))
    explorer.row("Prompt").locator("textarea").fill(" ")
    explorer.press("Record")
    expect(explorer.alert()).to_have_text("the question is empty: write something to answer")
    explorer.row("Prompt").locator("textarea").fill("Name <b>two</b> colours.")
    explorer.press("Record")
    expect(explorer.title()).to_contain_text("Name <b>two</b> colours.", timeout=60_000)
    expect(explorer.output).to_contain_text("your prompt 1, greedy: ")
    expect(explorer.alert()).to_have_count(0)
    before = explorer.drawing()
    explorer.slider("Step").press("ArrowRight")
    explorer.wait_for_change(before)
