"""Trees are written and read whole, and found by the names that commands take."""

import errno
import os

import pytest

from medusa_core import runtime, tree_files
from medusa_core.tree import Tree, TreeError, chain

TREE = Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_tree_file_round_trip(tmp_path, suffix):
    file = tmp_path / f"small.{suffix}"
    tree_files.save(TREE, file, name="demo")
    assert tree_files.load(file).choices == TREE.choices
    assert "demo" in file.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a YAML or JSON file"),
        ("[[0]]", '"choices" is not there'),
        ('{"choices": 3}', '"choices" is not there'),
        ('{"choices": [[0]], "choices": [[1]]}', ':1: "choices" is already in line 1; keep one'),
        ('{"choices": [[0, 0]]}', r"path \[0, 0\] has no parent"),
    ],
)
def test_broken_tree_file_is_refused_by_name(tmp_path, text, message):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(TreeError, match=message) as error:
        tree_files.load(file)
    assert str(file) in str(error.value)


def test_a_tree_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    file = tmp_path / "tree.json"
    tree_files.save(chain(2), file)
    before = file.read_text()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left on the disk"):
        tree_files.save(chain(3), file)
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_trees_are_found_beside_the_heads_by_name_by_file_and_as_chains(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "ARTIFACTS", tmp_path)
    (tmp_path / "trees").mkdir()
    tree_files.save(TREE, tmp_path / "trees" / "small.yaml")
    tree_files.save(chain(2), tmp_path / "tree.json")
    assert tree_files.find("auto", tmp_path).choices == chain(2).choices
    assert tree_files.find("small", tmp_path).choices == TREE.choices
    assert tree_files.find(str(tmp_path / "trees" / "small.yaml"), tmp_path).choices == TREE.choices
    assert tree_files.find("chain-4", tmp_path).max_depth == 4
    assert tree_files.find("chain-0", tmp_path).size == 1
    with pytest.raises(TreeError, match="no tree called 'big'.*auto, small, chain-N"):
        tree_files.find("big", tmp_path)
    with pytest.raises(TreeError, match="have no tree of their own"):
        tree_files.find("auto", tmp_path / "trees")
