"""Threads: an exit waits for those that still run, and not for ever."""

import os
import threading
from pathlib import Path

import pytest

from medusa_core import threads


@pytest.fixture
def sleeper():
    """A thread that waits for a pipe."""
    end, start = os.pipe()
    thread = threading.Thread(target=os.read, args=(end, 1))
    thread.start()
    yield thread
    os.close(start)
    thread.join()
    os.close(end)


def test_a_process_does_not_end_before_its_threads_listen(sleeper, monkeypatch):
    states = iter(["R", "R", "R"])  # of whichever thread is asked for, then all of them sleep
    monkeypatch.setattr(threads, "state", lambda _: next(states, "S"))
    threads.rest()
    assert next(states, "none left") == "none left"


def test_a_thread_that_never_sleeps_does_not_keep_a_process(sleeper, monkeypatch):
    asked = []
    monkeypatch.setattr(threads, "state", lambda task: asked.append(task.name) or "R")
    threads.rest(seconds=0.01)
    assert str(sleeper.native_id) in asked


def test_states_are_the_kernels():
    tasks = Path("/proc/self/task")
    assert threads.state(tasks / str(threading.get_native_id())) == "R"
    assert threads.state(tasks / "0") == ""
