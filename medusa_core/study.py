"""Runs the chapters in order, exports them as pages and prints the result tables: `make study`."""

import argparse
import json
import sys
import time
from datetime import datetime
from pathlib import Path

from medusa_core import report, runtime, study_key
from medusa_core.files import write_json
from medusa_core.study_parameters import RUNS, StudyError, assign, read_notebook, run_name
from medusa_core.tables import text_table

CELL_HOURS = {"quick": 0.5, "given": 24}  # a full training is one cell
PARAMETER_FILE = "parameter_file"  # beside the chapters of study.json: whose run it is


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
    chosen = choose(notebooks, only)
    folder = root / RUNS / run_name(params)
    given = assign(params, notebooks) if params else {}
    record_file = folder / "study.json"
    record = _begin(record_file, root, params)
    for number, (stem, notebook) in enumerate(chosen.items(), 1):
        title, values = f"[{number}/{len(chosen)}] {stem}", given.get(stem, {})
        page = folder / f"{stem}.html"
        # Before the chapter runs: what is edited meanwhile has not run.
        code = study_key.code_key(notebook, values)
        if not force and page.exists() and _done(root, notebook, values, code, record.get(stem)):
            print(f"{title}  unchanged since {record[stem]['finished']}")
            continue
        page.unlink(missing_ok=True)
        before = study_key.outputs(root, notebook, values)
        seconds = execute(notebook, folder / notebook.name, values, title)
        report.export(folder / notebook.name, page)
        after = study_key.outputs(root, notebook, values)
        wrote = [name for name, changed in after.items() if before.get(name) != changed]
        _forget_overwritten(record, [each for each in notebooks if each > stem], wrote)
        record[stem] = {
            "key": _key(root, notebook, values, code, wrote),
            "seconds": round(seconds, 1),
            "finished": datetime.now().isoformat(" ", "minutes"),
            "wrote": wrote,
        }
        write_json(record_file, record)
    _conclude(root, folder, {stem: record[stem] for stem in notebooks if stem in record})


def chapters(root: Path) -> dict[str, Path]:
    """The notebooks of the study by stem, in order; StudyError when there are none."""
    found = {path.stem: path for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise StudyError(f"no chapters: {root / 'notebooks'} holds no NN_name.ipynb")
    return found


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
    """Write the index page with all tables, and print this run's: the shipped ones where it made none."""
    files = sorted((root / "artifacts" / "results").glob("*.json")), sorted(folder.rglob("*.json"))
    try:
        shipped, own = (report.result_tables(each, root) for each in files)
    except ValueError as error:
        raise StudyError(str(error)) from error
    notes = [(stem, stem, f"{entry['seconds']:.0f} s, {entry['finished']}") for stem, entry in done.items()]
    index = folder / "index.html"
    report.write_index(index, f"The study: {folder.name}", notes, {**shipped, **own})
    print(f"\nThe chapters as pages, with all result tables: {index}")
    for name, rows in (own or shipped).items():
        print(f"\n{name}\n{text_table(rows)}")


def choose(notebooks: dict[str, Path], only: list[str] | None) -> dict[str, Path]:
    """Those of the chapters that are named, by number or stem, all for None; StudyError for a name that is none."""
    if only is None:
        return notebooks
    for name in only:
        if not any(_named(stem, name) for stem in notebooks):
            raise StudyError(f'no chapter "{name}"; there are {", ".join(notebooks)}')
    return {stem: path for stem, path in notebooks.items() if any(_named(stem, name) for name in only)}


def _named(stem: str, name: str) -> bool:
    return name in (stem, stem[:2])


def _begin(file: Path, root: Path, params: Path | None) -> dict:
    """Read a run's record, or begin one; StudyError where it is of another parameter file of the same name."""
    record = _read_record(file)
    path = params.resolve() if params else None
    name = None if path is None else str(path.relative_to(root) if path.is_relative_to(root) else path)
    if record.setdefault(PARAMETER_FILE, name) != name:
        raise StudyError(
            f"{file.parent} was begun with {record[PARAMETER_FILE]}, and {params} is another file of this name: "
            "rename it, or remove the folder"
        )
    write_json(file, record)
    return record


def _done(root: Path, notebook: Path, values: dict, code: str, entry: dict | None) -> bool:
    """Whether a chapter ran as it is now, and what it wrote is still there."""
    if entry is None or not all((root / name).exists() for name in entry.get("wrote", [])):
        return False
    return entry["key"] == _key(root, notebook, values, code, entry.get("wrote", []))


def _forget_overwritten(record: dict, later: list[str], wrote: list[str]) -> None:
    """Let those of the `later` chapters run again that had left a file which an earlier one has just replaced."""
    for stem in later:
        if set(record.get(stem, {}).get("wrote", [])) & set(wrote):
            del record[stem]


def _key(root: Path, notebook: Path, values: dict, code: str, wrote: list[str]) -> str:
    """The key of a chapter with its inputs as they are now: it may have made them. What it wrote is none of them."""
    files = study_key.inputs(root, notebook, values) - {root / name for name in wrote}
    return study_key.full_key(root, code, files)


def _read_record(file: Path) -> dict[str, dict]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudyError(f"{file}: damaged ({error}); remove it and all chapters run again") from error


def _running_cell(notebook: Path) -> str:
    """Source of the cell that was running when papermill last saved the notebook."""
    for cell in read_notebook(notebook)["cells"]:
        if cell["metadata"].get("papermill", {}).get("status") in ("running", "failed"):
            return "".join(cell["source"])
    return "(unknown)"


def _failure(title: str, output: Path, source: str, reason: str) -> str:
    cell = "\n".join(f"    {line}" for line in source.splitlines())
    return f"{title} failed in this cell:\n\n{cell}\n\n{reason}\n\nThe notebook as far as it went: {output}"


if __name__ == "__main__":
    sys.exit(main())
