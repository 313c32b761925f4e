"""Chapter 10 in JupyterLab: a recorded answer plays, jumps and is decided again."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer
from playwright.sync_api import expect

from medusa_core.replay import decide_all, rejections
from medusa_core.trace import Trace
from medusa_core.widgets_replay import shipped


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
    before = explorer.drawing()
    play.press("Space")
    expect(explorer.value("Step")).to_have_text(str(alone + 1))
    explorer.wait_for_change(before)
    play.press("Space")

    explorer.drag("Step", 0.0)
    expect(explorer.value("Step")).to_have_text("0")
    explorer.choose("Criterion", "typical")
    expect(explorer.output).to_contain_text(f"{name}: ")
    expect(explorer.output).to_contain_text("typical, epsilon 0.09, delta 0.3")
    explorer.drag("epsilon", 1.0)
    expect(explorer.output).to_contain_text("typical, epsilon 1, delta 0.3")
    expect(explorer.alert()).to_have_count(0)
