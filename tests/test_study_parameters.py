"""Parameter files of the study, small ones and the repository's own."""

import re

import pytest
import yaml
from fake_notebooks import write

from medusa_core import runtime, study
from medusa_core.study_parameters import StudyError, assign, defaults

SHIPPED = sorted((runtime.ROOT / "params").glob("*.yaml"))
each_shipped = pytest.mark.parametrize("params", SHIPPED, ids=lambda path: path.stem)


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
        ("01_a: {steps: 3}\n\n01_a: {steps: 4}", r'wrong.yaml:3: "01_a" is already in line 1'),
        ("01_a:\n  steps: 3\n  steps: 4", r'wrong.yaml:3: "steps" is already in line 2'),
        ("01_a: {steps: 3, steps: 4}", r'wrong.yaml:1: "steps" is already in line 1'),
        (b"01_a: {steps: 3}  # na\xefve", r"wrong.yaml: not UTF-8 text"),
        (None, r"cannot read the parameter file .*wrong.yaml: No such file"),
    ],
)
def test_a_file_that_does_not_say_one_thing_to_one_notebook_is_an_error(tmp_path, text, message):
    notebook = write(tmp_path / "notebooks" / "01_a.ipynb", parameters="steps: int = 1")
    params = tmp_path / "wrong.yaml"
    if text is not None:
        params.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match=message):
        assign(params, {"01_a": notebook})


def test_all_reaches_only_the_chapters_that_know_the_name(tmp_path):
    first = write(tmp_path / "01_a.ipynb", parameters="steps: int = 1\nseed: int = 0")
    second = write(tmp_path / "02_b.ipynb", parameters="seed: int = 0")
    params = tmp_path / "p.yaml"
    params.write_text("all: {steps: 5, seed: 6}\n01_a: {seed: 7}")
    assert assign(params, {"01_a": first, "02_b": second}) == {
        "01_a": {"steps": 5, "seed": 7},
        "02_b": {"seed": 6},
    }


def test_a_file_that_names_no_folder_gets_its_own(tmp_path):
    notebook = write(
        tmp_path / "01_a.ipynb",
        parameters='heads_folder: str = "artifacts/runs/quick/heads/a"  # one\n'
        'results_folder: str = "artifacts/runs/quick/results"  # two\n'
        'data: str = "artifacts/data/set.parquet"  # three',
    )
    params = tmp_path / "mine.yaml"
    params.write_text("01_a: {results_folder: artifacts/results}")
    assert assign(params, {"01_a": notebook})["01_a"] == {
        "heads_folder": "artifacts/runs/mine/heads/a",
        "results_folder": "artifacts/results",
    }


def test_defaults_are_read_without_running_them(tmp_path):
    text = 'model: str = "embedded"  # a\nsizes: list = [1, -2]\nrate = 1e-3\nhere = open("x")'
    assert defaults(write(tmp_path / "01_a.ipynb", "other = 1", parameters=text)) == {
        "model": "embedded",
        "sizes": [1, -2],
        "rate": 1e-3,
        "here": None,
    }


def test_parameters_that_are_not_python_are_an_error(tmp_path):
    with pytest.raises(StudyError, match=r"01_a\.ipynb: its parameters are not Python"):
        defaults(write(tmp_path / "01_a.ipynb", parameters="steps: int ="))


@each_shipped
def test_every_key_of_the_shipped_files_reaches_a_notebook(params):
    notebooks = study.chapters(runtime.ROOT)
    given = assign(params, notebooks)
    written = yaml.safe_load(params.read_text())
    assert written and all(given[stem].items() >= values.items() for stem, values in written.items())
    assert all(given[stem].keys() <= defaults(notebooks[stem]).keys() for stem in given)


@each_shipped
def test_no_shipped_file_writes_into_the_quick_run(params):
    notebooks = study.chapters(runtime.ROOT)
    for stem, values in assign(params, notebooks).items():
        final = defaults(notebooks[stem]) | values
        assert not re.search(r"runs/quick\b", str(final)), stem
