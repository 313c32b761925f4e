"""The study runner on tiny notebooks, some of them run by papermill for real."""

import json
import re
import shutil

import nbformat
import numpy as np
import papermill
import pytest
from fake_notebooks import Stand
from fake_notebooks import write as write_notebook
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from medusa_core import report, study, tables

FIGURE = """from IPython.display import display
import ipywidgets, plotly.graph_objects as go
figure = go.Figure(go.Bar(y=[1, 2, 3]))
figure.show()
display(ipywidgets.IntSlider())"""
RESULT = """import json, pathlib
folder = pathlib.Path("../artifacts/runs/quick/results")
folder.mkdir(parents=True, exist_ok=True)
_ = (folder / "sum.json").write_text(json.dumps({"summary": [{"name": "total", "value": first + second}]}))"""


@pytest.fixture
def never_execute(monkeypatch):
    """Fail the test when a chapter would be run."""

    def execute(notebook, *_):
        raise AssertionError(f"{notebook.stem} ran")

    monkeypatch.setattr(study, "execute", execute)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of one chapter that has run once, and what it printed."""
    root = tmp_path_factory.mktemp("study")
    write_notebook(
        root / "notebooks" / "01_add_numbers.ipynb",
        ("markdown", r"Threshold $\min(\epsilon, \delta e^{-H})$, price `$5 and $6`"),
        RESULT,
        FIGURE,
        parameters="first: int = 1  # a number\nsecond: int = 2  # another",
        inputs=["data.txt"],
    )
    (root / "data.txt").write_text("one")
    assert study.main([], root) == 0
    return root


def test_a_run_leaves_notebook_page_and_index(finished):
    folder = finished / "artifacts" / "runs" / "quick"
    assert nbformat.read(folder / "01_add_numbers.ipynb", 4).cells[2].execution_count == 2
    assert "01_add_numbers.html" in (folder / "index.html").read_text()
    assert "<td>total</td><td class='number'>3</td>" in (folder / "index.html").read_text()


def test_a_page_loads_nothing_and_draws_everything(finished):
    page = (finished / "artifacts" / "runs" / "quick" / "01_add_numbers.html").read_text()
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]*>", page)
    assert page.count('src="plotly.min.js"') == 1
    assert (finished / "artifacts" / "runs" / "quick" / "plotly.min.js").exists()
    assert "Plotly.newPlot(" in page
    assert "open this chapter in JupyterLab" in page
    assert "<math" in page and "<code>$5 and $6</code>" in page


def test_an_unchanged_chapter_is_skipped_and_the_table_printed(finished, never_execute, capsys):
    assert study.main([], finished) == 0
    printed = capsys.readouterr().out
    assert "01_add_numbers  unchanged" in printed
    assert printed.rstrip().splitlines()[-2:] == ["name   value", "total      3"]


def test_shipped_results_are_on_the_page_and_printed_where_a_run_has_none(
    finished, never_execute, tmp_path, capsys
):
    root = shutil.copytree(finished, tmp_path / "copy")
    quick = root / "artifacts" / "runs" / "quick"
    (root / "artifacts" / "results").mkdir()
    (root / "artifacts" / "results" / "shipped.json").write_text('{"summary": [{"shipped": 5}]}')
    assert study.main([], root) == 0
    assert "shipped.json" not in capsys.readouterr().out
    assert "artifacts/results/shipped.json" in (quick / "index.html").read_text()
    (quick / "results" / "sum.json").unlink()
    assert study.main([], root) == 0
    assert capsys.readouterr().out.rstrip().splitlines()[-2:] == ["shipped", "      5"]


def test_force_runs_an_unchanged_chapter(finished, never_execute):
    with pytest.raises(AssertionError, match="01_add_numbers ran"):
        study.main(["--force"], finished)


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


@pytest.mark.parametrize("change", ["source", "input", "params", "page"])
def test_a_changed_chapter_runs_again(tmp_path, stand, change):
    notebook, data = tmp_path / "notebooks" / "01_a.ipynb", tmp_path / "data.txt"
    write_notebook(notebook, "1 + 1", parameters="n: int = 1", inputs=["data.txt"])
    data.write_text("one")
    params = tmp_path / "mine.yaml"
    params.write_text("all: {n: 2}")
    assert stand.study(tmp_path, "--params", str(params)) == ["01_a"]
    assert stand.study(tmp_path, "--params", str(params)) == []
    if change == "source":
        write_notebook(notebook, "1 + 2", parameters="n: int = 1", inputs=["data.txt"])
    elif change == "input":
        data.write_text("two")
    elif change == "params":
        params.write_text("all: {n: 3}")
    else:
        (tmp_path / "artifacts" / "runs" / "mine" / "01_a.html").unlink()
    assert stand.study(tmp_path, "--params", str(params)) == ["01_a"]


@pytest.mark.parametrize("edited", ["notebook", "parameters"])
def test_what_is_edited_while_a_chapter_runs_has_not_run(tmp_path, stand, edited):
    notebook = write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1 + 1", parameters="n: int = 1")
    params = tmp_path / "mine.yaml"
    params.write_text("all: {n: 2}")

    def edit():
        if edited == "notebook":
            write_notebook(notebook, "1 + 2", parameters="n: int = 1")
        else:
            params.write_text("all: {n: 3}")

    stand.meanwhile = edit
    assert stand.study(tmp_path, "--params", str(params)) == ["01_a"]
    assert stand.study(tmp_path, "--params", str(params)) == ["01_a"]
    assert stand.study(tmp_path, "--params", str(params)) == []


def two_writers(root, stand):
    """A chapter that writes heads and a tree, and one that writes the tree anew and shows its own last result."""
    heads, results = root / "artifacts" / "heads" / "a", root / "artifacts" / "results"
    text = f'heads_folder: str = "artifacts/heads/a"\nresults_folder: str = "{results.relative_to(root)}"'
    write_notebook(root / "notebooks" / "01_train.ipynb", parameters=text, inputs=[])
    shown = ["artifacts/heads/a/heads.safetensors", "artifacts/results/search.json"]
    write_notebook(root / "notebooks" / "02_search.ipynb", parameters=text, inputs=shown)
    stand.leaves = {
        "01_train": [heads / "heads.safetensors", heads / "tree.json"],
        "02_search": [heads / "tree.json", results / "search.json"],
    }
    return heads, results


def test_chapters_that_write_into_the_same_folder_and_read_their_own_results_come_to_rest(tmp_path, stand):
    _, results = two_writers(tmp_path, stand)
    assert stand.study(tmp_path) == ["01_train", "02_search"]
    assert stand.study(tmp_path) == []
    (results / "search.json").write_text('{"by": "another command"}')
    assert stand.study(tmp_path) == []


def test_a_chapter_runs_again_when_something_that_it_wrote_is_gone(tmp_path, stand):
    _, results = two_writers(tmp_path, stand)
    stand.study(tmp_path)
    (results / "search.json").unlink()
    assert stand.study(tmp_path) == ["02_search"]


def test_a_chapter_runs_again_when_an_earlier_one_wrote_over_its_files(tmp_path, stand):
    two_writers(tmp_path, stand)
    stand.study(tmp_path)
    assert stand.study(tmp_path, "--force", "--chapters", "01") == ["01_train"]
    assert stand.study(tmp_path) == ["02_search"]


def test_only_the_chosen_chapters_run(tmp_path, stand):
    for stem in ("01_a", "02_b", "03_c"):
        write_notebook(tmp_path / "notebooks" / f"{stem}.ipynb", "1")
    assert stand.study(tmp_path, "--chapters", "02", "03_c") == ["02_b", "03_c"]


@pytest.mark.parametrize("name", ["quick", "report", "browser", "heads", "train"])
def test_a_parameter_file_cannot_take_a_folder_of_something_else(tmp_path, never_execute, capsys, name):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    params = tmp_path / f"{name}.yaml"
    params.write_text("")
    assert study.main(["--params", str(params)], tmp_path) == 1
    assert f"artifacts/runs/{name} is not for parameter files" in capsys.readouterr().err


def test_a_run_belongs_to_the_file_that_began_it(tmp_path, stand, capsys):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    for name in ("mine.yaml", "other/mine.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert stand.study(tmp_path, "--params", str(tmp_path / "mine.yaml")) == ["01_a"]
    assert study.main(["--params", str(tmp_path / "other" / "mine.yaml")], tmp_path) == 1
    assert "was begun with mine.yaml" in capsys.readouterr().err
    assert stand.study(tmp_path, "--params", str(tmp_path / "mine.yaml")) == []


@pytest.mark.parametrize("error", [CellTimeoutError("too long"), DeadKernelError("Kernel died")])
def test_a_chapter_that_hangs_or_dies_is_shown_with_the_cell_that_ran(tmp_path, monkeypatch, capsys, error):
    notebook = write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "before = 1", "endless()", "after = 1")

    def execute_notebook(source, output, *_, **__):
        content = nbformat.read(source, 4)
        for cell, status in zip(content.cells, ("completed", "running", "pending"), strict=True):
            cell.metadata["papermill"] = {"status": status}
        nbformat.write(content, output)
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    assert study.main([], tmp_path) == 1
    printed = capsys.readouterr().err
    assert f"failed in this cell:\n\n    endless()\n\n{error}" in printed and "lack of memory" in printed
    assert f"artifacts/runs/quick/{notebook.name}" in printed


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    monkeypatch.setattr(study, "execute", interrupt)
    assert study.main([], tmp_path) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_parameters_reach_the_chapter_and_a_failure_shows_cell_and_error(tmp_path, capsys):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "x = 1 / zero", parameters="zero: int = 1")
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", "print(1)")
    params = tmp_path / "wrong.yaml"
    params.write_text("01_a: {zero: 0}")
    assert study.main(["--params", str(params)], tmp_path) == 1
    printed = capsys.readouterr()
    assert "    x = 1 / zero" in printed.err and "ZeroDivisionError: division by zero" in printed.err
    assert "02_b" not in printed.out
    folder = tmp_path / "artifacts" / "runs" / "wrong"
    assert (folder / "01_a.ipynb").exists() and not (folder / "01_a.html").exists()
    assert "01_a" not in json.loads((folder / "study.json").read_text())


def test_unknown_chapters_and_an_empty_study_are_errors(tmp_path, never_execute, capsys):
    assert study.main([], tmp_path) == 1
    assert "no chapters" in capsys.readouterr().err
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    assert study.main(["--chapters", "07"], tmp_path) == 1
    assert 'no chapter "07"; there are 01_a' in capsys.readouterr().err
    for part in ("0", "", "01_"):  # a name that is cut short means no chapter, least of all several
        assert study.main(["--chapters", part], tmp_path) == 1


def test_a_damaged_result_file_is_named(tmp_path):
    (tmp_path / "bad.json").write_text('{"summary": [')
    with pytest.raises(ValueError, match=r"bad\.json: not a JSON result file"):
        report.result_tables([tmp_path / "bad.json"], tmp_path)
    (tmp_path / "bad.json").write_text('{"summary": {"a": 1}}')
    with pytest.raises(ValueError, match=r"bad\.json.*list of rows"):
        report.result_tables([tmp_path / "bad.json"], tmp_path)


def test_a_table_aligns_rows_of_different_columns():
    rows = [{"what": "base", "tokens/s": 9.5}, {"what": "medusa1", "tokens/s": 21.25, "same": True}]
    assert tables.text_table(rows) == ("what     tokens/s  same\nbase         9.50\nmedusa1     21.25   yes")
    numpys = [{"what": "base", "share": np.float32(0.123456), "count": np.int64(12), "even": np.bool_(True)}]
    assert tables.text_table(numpys) == ("what  share  count  even\nbase  0.123     12  yes")


def test_a_table_for_notebooks_is_escaped_and_keeps_line_breaks():
    found = tables.html_table([{"who": "a<b", "tokens": 1.5}, {"who": "two\nlines", "more": None}]).data
    cell = f'<td style="{tables.CELL}">'
    assert "white-space:pre-wrap" in tables.CELL
    assert found.startswith("<table><tr><th>who</th><th>tokens</th><th>more</th></tr>")
    assert f"{cell}a&lt;b</td>{cell}1.50</td>{cell}</td>" in found and f"{cell}two\nlines</td>" in found
