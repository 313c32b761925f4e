"""Chapters in JupyterLab: open, run all cells, take hold of the explorer, and see it answer.

These take seconds to run, as does chapter 10, in test_replay.py. The others measure or train for minutes, and
nbval runs those; their explorers are driven by test_keyboard.py, each in a notebook of one cell.
"""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer
from playwright.sync_api import expect

from medusa_core.plots.masks import mask_view
from medusa_core.widgets import PRESETS


def test_chapter_02_explores_masks(lab, page, picture):
    rows = mask_view(PRESETS["searched, 8 nodes"]).rows
    chapter = lab.chapter(page, "02")
    chapter.run_all()
    explorer = Explorer(chapter.output_of("explore_mask()"))
    expect(explorer.title()).to_have_text("Tree step mask: 9 queries x 13 keys, 59 cells open")
    plain = explorer.drawing()
    explorer.choose("Lock a row", f"6: {rows[6]}")
    explorer.wait_for_change(plain)
    picture("explore_mask", explorer.figures.first)
    explorer.drag("Past", 1.0)
    expect(explorer.title()).to_contain_text("9 queries x 25 keys")
    explorer.choose("Tree", "typed choices")
    explorer.write("Choices", "[[0, 0]]")
    expect(explorer.alert()).to_contain_text("This is not a tree yet")
    explorer.write("Choices", "[[0], [0, 0]]")
    expect(explorer.alert()).to_have_count(0)
    expect(explorer.title()).to_contain_text("3 queries x 19 keys")


def test_chapter_11_simulates_other_hardware(lab, page, picture):
    chapter = lab.chapter(page, "11")
    chapter.run_all()
    explorer = Explorer(chapter.output_of("explore_simulator("))
    expect(explorer.title()).to_have_text("Vicuna 7B on A100-80GB, 63 nodes: 2.14 times as fast")
    picture("explore_simulator", explorer.figures.first)
    explorer.drag("Nodes", 0.0)
    expect(explorer.title()).to_have_text("Vicuna 7B on A100-80GB, 0 nodes: 1.00 times as fast")
    explorer.choose("Machine", "H100")
    expect(explorer.title()).to_contain_text("Vicuna 7B on H100, 0 nodes")
