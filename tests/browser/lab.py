"""JupyterLab as its users have it: a server of its own, and a chapter in a page that is driven by mouse and keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from medusa_core import runtime

START_SECONDS = 60
OPEN_MS = 60_000  # the first page of a fresh server on a busy machine
RUN_MS = 150_000  # all cells of a chapter
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"


class Lab:
    """A JupyterLab server in `folder`, which holds its settings, too; stopped with its kernels on exit."""

    def __init__(self, folder: Path):
        self.folder, self.notebooks = folder, folder / "notebooks"

    def __enter__(self) -> Lab:
        self.notebooks.mkdir()
        (self.folder / NEWS).parent.mkdir(parents=True)
        (self.folder / NEWS).write_text('{"fetchNews": "false"}')  # or it asks, over the notebook
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        environment = {**os.environ, **{name: str(self.folder / part) for name, part in places.items()}}
        self._log = (self.folder / "server.log").open("w")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
             f"--ServerApp.root_dir={self.notebooks}", "--IdentityProvider.token=", "--LabApp.news_url=null",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
            cwd=self.notebooks, env=environment, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.url = self._address()
        return self

    def __exit__(self, *_) -> None:
        self._server.send_signal(signal.SIGTERM)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
        self._log.close()

    def chapter(self, page, number: str) -> Notebook:
        """Open a copy of a chapter by its number."""
        (source,) = (runtime.ROOT / "notebooks").glob(f"{number}_*.ipynb")
        (self.notebooks / source.name).write_bytes(source.read_bytes())
        return Notebook(page, self, source.name)

    def cell(self, page, name: str, source: str) -> Notebook:
        """Open a notebook of one cell, for what a chapter takes minutes to reach."""
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(content, self.notebooks / f"{name}.ipynb")
        return Notebook(page, self, f"{name}.ipynb")

    def _address(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._server.poll() is None:
            for file in (self.folder / "runtime").glob("jpserver-*.json"):
                if text := file.read_text():  # empty for a moment
                    return json.loads(text)["url"]
            time.sleep(0.1)
        self._server.kill()
        raise RuntimeError(f"JupyterLab did not start:\n{(self.folder / 'server.log').read_text()[-2000:]}")


class Notebook:
    """A notebook that is open in a page, with its kernel idle."""

    def __init__(self, page, lab: Lab, name: str):
        self.page, self.raw, self._file = page, page.raw, lab.notebooks / name
        self.raw.goto(f"{lab.url}lab/tree/{name}?reset", timeout=OPEN_MS)
        self.raw.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=OPEN_MS)
        # Cells that are run before there is a kernel are emptied and not run.
        self.raw.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=OPEN_MS)

    def run_all(self) -> None:
        """Run, Run All Cells; then save. Fails if a cell ended in an error or did not run."""
        self.raw.get_by_role("menuitem", name="Run", exact=True).click()
        self.raw.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self._wait_until_done()
        self.save()
        self._check(nbformat.read(self._file, as_version=4))

    def save(self) -> None:
        """Save the notebook to its file."""
        with self.raw.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/" in r.url):
            self.raw.keyboard.press("Control+S")

    def output_of(self, call: str):
        """The output area of the code cell that holds `call`, scrolled into view."""
        cell = self.raw.locator(".jp-CodeCell", has=self.raw.locator(".jp-InputArea", has_text=call))
        cell.last.scroll_into_view_if_needed()
        return cell.last.locator(".jp-Cell-outputArea")

    def _wait_until_done(self) -> None:
        """Idle twice in a row with no cell waiting: between two cells the light is out for a moment."""
        waiting = self.raw.locator(".jp-InputPrompt", has_text="[*]")
        deadline, idle = time.monotonic() + RUN_MS / 1000, 0
        while idle < 2:
            assert time.monotonic() < deadline, (
                f"{self._file.name} still runs after {RUN_MS / 1000:.0f} seconds"
            )
            self.raw.wait_for_timeout(500)
            idle = idle + 1 if self._status() == "idle" and not waiting.count() else 0

    def _status(self) -> str:
        return self.raw.locator(".jp-Notebook-ExecutionIndicator").get_attribute("data-status")

    def _check(self, content) -> None:
        code = [cell for cell in content.cells if cell.cell_type == "code"]
        for place, cell in enumerate(code):
            wrong = [output for output in cell.outputs if output.output_type == "error"]
            assert not wrong, f"code cell {place}: {wrong[0].ename}: {wrong[0].evalue}"
            assert cell.execution_count == place + 1, f"code cell {place} did not run:\n{cell.source}"
