"""What makes a chapter of the study run again, and what must not: on tiny notebooks and on the shipped ones."""

import json
import re

import nbformat
import pytest
from fake_notebooks import Stand, write

from medusa_core import runtime, study, study_key
from medusa_core.study_parameters import assign, defaults

CHAPTERS = study.chapters(runtime.ROOT)
SCALES = [None, *sorted((runtime.ROOT / "params").glob("*.yaml"))]
MEASURED = {"tree.json", "plan.json"}  # beside heads, written by chapters 04 and 08


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def names(root, notebook, params=None):
    return {path.relative_to(root).as_posix() for path in study_key.inputs(root, notebook, params or {})}


def test_outputs_of_a_notebook_do_not_count_and_sources_do(tmp_path):
    notebook = write(tmp_path / "01_a.ipynb", "1 + 1")
    before = study_key.code_key(notebook, {})
    content = nbformat.read(notebook, 4)
    content.cells[0].execution_count = 7
    nbformat.write(content, notebook)
    assert study_key.code_key(notebook, {}) == before
    assert study_key.code_key(notebook, {"n": 1}) != before
    content.cells[0].source = "1 + 2"
    nbformat.write(content, notebook)
    assert study_key.code_key(notebook, {}) != before


@pytest.mark.parametrize("name", ["tree.py", "kernels/matmul.h", "heads/medusa.py"])
def test_every_source_of_the_package_counts(tmp_path, monkeypatch, name):
    monkeypatch.setattr(study_key, "PACKAGE", tmp_path / "package")
    notebook = write(tmp_path / "01_a.ipynb", "1 + 1")
    touch(tmp_path / "package", name)
    before = study_key.code_key(notebook, {})
    (tmp_path / "package" / name).write_text("changed")
    assert study_key.code_key(notebook, {}) != before


def test_what_only_runs_or_shows_chapters_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(study_key, "PACKAGE", tmp_path)
    notebook = write(tmp_path / "01_a.ipynb", "1 + 1")
    before = study_key.code_key(notebook, {})
    touch(tmp_path, "study.py", "study_key.py", "study_parameters.py", "site.py")
    assert study_key.code_key(notebook, {}) == before


def test_a_chapter_that_names_no_inputs_depends_on_data_and_on_the_weights_of_all_heads(tmp_path):
    touch(
        tmp_path, *(f"artifacts/heads/a/{name}" for name in ("heads.safetensors", "config.json", *MEASURED))
    )
    touch(tmp_path, "artifacts/data/set.parquet", "artifacts/results/a.json")
    assert names(tmp_path, write(tmp_path / "notebooks" / "01_a.ipynb", "1")) == {
        "artifacts/data/set.parquet",
        "artifacts/heads/a/config.json",
        "artifacts/heads/a/heads.safetensors",
    }


def test_a_file_that_a_parameter_names_is_an_input_by_default_and_as_given(tmp_path):
    touch(tmp_path, "data/one.parquet", "data/two.parquet", "data/three.parquet", "plan.json")
    notebook = write(
        tmp_path / "notebooks" / "04_a.ipynb",
        parameters='data: str = "data/one.parquet"\nsets: list = []\nplan: str = "plan.json"\n'
        f'prompt: str = "{"long " * 200}"\nfolder: str = "data"',
        inputs=[],
        ignore=["plan"],
    )
    assert names(tmp_path, notebook) == {"data/one.parquet"}
    given = {"data": "../data/two.parquet", "sets": ["data/three.parquet", "data/none.parquet"]}
    assert names(tmp_path, notebook, given) == {"data/two.parquet", "data/three.parquet"}


def test_a_pattern_looks_where_its_parameter_leads(tmp_path):
    touch(
        tmp_path, "artifacts/heads/a/config.json", "artifacts/heads/b/config.json", "runs/heads/config.json"
    )
    notebook = write(
        tmp_path / "notebooks" / "04_a.ipynb", parameters='heads: str = "a"', inputs=["{heads}/config.json"]
    )
    assert names(tmp_path, notebook) == {"artifacts/heads/a/config.json"}
    assert names(tmp_path, notebook, {"heads": "none"}) == set()
    assert names(tmp_path, notebook, {"heads": "../runs/heads"}) == {"runs/heads/config.json"}
    assert len(names(tmp_path, notebook, {"heads": ["a", "b"]})) == 2


def test_outputs_are_the_files_in_the_folders_that_a_chapter_writes_to(tmp_path):
    touch(tmp_path, "results/deep/a.json", "elsewhere/b.json")
    notebook = write(
        tmp_path / "01_a.ipynb", parameters='results_folder: str = "none"\nwhere: str = "elsewhere"'
    )
    before = study_key.outputs(tmp_path, notebook, {"results_folder": "results"})
    assert list(before) == ["results/deep/a.json"]
    (tmp_path / "results" / "deep" / "a.json").write_text("again")
    assert study_key.outputs(tmp_path, notebook, {"results_folder": "results"}) != before


@pytest.mark.parametrize("scale", SCALES, ids=lambda path: path.stem if path else "quick")
def test_no_shipped_chapter_reads_what_a_later_one_writes(scale):
    given = assign(scale, CHAPTERS) if scale else {}
    for stem, notebook in CHAPTERS.items():
        found = study_key.inputs(runtime.ROOT, notebook, given.get(stem, {}))
        if stem < "08":
            assert not [path for path in found if path.name in MEASURED], stem
        if stem < "12":
            assert "claims.json" not in {path.name for path in found}, stem


def test_shipped_chapters_depend_on_the_heads_and_results_that_they_show():
    expected = {
        "04": {"artifacts/data/distilled.parquet", "artifacts/heads/medusa1/heads.safetensors"},
        "05": {"artifacts/heads/medusa1/config.json", "artifacts/results/train_medusa2.json"},
        "06": {"artifacts/heads/lstm/heads.safetensors"},
        "08": {"artifacts/results/search_trees.json"},
        "09": {
            "artifacts/results/peers.json",
            "artifacts/results/train_moe.json",
            "artifacts/heads/medusa1/plan.json",
        },
        "12": {"artifacts/results/comparison.json"},
    }
    for number, files in expected.items():
        (notebook,) = (path for stem, path in CHAPTERS.items() if stem.startswith(number))
        assert names(runtime.ROOT, notebook) >= files, number


@pytest.mark.parametrize("notebook", CHAPTERS.values(), ids=CHAPTERS)
def test_every_shipped_chapter_names_inputs_that_exist(notebook):
    about = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["medusa"]
    known = defaults(notebook)
    assert set(about.get("ignore", [])) <= known.keys()
    for pattern in about["inputs"]:
        within = re.match(r"\{(\w+)\}/", pattern)
        assert not within or within[1] in known, pattern
        if not pattern.startswith("{model}"):  # the embedded model lies where the package says
            assert any(study_key.matches(runtime.ROOT, notebook, pattern, known)), pattern


def test_the_study_at_its_own_scale_comes_to_rest(tmp_path, monkeypatch):
    for stem, notebook in CHAPTERS.items():
        touch(tmp_path, f"notebooks/{stem}.ipynb")
        (tmp_path / "notebooks" / notebook.name).write_text(notebook.read_text(encoding="utf-8"))
    kinds = ["medusa1", "medusa2", "gru", "gated", "redrafter", "lstm", "moe"]
    weights = {
        kind: [f"heads/{kind}/{name}" for name in ("heads.safetensors", "config.json")] for kind in kinds
    }
    measured = [f"heads/medusa1/{name}" for name in sorted(MEASURED)]
    leaves = {
        "04_train_medusa1": [*weights["medusa1"], measured[1], "results/train_medusa1.json"],
        "05_train_medusa2": [*weights["medusa2"], "heads/medusa2/tree.json", "results/train_medusa2.json"],
        "06_train_recurrent_heads": [*sum(map(weights.get, kinds[2:6]), []), "results/train_recurrent.json"],
        "07_train_moe_heads": [*weights["moe"], "results/train_moe.json"],
        "08_search_trees": [*measured, "results/search_trees.json"],
        "09_benchmark": ["results/benchmark.json"],
        "12_test_claims": ["results/claims.json"],
    }
    assert leaves.keys() <= CHAPTERS.keys()
    stand = Stand(monkeypatch)
    stand.leaves = {stem: [tmp_path / "artifacts" / name for name in names] for stem, names in leaves.items()}
    params = str(runtime.ROOT / "params" / "study.yaml")
    assert stand.study(tmp_path, "--params", params) == list(CHAPTERS)
    assert stand.study(tmp_path, "--params", params) == []
