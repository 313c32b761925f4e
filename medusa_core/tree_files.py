"""Trees as files: written, read, and found by the names that commands and parameter files take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from medusa_core import runtime, tree, yaml_once
from medusa_core.files import replacing
from medusa_core.heads import TREE_FILE
from medusa_core.tree import Tree, TreeError


def save(shape: Tree, path, name: str = "") -> None:
    """Write a tree as {"name", "choices"}: YAML where the suffix is .yaml or .yml, JSON otherwise."""
    path = Path(path)
    content = {"name": name or path.stem, "choices": [list(choice) for choice in shape.choices]}
    yaml_file = path.suffix in (".yaml", ".yml")
    with replacing(path) as temporary:
        temporary.write_text(to_yaml(content) if yaml_file else json.dumps(content) + "\n", encoding="utf-8")


def to_yaml(content: dict) -> str:
    """YAML text of a parameter mapping, lists in one line."""
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


def load(path) -> Tree:
    """Read a tree file written by `save` or by hand. Raises TreeError naming the file and the fault."""
    path = Path(path)
    try:
        raw = yaml_once.read(path)  # JSON is YAML too
    except yaml_once.RepeatedKeyError as error:
        raise TreeError(str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TreeError(f"{path}: not a YAML or JSON file: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("choices"), list):
        raise TreeError(
            f'{path}: expected {{"name": ..., "choices": [[0], [0, 0], ...]}}, key "choices" is not there'
        )
    try:
        return Tree.from_paths(raw["choices"])
    except TreeError as error:
        raise TreeError(f"{path}: {error}") from None


def find(name: str, heads_folder: Path) -> Tree:
    """Return the tree "auto" (tree.json beside the heads), of a file, named in artifacts/trees, or chain-N.

    Raises TreeError saying what was looked for.
    """
    path = path_of(name, heads_folder)
    if path.is_file():
        return load(path)
    if name == "auto":
        raise TreeError(
            f"{path}: no such file, so these heads have no tree of their own; name one, e.g. chain-4"
        )
    if chain := re.fullmatch(r"chain-(\d+)", name):
        return tree.chain(int(chain[1]))
    names = ", ".join(["auto", *_shipped(), "chain-N"])
    raise TreeError(f"no tree called {name!r}: it is neither a file nor one of {names}")


def path_of(name: str, heads_folder: Path) -> Path:
    """Where a tree of this name lies, if it is one that lies in a file."""
    if name == "auto":
        return heads_folder / TREE_FILE
    return Path(name) if Path(name).is_file() else _shipped().get(name, Path(name))


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted((runtime.ARTIFACTS / "trees").glob("*.*"))}
