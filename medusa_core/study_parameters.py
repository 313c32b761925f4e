"""Parameter files of the study: what they may say, which notebook each value reaches, where their run's files go."""

import ast
import difflib
import json
from pathlib import Path

import yaml

from medusa_core import yaml_once

QUICK = "quick"  # the run without a parameter file
RUNS = "artifacts/runs"
# Folders below RUNS that are something else: of `make report`, `make browser-test`, and the trainings' own defaults.
TAKEN = ("report", "browser", "heads", "train")


class StudyError(ValueError):
    """A mistake of the user's, or a chapter that failed; the message says which."""


def run_name(params: Path | None) -> str:
    """The name of a parameter file's run, and of its folder; StudyError where the name is another's."""
    name = params.stem if params else QUICK
    if params and name in (QUICK, *TAKEN):
        raise StudyError(f"{params}: {RUNS}/{name} is not for parameter files; give the file another name")
    return name


def assign(params: Path, notebooks: dict[str, Path]) -> dict[str, dict]:
    """Read a parameter file, {chapter: {name: value}}; "all" gives its values to every chapter that has them.

    What a notebook would put into the quick run's folder goes into this file's own, unless the file names a place.
    Raises StudyError naming file and key for whatever would reach no notebook.
    """
    content = _read(params)
    known = {stem: defaults(path) for stem, path in notebooks.items()}
    everywhere = set().union(*known.values())
    for section, values in content.items():
        if section != "all" and section not in known:
            raise StudyError(f'{params}: no chapter "{section}"{_near(section, ["all", *known])}')
        names = everywhere if section == "all" else known[section]
        for name in values:
            if name not in names:
                where = "any chapter" if section == "all" else "this chapter"
                raise StudyError(
                    f'{params}: {section}: "{name}" is no parameter of {where}{_near(name, names)}'
                )
    shared = content.get("all", {})
    return {
        stem: _placed(own, run_name(params))
        | {name: value for name, value in shared.items() if name in own}
        | content.get(stem, {})
        for stem, own in known.items()
    }


def defaults(notebook: Path) -> dict[str, object]:
    """A notebook's parameters and their values; None for one that is not written as a literal.

    Raises StudyError where they are not Python.
    """
    found = {}
    for cell in read_notebook(notebook)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            for statement in _statements("".join(cell["source"]), notebook):
                if isinstance(statement, ast.Assign | ast.AnnAssign):
                    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
                    found[ast.unparse(target)] = _literal(statement.value)
    return found


def read_notebook(path: Path) -> dict:
    """The JSON of a notebook; StudyError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{path}: not a notebook ({error})") from error


def _read(params: Path) -> dict[str, dict]:
    try:
        content = yaml_once.read(params) or {}
    except OSError as error:
        raise StudyError(f"cannot read the parameter file {params}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{params}: not UTF-8 text: {error}") from error
    except yaml_once.RepeatedKeyError as error:
        raise StudyError(str(error)) from error
    except yaml.YAMLError as error:
        raise StudyError(f"{params}: not YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise StudyError(f'{params}: must map chapters (or "all") to {{parameter: value}}')
    return content


def _placed(values: dict[str, object], name: str) -> dict[str, str]:
    """Those of `values` that lie in the quick run's folder, moved to the folder of the run `name`."""
    old, new = f"{RUNS}/{QUICK}/", f"{RUNS}/{name}/"
    return {
        parameter: new + value.removeprefix(old)
        for parameter, value in values.items()
        if isinstance(value, str) and value.startswith(old)
    }


def _statements(source: str, notebook: Path) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise StudyError(f"{notebook}: its parameters are not Python: {error}") from error


def _literal(expression: ast.expr | None) -> object:
    try:
        return ast.literal_eval(expression)
    except (TypeError, ValueError):
        return None


def _near(name: str, known) -> str:
    close = difflib.get_close_matches(str(name), sorted(known), n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(known)) or 'none'}"
