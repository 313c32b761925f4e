"""Threads: an exit waits for those that still run, and not for ever."""

import hashlib
import threading
import time
from pathlib import Path

import pytest

from medusa_core import threads


@pytest.fixture
def busy():
    """A thread that computes for a while without the interpreter's lock."""
    thread = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"x", b"y", 600_000))
    thread.start()
    while threads.state(Path(f"/proc/self/task/{thread.native_id}")) != "R":
        time.sleep(0.001)
    yield thread
    thread.join()


def test_a_process_does_not_end_before_its_threads_listen(busy):
    threads.rest()
    assert not busy.is_alive()


def test_a_thread_that_never_sleeps_does_not_keep_a_process(busy):
    threads.rest(seconds=0.01)
    assert busy.is_alive()
