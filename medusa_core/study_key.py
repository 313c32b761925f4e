"""What a chapter of the study depends on, as hashes, and which files it wrote: whether it has to run again.

A notebook's metadata names what it reads beside its parameters' files: {"medusa": {"inputs": [patterns]}}. A pattern is
a glob below the root; with "{name}/" in front it looks in the folders that the parameter `name` names. {"ignore":
[names]} lists parameters whose file does not count, because a later chapter writes it.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from medusa_core.model_folder import sha256
from medusa_core.study_parameters import defaults, read_notebook

PACKAGE = Path(__file__).parent
# Modules that no chapter's result depends on.
APART = {
    *("study.py", "study_key.py", "study_parameters.py", "report.py", "site.py", "doctor.py"),
    *("readme.py", "refresh.py", "pictures.py", "chat.py"),
}
# What counts where no inputs are named. Of heads the weights only: a later chapter rewrites the trees and plans.
DEFAULT_INPUTS = ["artifacts/data/**/*", "artifacts/heads/*/config.json", "artifacts/heads/*/*.safetensors"]


def code_key(notebook: Path, params: dict) -> str:
    """A hash of a chapter's source, its parameters and the package; outputs do not count."""
    digest = hashlib.sha256(platform.python_version().encode())
    content = read_notebook(notebook)
    for cell in content["cells"]:
        source = "".join(cell["source"])
        digest.update(json.dumps([cell["cell_type"], source, cell["metadata"].get("tags")]).encode())
    digest.update(json.dumps(content["metadata"].get("medusa"), sort_keys=True).encode())
    digest.update(json.dumps(params, sort_keys=True, default=str).encode())
    files = (path for suffix in ("py", "h") for path in PACKAGE.rglob(f"*.{suffix}"))
    _add_files(digest, PACKAGE, (path for path in files if path.name not in APART))
    return digest.hexdigest()


def full_key(root: Path, code: str, files: Iterable[Path]) -> str:
    """A hash of what `code_key` gave and of input files."""
    digest = hashlib.sha256(code.encode())
    _add_files(digest, root, files)
    return digest.hexdigest()


def inputs(root: Path, notebook: Path, params: dict) -> set[Path]:
    """The files that a chapter reads with these parameters: those that its metadata and its parameters name."""
    about = read_notebook(notebook)["metadata"].get("medusa", {})
    values = defaults(notebook) | params
    found = set()
    for pattern in about.get("inputs", DEFAULT_INPUTS):
        found.update(matches(root, notebook, pattern, values))
    for name, value in values.items():
        if name not in about.get("ignore", []):
            found.update(_places(value, root, notebook.parent))
    return {path for path in found if os.path.isfile(path) and path.is_relative_to(root)}


def outputs(root: Path, notebook: Path, params: dict) -> dict[str, tuple[int, int]]:
    """The files in the folders that a chapter writes to, by name below the root, and when they changed.

    These are the folders that its parameters called *_folder name.
    """
    values = defaults(notebook) | params
    named = [value for name, value in values.items() if name.endswith("_folder")]
    folders = [folder for value in named for folder in _places(value, root)]
    stats = {path: path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {_name(root, path): (stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


def matches(root: Path, notebook: Path, pattern: str, values: dict) -> Iterator[Path]:
    """What is there of an input pattern, with a chapter's `values` of its parameters."""
    if within := re.fullmatch(r"\{(\w+)\}/(.+)", pattern):
        folders = _places(values.get(within[1]), root / "artifacts" / "heads", root, notebook.parent)
        return (path for folder in folders for path in folder.glob(within[2]))
    return root.glob(pattern)


def _places(value: object, *bases: Path) -> Iterator[Path]:
    """Where a parameter's text, or each of its list, leads from folders; whether anything is there is not asked."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str) and each:
            yield from (Path(os.path.normpath(base / each)) for base in bases)


def _add_files(digest, root: Path, files: Iterable[Path]) -> None:
    for path in sorted(files):
        digest.update(f"{_name(root, path)}\0{sha256(path)}\0".encode())


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
