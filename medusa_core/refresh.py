"""Runs chapters again where they lie and saves them with the outputs that readers see first: `make notebooks`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from medusa_core import commands, pictures, runtime, study
from medusa_core.files import replacing
from medusa_core.report import WIDGET_VIEW

CELL_SECONDS = 1800
CONTROLS = "(interactive controls: run this cell in JupyterLab to use them)"


class RefreshError(ValueError):
    """A chapter that failed, or that wrote what must not be saved; its file is as it was."""


def main(arguments: list[str] | None = None, root: Path = runtime.ROOT) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m medusa_core.refresh", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="chapters to run, e.g. 01 04 (default: all)"
    )
    names = parser.parse_args(arguments).chapters or None

    def work() -> None:
        for notebook in study.choose(study.chapters(root), names).values():
            print(f"{notebook.name} ...", end="", flush=True)
            begin = time.monotonic()
            try:
                refresh(notebook)
            except RefreshError:
                print(" not saved", flush=True)
                raise
            print(f" saved after {time.monotonic() - begin:.0f} s", flush=True)

    return commands.finish(work, "chapters that were saved stay, the one that ran is as it was")


def refresh(notebook: Path) -> None:
    """Run a notebook in its folder and replace it by itself with fresh outputs.

    Raises RefreshError when a cell fails, or writes to standard error (warnings, progress, compilation).
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    content = nbformat.read(notebook, as_version=4)
    known = pictures.saved(content)
    client = NotebookClient(
        content,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns of TCP on this very machine
    )
    try:
        # What is saved is checked on all processors, so it is added up in the order they share.
        client.execute(env={**os.environ, "TQDM_DISABLE": "1", "MEDUSA_AMX": "0"})
    except (CellControlSignal, DeadKernelError) as error:
        raise RefreshError(f"{notebook.name}: {error}") from error
    clean(content, notebook.name)
    try:
        pictures.draw(content, known)
    except pictures.NoPictures as error:
        print(f" without pictures of its figures: {error}", file=sys.stderr)
    nbformat.validate(content)
    with replacing(notebook) as temporary:
        nbformat.write(content, temporary)


def clean(content, name: str) -> None:
    """Take out what does not belong into a saved notebook; raises RefreshError for text on standard error."""
    content.metadata = {
        key: value for key, value in content.metadata.items() if key not in ("widgets", "papermill")
    }
    content.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content.metadata["language_info"] = {"name": "python"}  # the version would change with every machine
    for number, cell in enumerate(content.cells):
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RefreshError(
                    f"{name}: cell {number} wrote to standard error:\n{output['text'].strip()}\n"
                    "If it only downloaded or compiled something, run again."
                )
            if WIDGET_VIEW in output.get("data", {}):
                output["data"] = {"text/plain": CONTROLS}


if __name__ == "__main__":
    sys.exit(main())
