"""Threads of this process as the kernel sees them: an exit waits until all of them sleep."""

from __future__ import annotations

import threading
import time
from pathlib import Path


def rest(seconds: float = 5.0) -> None:
    """Wait until every other thread of this process sleeps, for so many seconds at most.

    At exit Jittor tells its compiler threads to end and joins them. One that a busy machine has not let run yet is not
    listening (parallel_compiler.cc:40), so that a short program would wait for it for ever.
    """
    deadline, own = time.monotonic() + seconds, str(threading.get_native_id())
    while time.monotonic() < deadline:
        states = [state(task) for task in Path("/proc/self/task").iterdir() if task.name != own]
        if "R" not in states:
            return
        time.sleep(0.01)


def state(task: Path) -> str:
    """A thread's state, R for one that runs or could; empty for one that has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
