"""Saved chapters: run from top to bottom without an error, free of what depends on who ran them, and readable."""

import ast
import json
import re
from pathlib import Path

import pytest

from medusa_core import pictures

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
MOST_BYTES, MOST_COLUMNS, MOST_LINES = 1_000_000, 100, 20
# A path that only exists on the machine of whoever ran the chapter.
FOREIGN_PATH = re.compile(r"(?<![\w.:/-])/(home|root|tmp|work|Users|mnt|opt|usr|var)/\w|[A-Z]:\\\\")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code_cells(content):
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def tagged(content, tag):
    return [cell for cell in code_cells(content) if tag in cell["metadata"].get("tags", [])]


def test_there_are_chapters_and_each_number_is_used_once():
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert {"01", "02", "03"} <= set(numbers)
    assert len(numbers) == len(set(numbers))
    assert all(re.fullmatch(r"\d\d(_[a-z0-9]+)+\.ipynb", path.name) for path in NOTEBOOKS)


@each_notebook
def test_saved_outputs_come_from_one_run_from_top_to_bottom(path):
    counts = [cell["execution_count"] for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_no_cell_failed_or_wrote_to_standard_error(path):
    for cell in code_cells(read(path)):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", "".join(output["text"])


@each_notebook
def test_every_figure_has_its_picture_for_code_hosts(path):
    left = [output["data"][pictures.PLOTLY]["layout"].get("title") for output in pictures.missing(read(path))]
    assert not left, "make .venv/browser && .venv/bin/python -m medusa_core.pictures"


@each_notebook
def test_nothing_is_saved_that_depends_on_who_ran_it(path):
    content = read(path)
    assert not {"widgets", "papermill"} & content["metadata"].keys()
    for cell in content["cells"]:
        assert not {"execution", "papermill", "ExecuteTime"} & cell["metadata"].keys()
        assert "injected-parameters" not in cell["metadata"].get("tags", [])
    assert not (found := FOREIGN_PATH.search(json.dumps(content, ensure_ascii=False))), found


@each_notebook
def test_format_is_one_that_every_tool_opens(path):
    content = read(path)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in content["cells"]]
    assert len(ids) == len(set(ids))
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_a_chapter_opens_with_its_question(path):
    first = read(path)["cells"][0]
    title = source(first).splitlines()[0]
    assert first["cell_type"] == "markdown"
    assert re.fullmatch(rf"# {path.name[:2]} · .+\?", title), title


@each_notebook
def test_parameters_are_typed_explained_and_used(path):
    content = read(path)
    (cell,) = tagged(content, "parameters")
    rest = [ast.parse(source(other)) for other in code_cells(content) if other is not cell]
    used = {node.id for tree in rest for node in ast.walk(tree) if isinstance(node, ast.Name)}
    lines = source(cell).splitlines()
    statements = ast.parse(source(cell)).body
    assert len(statements) == len(lines)
    for line, statement in zip(lines, statements):
        assert isinstance(statement, ast.AnnAssign), f"not `name: type = value  # meaning`: {line}"
        ast.literal_eval(statement.value)
        assert re.search(r"  # \S", line), f"no comment: {line}"
        assert line.count("=") == 1, f"papermill reads a line up to its second =: {line}"
        assert statement.target.id in used, f"{statement.target.id} changes nothing"


@each_notebook
def test_a_summary_is_checked_at_every_test(path):
    content = read(path)
    cells = tagged(content, "nbval-check-output")
    assert cells
    for cell in cells:
        assert cell["outputs"], source(cell)
        assert "seconds" not in json.dumps(cell["outputs"])


@each_notebook
def test_code_cells_are_short_enough_to_read(path):
    for cell in code_cells(read(path)):
        lines = source(cell).splitlines()
        if "parameters" not in cell["metadata"].get("tags", []):  # a table, a line a parameter
            assert len(lines) <= MOST_LINES, f"{len(lines)} lines:\n{source(cell)}"
        assert max(map(len, lines)) <= MOST_COLUMNS, max(lines, key=len)
