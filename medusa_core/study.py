"""Runs the chapters in order, exports them as pages and prints the result tables: `make study`."""

import argparse
import difflib
import hashlib
import json
import platform
import sys
import time
from datetime import datetime
from pathlib import Path

import yaml

from medusa_core import report, runtime
from medusa_core.files import write_json
from medusa_core.model_folder import sha256

PACKAGE = Path(__file__).parent
# Modules that no chapter's result depends on.
APART = {"study.py", "report.py", "site.py", "doctor.py"}
# What a chapter reads unless its notebook metadata says {"medusa": {"inputs": [globs below the root]}}.
DEFAULT_INPUTS = ["artifacts/data/**/*", "artifacts/heads/**/*"]
CELL_HOURS = {"quick": 0.5, "given": 24}  # a full training is one cell


class StudyError(Exception):
    """A mistake of the user's, or a chapter that failed; the message says which."""


def main(argv: list[str] | None = None, root: Path = runtime.ROOT) -> int:
    """Run the study below `root`; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m medusa_core.study", description=__doc__)
    parser.add_argument("--params", type=Path, help="YAML file of parameters (default: the notebooks' own)")
    parser.add_argument("--chapters", nargs="+", metavar="NN", help="run these only, e.g. 01 04")
    parser.add_argument("--force", action="store_true", help="run unchanged chapters, too")
    args = parser.parse_args(argv)
    try:
        run(root, args.params, args.chapters, args.force)
    except StudyError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished chapters are kept; the same command goes on from here.", file=sys.stderr
        )
        return 130
    return 0


def run(root: Path, params: Path | None, only: list[str] | None, force: bool) -> None:
    """Run what has changed up to the first failure, then write the index page and print the results."""
    notebooks = chapters(root)
    given = assign(params, notebooks) if params else {}
    folder = root / "artifacts" / "runs" / (params.stem if params else "quick")
    folder.mkdir(parents=True, exist_ok=True)
    record_file = folder / "study.json"
    record = _read_record(record_file)
    chosen = _choose(notebooks, only)
    for number, (stem, notebook) in enumerate(chosen.items(), 1):
        title = f"[{number}/{len(chosen)}] {stem}"
        page = folder / f"{stem}.html"
        done = record.get(stem, {}).get("key") == key(root, notebook, given.get(stem, {}))
        if done and page.exists() and not force:
            print(f"{title}  unchanged since {record[stem]['finished']}")
            continue
        page.unlink(missing_ok=True)
        seconds = execute(notebook, folder / notebook.name, given.get(stem, {}), title)
        report.export(folder / notebook.name, page)
        # The inputs as they are now: a chapter may have made what it reads.
        record[stem] = {
            "key": key(root, notebook, given.get(stem, {})),
            "seconds": round(seconds, 1),
            "finished": datetime.now().isoformat(" ", "minutes"),
        }
        write_json(record_file, record)
    _conclude(root, folder, {stem: record[stem] for stem in notebooks if stem in record})


def chapters(root: Path) -> dict[str, Path]:
    """The notebooks of the study by stem, in order; StudyError when there are none."""
    found = {path.stem: path for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise StudyError(f"no chapters: {root / 'notebooks'} holds no NN_name.ipynb")
    return found


def assign(params: Path, notebooks: dict[str, Path]) -> dict[str, dict]:
    """Read a parameter file, {chapter: {name: value}}; "all" gives its values to every chapter that has them.

    Raises StudyError naming file and key for whatever would reach no notebook.
    """
    import papermill

    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise StudyError(f"cannot read the parameter file {params}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{params}: not YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise StudyError(f'{params}: must map chapters (or "all") to {{parameter: value}}')
    names = {stem: set(papermill.inspect_notebook(path)) for stem, path in notebooks.items()}
    everywhere = set().union(*names.values())
    for section, values in content.items():
        if section != "all" and section not in names:
            raise StudyError(f'{params}: no chapter "{section}"{_near(section, ["all", *names])}')
        known = everywhere if section == "all" else names[section]
        for name in values:
            if name not in known:
                where = "any chapter" if section == "all" else "this chapter"
                raise StudyError(
                    f'{params}: {section}: "{name}" is no parameter of {where}{_near(name, known)}'
                )
    shared = content.get("all", {})
    return {
        stem: {name: value for name, value in shared.items() if name in known} | content.get(stem, {})
        for stem, known in names.items()
    }


def key(root: Path, notebook: Path, params: dict) -> str:
    """A hash of what a chapter depends on: its source, its parameters, the package and its input files."""
    content = _read_notebook(notebook)
    digest = hashlib.sha256(platform.python_version().encode())
    for cell in content["cells"]:
        source = "".join(cell["source"])
        digest.update(json.dumps([cell["cell_type"], source, cell["metadata"].get("tags")]).encode())
    digest.update(json.dumps(params, sort_keys=True, default=str).encode())
    inputs = content["metadata"].get("medusa", {}).get("inputs", DEFAULT_INPUTS)
    files = {path for pattern in inputs for path in root.glob(pattern)}
    files |= {
        path for suffix in ("py", "h") for path in PACKAGE.rglob(f"*.{suffix}") if path.name not in APART
    }
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def execute(notebook: Path, output: Path, params: dict, title: str) -> float:
    """Run one chapter in its folder, as JupyterLab would; returns seconds. StudyError shows a failed cell."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    begin = time.monotonic()
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        print(f"{title} ...", end="", flush=True)
    try:
        papermill.execute_notebook(
            notebook,
            output,
            params,
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar={"desc": title, "leave": False, "disable": not on_terminal},
            start_timeout=180,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns of TCP on this very machine
            execution_timeout=int(CELL_HOURS["given" if params else "quick"] * 3600),
        )
    except papermill.PapermillExecutionError as error:
        trace = error.traceback[-1] if error.traceback else ""
        raise StudyError(
            _failure(title, output, error.source, f"{trace}\n{error.ename}: {error.evalue}")
        ) from error
    except (CellTimeoutError, DeadKernelError) as error:
        reason = f"{error}\nA kernel that dies without an error was often stopped for lack of memory."
        raise StudyError(_failure(title, output, _running_cell(output), reason)) from error
    seconds = time.monotonic() - begin
    minutes = f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    print(f"{title}  done in {minutes}" if on_terminal else f" done in {minutes}", flush=True)
    return seconds


def _conclude(root: Path, folder: Path, done: dict[str, dict]) -> None:
    """Write the index page and print the tables: the shipped results, then this run's."""
    shipped = sorted((root / "artifacts" / "results").glob("*.json"))
    own = sorted(folder.rglob("*.json"))
    try:
        tables = report.result_tables([*shipped, *own], root)
    except ValueError as error:
        raise StudyError(str(error)) from error
    notes = [(stem, stem, f"{entry['seconds']:.0f} s, {entry['finished']}") for stem, entry in done.items()]
    index = folder / "index.html"
    report.write_index(index, f"The study: {folder.name}", notes, tables)
    print(f"\nThe chapters as pages: {index}")
    for name, rows in tables.items():
        print(f"\n{name}\n{report.text_table(rows)}")


def _choose(notebooks: dict[str, Path], only: list[str] | None) -> dict[str, Path]:
    if only is None:
        return notebooks
    for name in only:
        if not any(stem.startswith(name) for stem in notebooks):
            raise StudyError(f'no chapter "{name}"; there are {", ".join(notebooks)}')
    return {stem: path for stem, path in notebooks.items() if stem.startswith(tuple(only))}


def _read_record(file: Path) -> dict[str, dict]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{file}: damaged ({error}); remove it and all chapters run again") from error


def _read_notebook(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{path}: not a notebook ({error})") from error


def _running_cell(notebook: Path) -> str:
    """Source of the cell that was running when papermill last saved the notebook."""
    for cell in _read_notebook(notebook)["cells"]:
        if cell["metadata"].get("papermill", {}).get("status") in ("running", "failed"):
            return "".join(cell["source"])
    return "(unknown)"


def _failure(title: str, output: Path, source: str, reason: str) -> str:
    cell = "\n".join(f"    {line}" for line in source.splitlines())
    return f"{title} failed in this cell:\n\n{cell}\n\n{reason}\n\nThe notebook as far as it went: {output}"


def _near(name: str, known) -> str:
    close = difflib.get_close_matches(str(name), sorted(known), n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(known)) or 'none'}"


if __name__ == "__main__":
    sys.exit(main())
