"""The other end of a peer's process: starts it, asks it line by line, and says why when it has died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL = 8  # lines of a dead process's output that its error shows


class PeerError(RuntimeError):
    """A peer whose process died or answered nonsense."""


class PeerProcess:
    """A running worker (see peer_worker.py) called `name`; `hello` is its first line."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]):
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent only, which then closes all
        )
        self.hello = self._read()

    def ask(self, **request) -> dict:
        """Send one line and wait for its answer; raises PeerError naming the peer when there is none."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return self._read()

    def cpu_seconds(self) -> float:
        """Processor time that the process has used so far, all its threads together."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process, at once if it is busy."""
        self._process.terminate()
        self._process.communicate()
        self._log.close()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        try:
            return json.loads(line)
        except ValueError:
            raise PeerError(f"{self.name}: its process said {line[:80]!r}, expected a line of JSON") from None

    def _died(self) -> PeerError:
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-TAIL:]
        return PeerError(
            "\n  ".join([f"{self.name}: its process ended with status {status}; it wrote last:", *lines])
        )


def environment(threads: int, root: Path) -> dict[str, str]:
    """Environment of a worker: this package importable by any interpreter, `threads` threads, no model hub.

    How threads wait stays as each library has it: OMP_WAIT_POLICY=passive would slow the generations themselves.
    OpenMP's threads spin for milliseconds after a generation and sleep then, so a pause between generations is enough.
    """
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own}


def command(name: str, ours: bool, python: str) -> list[str]:
    """Command line of the worker `name`: of this interpreter for ours, of `python` for others."""
    return [sys.executable if ours else python, "-m", "medusa_core.peer_worker", name]
