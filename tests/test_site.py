"""The report: pages of saved chapters, results and dashboard, without a kernel, a network, or a way in for markup."""

import json
import re

import fake_results as fake
import nbformat
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup

from medusa_core import report, site

ARMED = "<p onclick='alert(1)'><a href=' javascript:alert(1)'>kept</a></p><script>alert(1)</script>"
WAYS_OUT = re.compile(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(\s*[\"']?(?:https?:)?//")


@pytest.fixture
def root(tmp_path):
    """A repository with a chapter, whose outputs hold hostile text, and results with hostile names."""
    name = fake.HOSTILE
    cells = [
        nbformat.v4.new_markdown_cell("# 01 · A chapter?\n\nSee [the next](02_next.ipynb#end)."),
        nbformat.v4.new_code_cell("1", execution_count=1, outputs=[
            nbformat.v4.new_output("stream", text=name),
            nbformat.v4.new_output("execute_result", {"text/plain": name}, execution_count=1),
            nbformat.v4.new_output("display_data", {"text/html": ARMED}),
            nbformat.v4.new_output("display_data", {report.PLOTLY: figure(name)}),
            nbformat.v4.new_output("display_data", {report.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "Slider()"}),
        ]),
    ]  # fmt: skip
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_a.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "02_next.ipynb")
    fake.write(
        tmp_path / "artifacts" / "results",
        benchmark=fake.benchmark(name, (name, "math"), text=name),
        comparison=fake.comparison((name, "gru")),
        search_trees=fake.search(name),
        peers=fake.peers(name, (name, "math")),
    )
    return tmp_path


def figure(text):
    return json.loads(
        go.Figure(go.Bar(x=[text], y=[1], name=text), layout={"title": {"text": text}}).to_json()
    )


@pytest.fixture
def built(root):
    assert site.main(root) == 0
    return root / "artifacts" / "runs" / "report"


def pages(folder):
    return {page.name: page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.html"))}


def test_the_site_has_index_chapters_dashboard_and_one_plotly(built):
    assert list(pages(built)) == ["01_a.html", "02_next.html", "dashboard.html", "index.html"]
    assert sorted(file.name for file in built.glob("*.js")) == ["plotly.min.js"]
    assert all(len(text) < 1_500_000 for text in pages(built).values())  # plotly.js alone has 4.5 million
    index = BeautifulSoup(pages(built)["index.html"], "html.parser")
    linked = {link["href"] for link in index.select("a[href]")}
    assert {
        "01_a.html",
        "02_next.html",
        "dashboard.html",
        "data/benchmark.json",
        "data/benchmark.csv",
    } <= linked
    assert all((built / href).exists() for href in linked)
    assert "A chapter?" in index.text


def test_no_page_loads_from_elsewhere(built):
    for name, text in pages(built).items():
        assert not WAYS_OUT.findall(re.sub(r"<a [^>]*>", "", text)), name
        assert "default-src 'none'" in text


def test_text_injects_no_script_and_no_tag(built):
    for name, text in pages(built).items():
        soup = BeautifulSoup(text, "html.parser")
        nonce = re.search(r"'nonce-([\w-]+)'", text)[1]
        for script in soup.find_all("script"):
            assert script.get("nonce") == nonce or script.get("type") == "application/json", name
            assert not script.get("src") or script["src"] == "plotly.min.js"
        assert not soup.find_all("img"), name
        assert not [tag for tag in soup.find_all(True) if any(key.startswith("on") for key in tag.attrs)], (
            name
        )


def test_hostile_text_is_shown_as_it_is(built):
    chapter, dashboard, index = (
        BeautifulSoup(pages(built)[f"{n}.html"], "html.parser") for n in ("01_a", "dashboard", "index")
    )
    assert chapter.select_one(".jp-OutputArea").text.count(fake.HOSTILE) == 2
    assert fake.HOSTILE in [option["value"] for option in dashboard.select("option[value]")]
    assert fake.HOSTILE in [cell.text for cell in index.select("td")]


def test_the_dashboards_data_is_all_of_its_choices(built):
    data = json.loads(BeautifulSoup(pages(built)["dashboard.html"], "html.parser").find(id="figures").string)
    assert [len(panel["figures"]) for panel in data["panels"]] == [1, 1, 8, 3, 3, 3, 3, 2]
    assert max(number for panel in data["panels"] for number in panel["figures"].values()) < len(
        data["figures"]
    )
    assert '["benchmark.json",null]' in data["panels"][2]["figures"]


def test_links_between_notebooks_become_links_between_pages(built):
    assert 'href="02_next.html#end"' in pages(built)["01_a.html"]
    assert "<p><a>kept</a></p>" in pages(built)["01_a.html"]
    assert "Next: 02<" in pages(built)["01_a.html"]
    assert "open this chapter in JupyterLab" in pages(built)["01_a.html"]


def test_a_damaged_result_is_named_on_the_pages_and_by_the_exit_status(root, capsys):
    (root / "artifacts" / "results" / "benchmark.json").write_text('{"summary": <b>')
    assert site.main(root) == 1
    assert "benchmark.json: not" in capsys.readouterr().err
    for name in ("index.html", "dashboard.html"):
        said = BeautifulSoup((root / "artifacts/runs/report" / name).read_text(), "html.parser").select(
            "[role=alert]"
        )
        assert any("benchmark.json: not" in each.text for each in said)


def test_a_damaged_notebook_is_an_error_that_names_it_and_leaves_the_report(root, built, capsys):
    before = pages(built)
    (root / "notebooks" / "01_a.ipynb").write_text("{")
    assert site.main(root) == 1
    assert "01_a.ipynb: not a notebook" in capsys.readouterr().err
    assert pages(built) == before


def test_a_new_report_replaces_the_old_one_and_nothing_lies_beside_it(root, built):
    (built / "old.html").write_text("")
    assert site.main(root) == 0
    assert "old.html" not in pages(built)
    assert [folder.name for folder in built.parent.iterdir()] == [built.name]


def test_answers_of_one_token_are_reported(root):
    fake.write(root / "artifacts" / "results", benchmark=fake.one_token_answers())
    assert site.main(root) == 0
