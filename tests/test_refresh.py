"""Refreshing chapters: what is kept, what is taken out, and that a failed run leaves the file as it was."""

import json
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from medusa_core import pictures, refresh
from medusa_core.refresh import CONTROLS, RefreshError, clean
from medusa_core.report import PLOTLY, WIDGET_VIEW


def notebook(*outputs):
    cell = new_code_cell("1", outputs=list(outputs), execution_count=1)
    cell.metadata = {"tags": ["kept"], "execution": {"iopub.status.busy": "2026"}}
    metadata = {
        "widgets": {"state": {}},
        "medusa": {"inputs": []},
        "language_info": {"name": "python", "version": "3.11.7"},
    }
    return new_notebook(cells=[new_markdown_cell("# Why?"), cell], metadata=metadata)


def test_results_and_own_metadata_stay():
    result = new_output("execute_result", data={"text/plain": "1"}, execution_count=1)
    content = notebook(result, new_output("stream", name="stdout", text="hello\n"))
    clean(content, "01_x.ipynb")
    cell = content.cells[1]
    assert [output.output_type for output in cell.outputs] == ["execute_result", "stream"]
    assert cell.execution_count == 1
    assert cell.metadata == {"tags": ["kept"]}
    assert set(content.metadata) == {"kernelspec", "language_info", "medusa"}
    assert content.metadata.kernelspec.name == "python3"


def test_a_widget_becomes_a_line_that_says_how_to_use_it():
    view = {WIDGET_VIEW: {"model_id": "abc"}, "text/plain": "VBox(children=...)"}
    content = notebook(new_output("display_data", data=view))
    clean(content, "01_x.ipynb")
    assert content.cells[1].outputs[0].data == {"text/plain": CONTROLS}


def test_text_on_standard_error_is_refused_by_cell():
    content = notebook(new_output("stream", name="stderr", text="compiling 3/4\n"))
    with pytest.raises(RefreshError, match=r"01_x.ipynb: cell 1 .*\ncompiling 3/4\n"):
        clean(content, "01_x.ipynb")


def test_a_figure_that_did_not_change_keeps_its_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    path = tmp_path / "01_x.ipynb"
    figure = {"data": [], "layout": {"title": {"text": "kept"}}}
    output = new_output("display_data", data={PLOTLY: figure, pictures.PNG: "AAAA"})
    output.metadata[pictures.DRAWN] = pictures.digest(figure)
    show = f"from IPython.display import display\ndisplay({{{PLOTLY!r}: {figure}}}, raw=True)"
    nbformat.write(new_notebook(cells=[new_code_cell(show, outputs=[output])]), path)
    refresh.refresh(path)
    (kept,) = json.loads(path.read_text())["cells"][0]["outputs"]
    assert kept["data"][pictures.PNG].strip() == "AAAA"


def test_without_a_browser_a_chapter_is_saved_without_pictures(study, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    path = study / "notebooks" / "01_works.ipynb"
    show = f"from IPython.display import display\ndisplay({{{PLOTLY!r}: {{'data': [], 'layout': {{}}}}}}, raw=True)"
    nbformat.write(new_notebook(cells=[new_code_cell(show)]), path)
    assert refresh.main(["01"], study) == 0
    (saved,) = json.loads(path.read_text())["cells"][0]["outputs"]
    assert saved["data"].keys() == {PLOTLY}
    assert "without pictures" in capsys.readouterr().err


@pytest.fixture
def study(tmp_path):
    """A study of two chapters: one works, one fails."""
    (tmp_path / "notebooks").mkdir()
    for name, source in (("01_works", "import os\nprint(os.getcwd()[-9:])"), ("02_fails", "1 / 0")):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    return tmp_path


def test_a_chapter_runs_in_its_folder_and_keeps_its_outputs(study, capsys):
    assert refresh.main(["01"], study) == 0
    saved = json.loads((study / "notebooks" / "01_works.ipynb").read_text())
    assert saved["cells"][0]["outputs"][0]["text"] == ["notebooks\n"]
    assert saved["cells"][0]["execution_count"] == 1
    assert "01_works.ipynb ... saved after" in capsys.readouterr().out


def test_a_chapter_that_fails_stays_as_it_was(study, capsys):
    path = study / "notebooks" / "02_fails.ipynb"
    before = path.read_bytes()
    assert refresh.main(["02"], study) == 1
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["07", "0", "1"])
def test_a_chapter_that_is_not_there_is_named_beside_one_that_is(study, capsys, name):
    before = {path: path.read_bytes() for path in (study / "notebooks").iterdir()}
    assert refresh.main(["01", name], study) == 1
    assert f'no chapter "{name}"' in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (study / "notebooks").iterdir()}
