"""The study runner on tiny notebooks, run by papermill for real; and the repository's own parameter files."""

import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from medusa_core import report, runtime, study

FIGURE = """from IPython.display import display
import ipywidgets, plotly.graph_objects as go
figure = go.Figure(go.Bar(y=[1, 2, 3]))
figure.show()
display(ipywidgets.IntSlider())"""
RESULT = """import json, pathlib
folder = pathlib.Path("../artifacts/runs/quick/results")
folder.mkdir(parents=True, exist_ok=True)
_ = (folder / "sum.json").write_text(json.dumps({"summary": [{"name": "total", "value": first + second}]}))"""


def write_notebook(path, *cells, parameters=None, inputs=None):
    """Write a notebook of code cells; text cells are given as ("markdown", text)."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if inputs is not None:
        notebook.metadata["medusa"] = {"inputs": inputs}
    if parameters:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        text = isinstance(cell, tuple)
        notebook.cells.append(
            nbformat.v4.new_markdown_cell(cell[1]) if text else nbformat.v4.new_code_cell(cell)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


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


def test_force_runs_an_unchanged_chapter(finished, never_execute):
    with pytest.raises(AssertionError, match="01_add_numbers ran"):
        study.main(["--force"], finished)


@pytest.mark.parametrize("change", ["source", "input", "params", "page"])
def test_a_changed_chapter_runs_again(tmp_path, never_execute, change):
    notebook, data = tmp_path / "notebooks" / "01_a.ipynb", tmp_path / "data.txt"
    write_notebook(notebook, "1 + 1", parameters="n: int = 1", inputs=["data.txt"])
    data.write_text("one")
    folder = tmp_path / "artifacts" / "runs" / "quick"
    folder.mkdir(parents=True)
    (folder / "01_a.html").touch()
    entry = {"key": study.key(tmp_path, notebook, {}), "seconds": 1, "finished": "today"}
    (folder / "study.json").write_text(json.dumps({"01_a": entry}))
    assert study.main([], tmp_path) == 0
    arguments = []
    if change == "source":
        write_notebook(notebook, "1 + 2", parameters="n: int = 1", inputs=["data.txt"])
    elif change == "input":
        data.write_text("two")
    elif change == "params":
        (folder.parent / "params").mkdir()
        arguments = ["--params", str(folder.parent / "params" / "quick.yaml")]
        Path(arguments[1]).write_text("all: {n: 2}")
    else:
        (folder / "01_a.html").unlink()
    with pytest.raises(AssertionError, match="01_a ran"):
        study.main(arguments, tmp_path)


def test_the_key_ignores_outputs_and_follows_the_package(tmp_path, monkeypatch):
    notebook = tmp_path / "notebooks" / "01_a.ipynb"
    write_notebook(notebook, "1 + 1")
    before = study.key(tmp_path, notebook, {})
    content = nbformat.read(notebook, 4)
    content.cells[0].execution_count = 7
    nbformat.write(content, notebook)
    assert study.key(tmp_path, notebook, {}) == before
    monkeypatch.setattr(study, "PACKAGE", tmp_path / "package")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "tree.py").write_text("x = 1")
    assert study.key(tmp_path, notebook, {}) != before


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
    assert not (folder / "study.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "01_a: {stepz: 3}",
            r'wrong.yaml: 01_a: "stepz" is no parameter of this chapter; did you mean steps',
        ),
        ("all: {stepz: 3}", r'wrong.yaml: all: "stepz" is no parameter of any chapter; did you mean steps'),
        ("01_b: {steps: 3}", r'wrong.yaml: no chapter "01_b"; did you mean 01_a'),
        ("steps: 3", r"wrong.yaml: must map chapters"),
        ("01_a: {steps: [}", r"wrong.yaml: not YAML"),
    ],
)
def test_a_parameter_that_reaches_no_notebook_is_an_error(tmp_path, never_execute, capsys, text, message):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", parameters="steps: int = 1")
    params = tmp_path / "wrong.yaml"
    params.write_text(text)
    assert study.main(["--params", str(params)], tmp_path) == 1
    assert re.search(message, capsys.readouterr().err)


def test_all_reaches_only_the_chapters_that_know_the_name(tmp_path):
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", parameters="steps: int = 1\nseed: int = 0")
    write_notebook(tmp_path / "notebooks" / "02_b.ipynb", parameters="seed: int = 0")
    params = tmp_path / "p.yaml"
    params.write_text("all: {steps: 5, seed: 6}\n01_a: {seed: 7}")
    assert study.assign(params, study.chapters(tmp_path)) == {
        "01_a": {"steps": 5, "seed": 7},
        "02_b": {"seed": 6},
    }


def test_unknown_chapters_and_an_empty_study_are_errors(tmp_path, never_execute, capsys):
    assert study.main([], tmp_path) == 1
    assert "no chapters" in capsys.readouterr().err
    write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "1")
    assert study.main(["--chapters", "07"], tmp_path) == 1
    assert 'no chapter "07"; there are 01_a' in capsys.readouterr().err


def test_a_damaged_result_file_is_named(tmp_path):
    (tmp_path / "bad.json").write_text('{"summary": [')
    with pytest.raises(ValueError, match=r"bad\.json: not a JSON result file"):
        report.result_tables([tmp_path / "bad.json"], tmp_path)
    (tmp_path / "bad.json").write_text('{"summary": {"a": 1}}')
    with pytest.raises(ValueError, match=r"bad\.json.*list of rows"):
        report.result_tables([tmp_path / "bad.json"], tmp_path)


def test_a_table_aligns_rows_of_different_columns():
    rows = [{"what": "base", "tokens/s": 9.5}, {"what": "medusa1", "tokens/s": 21.25, "same": True}]
    assert report.text_table(rows) == ("what     tokens/s  same\nbase         9.50\nmedusa1     21.25   yes")


@pytest.mark.parametrize(
    "params", sorted((runtime.ROOT / "params").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_key_of_the_shipped_parameter_files_reaches_a_notebook(params):
    notebooks = study.chapters(runtime.ROOT)
    given = study.assign(params, notebooks)
    reached = {
        name
        for stem, values in given.items()
        for name in values
        if name in papermill.inspect_notebook(notebooks[stem])
    }
    assert reached == {name for values in yaml.safe_load(params.read_text()).values() for name in values}
