"""Files that are broken get words in the explorer that reads them, and no traceback."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[browser]'")

from explorer import Explorer
from playwright.sync_api import expect

from medusa_core.runtime import ARTIFACTS
from medusa_core.widgets_replay import shipped

BROKEN = '{"steps": <b>'
EXPLORERS = {
    "replay": (
        "Trace",
        "from medusa_core.widgets_replay import explore_replay\n"
        "explore_replay({{'good': {good!r}, 'broken': {broken!r}}})",
        next(iter(shipped().values())),
    ),
    "trees": (
        "Measured by",
        "from medusa_core.widgets_trees import explore_trees\n"
        "explore_trees({{'good': {good!r}, 'broken': {broken!r}}})",
        ARTIFACTS / "results" / "search_trees.json",
    ),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_broken_file_is_named_and_the_figure_stays(lab, page, tmp_path, name):
    label, source, good = EXPLORERS[name]
    broken = tmp_path / "broken.json"
    broken.write_text(BROKEN)
    notebook = lab.cell(page, f"broken-{name}", source.format(good=str(good), broken=str(broken)))
    notebook.run_all()
    explorer = Explorer(notebook.output_of("explore_"))
    before = explorer.drawing()
    explorer.choose(label, "broken")
    expect(explorer.alert()).to_contain_text("broken.json")
    assert explorer.drawing() == before
    explorer.choose(label, "good")
    expect(explorer.alert()).to_have_count(0)


def test_broken_results_are_named_above_the_dashboard(lab, page, tmp_path):
    (tmp_path / "benchmark.json").write_text(BROKEN)
    source = "from medusa_core.widgets_dashboard import explore_dashboard\nfrom pathlib import Path\n"
    notebook = lab.cell(page, "broken-dashboard", f"{source}explore_dashboard(Path({str(tmp_path)!r}))")
    notebook.run_all()
    explorer = Explorer(notebook.output_of("explore_"))
    expect(explorer.alert().first).to_contain_text("benchmark.json: not JSON")
    expect(explorer.title()).to_contain_text("Nothing")
