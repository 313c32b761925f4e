"""Checkpoints and finished runs: what a training goes on from, what it does not repeat, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medusa_core import checkpoint, heads, train, train_loop
from medusa_core.train_config import TrainError

ROOT = Path(__file__).parents[1]


class Killed(Exception):
    pass


@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch):
    """A run that was interrupted after 37 updates, checkpointed after every 10th."""
    update = train.update

    def interrupted(model, optimizer, batches, lr, config, step):
        if step == 38:
            raise Killed
        return update(model, optimizer, batches, lr, config, step)

    with monkeypatch.context() as patch:
        patch.setattr(train, "update", interrupted)
        with pytest.raises(Killed):
            tiny("stopped", checkpoint_every=10)
    return tmp_path / "stopped" / "run"


def test_the_last_two_checkpoints_are_kept(stopped):
    assert [path.name for path in train_loop.checkpoints(stopped)] == [
        "checkpoint-00000020.safetensors",
        "checkpoint-00000030.safetensors",
    ]


def test_a_resumed_run_gives_the_bits_and_the_history_of_an_unbroken_one(stopped, tiny):
    history, tensors = tiny("stopped", resume=True, checkpoint_every=10)
    whole_history, whole = tiny("whole", checkpoint_every=10)
    assert all(np.array_equal(tensors[name], whole[name]) for name in whole)
    for key in ("train", "held_out"):
        without = [
            [{n: x for n, x in e.items() if n != "seconds"} for e in h[key]] for h in (history, whole_history)
        ]
        assert without[0] == without[1]


def test_a_finished_run_is_read_and_not_repeated(tiny, monkeypatch):
    history, tensors = tiny("a")
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", None)
        again, same = tiny("a", resume=True)
    assert again == history and all(np.array_equal(same[name], tensors[name]) for name in tensors)


def test_a_run_that_died_before_its_heads_were_whole_is_not_taken_for_finished(tiny, tmp_path):
    _, tensors = tiny("a")
    (config,) = tmp_path.rglob("config.json")
    written = config.read_text()
    config.unlink()
    _, same = tiny("a", resume=True)
    assert config.read_text() == written and all(
        np.array_equal(same[name], tensors[name]) for name in tensors
    )


@pytest.mark.parametrize("changed", ["settings", "heads", "data"])
def test_a_finished_run_of_something_else_is_repeated(tiny, tmp_path, changed):
    history, tensors = tiny("a")
    weights, path = tmp_path / "a" / "heads" / heads.WEIGHTS_FILE, tmp_path / "a" / "run" / "history.json"
    if changed == "heads":
        checkpoint.save(weights, tensors, {})
    if changed == "data":
        path.write_text(json.dumps({**history, "data": "another"}))
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 0}))
    again, _ = tiny("a", resume=True, **({"learning_rate": 0.01} if changed == "settings" else {}))
    assert again["steps"] > 0 and json.loads(path.read_text()) == again


def test_a_damaged_history_is_refused_by_name(tiny, tmp_path):
    tiny("a")
    path = tmp_path / "a" / "run" / "history.json"
    path.write_text("{")
    with pytest.raises(TrainError, match=str(path)):
        tiny("a", resume=True)


def test_a_run_with_checkpoints_is_not_overwritten_by_a_new_one(stopped, tiny):
    with pytest.raises(TrainError, match="holds checkpoints: resume that run, delete them"):
        tiny("stopped")


def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(stopped, tiny):
    with pytest.raises(TrainError, match="learning_rate was 0.003, is 0.01"):
        tiny("stopped", resume=True, learning_rate=0.01)


def test_a_checkpoint_from_before_a_setting_existed_is_resumed(stopped, tiny):
    last = train_loop.checkpoints(stopped)[-1]
    tensors, header = checkpoint.load(last)
    del header["config"]["feature_weight"]
    checkpoint.save(last, tensors, header)
    history, _ = tiny("stopped", resume=True, checkpoint_every=10)
    assert history["train"][-1]["step"] == history["steps"]


def test_what_the_weights_do_not_depend_on_may_change_when_a_run_is_resumed(stopped, tiny, tmp_path):
    stopped.parent.rename(tmp_path / "moved")
    changes = {"eval_every": 5, "eval_positions": 32, "log_every": 1, "checkpoint_every": 4}
    assert {"out", "run", *changes} == set(train_loop.FREE)
    history, tensors = tiny("moved", resume=True, **changes)
    assert [entry["step"] for entry in history["train"][-2:]] == [history["steps"] - 1, history["steps"]]
    _, whole = tiny("whole")
    assert all(np.array_equal(tensors[name], whole[name]) for name in whole)


def test_a_resumed_run_counts_its_seconds_on_from_those_before_it_stopped(stopped, tiny):
    last = train_loop.checkpoints(stopped)[-1]
    tensors, header = checkpoint.load(last)
    logged = len(header["history"]["train"])
    header["history"]["train"][-1]["seconds"] = 1000.0
    checkpoint.save(last, tensors, header)
    history, _ = tiny("stopped", resume=True, checkpoint_every=10)
    later = [entry["seconds"] for entry in history["train"][logged:]]
    assert later and min(later) > 1000.0


def test_a_damaged_checkpoint_is_refused_by_name(stopped, tiny):
    last = train_loop.checkpoints(stopped)[-1]
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=str(last)):
        tiny("stopped", resume=True)


def test_killed_and_resumed_training_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    """SIGKILL at an arbitrary moment of training, in a process of its own."""

    def command(name, *flags):
        return [sys.executable, str(ROOT / "tests" / "train_tiny.py"), str(tmp_path / name), *flags]

    # One thread: work this small only waits for a second one on a busy machine.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    broken = subprocess.Popen(command("broken"), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while len(train_loop.checkpoints(tmp_path / "broken" / "run")) < 2 and time.monotonic() < deadline:
        assert broken.poll() is None, "training ended before it could be killed"
        time.sleep(0.005)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert not (tmp_path / "broken" / "heads").exists()
    for name, flags in (("broken", ["--resume"]), ("whole", [])):
        subprocess.run(command(name, *flags), env=environment, check=True, capture_output=True, timeout=900)
    files = [tmp_path / name / "heads" / heads.WEIGHTS_FILE for name in ("broken", "whole")]
    one, two = (checkpoint.load(path)[0] for path in files)
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
