"""Several processes: they train, distil and measure what one does, and one that fails ends all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mpi_jobs
import numpy as np
import pytest

from medusa_core import checkpoint, machine, runtime, train_loop
from medusa_core import heads as kinds

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (shutil.which("mpirun") and shutil.which("mpicc")), reason=f"no mpirun or mpicc: {machine.MPI_FIX}"
)

# Two processes may have one core here, so those that wait must give it away; root is who runs in containers.
MPIRUN = ["mpirun", "-np", "2", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"]
MPIRUN += ["--mca", "mpi_yield_when_idle", "1"]


@pytest.fixture(autouse=True)
def artifacts(monkeypatch):
    """Jobs that run here put their folder in the place of artifacts/; the others get it back."""
    monkeypatch.setattr(runtime, "ARTIFACTS", runtime.ARTIFACTS)


def run(launcher: Sequence[str], job: str, folder: Path) -> subprocess.CompletedProcess:
    """Let processes do a job of mpi_jobs.py, each with one thread: sums may depend on the number of threads."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, sys.executable, str(ROOT / "tests" / "mpi_jobs.py"), job, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


alone = partial(run, ())  # one process
together = partial(run, MPIRUN)  # two


def trained(processes, job: str, folder: Path) -> Path:
    """The folder, with what `alone` or `together` trained."""
    done = processes(job, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """Folder of what two processes trained."""
    return trained(together, "curves", tmp_path_factory.mktemp("curves"))


@pytest.fixture(scope="module")
def curves_of_one(tmp_path_factory):
    """Folder of what one process trained."""
    return trained(alone, "curves", tmp_path_factory.mktemp("curves_of_one"))


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted((folder / "heads").glob("*.safetensors")):
        found |= checkpoint.load(path)[0]
    return found


def history(folder: Path) -> dict:
    """Numbers of a training's history, clock and settings left out."""
    told = json.loads((folder / "run" / "history.json").read_text())
    return {
        key: [{name: value for name, value in entry.items() if name != "seconds"} for entry in told[key]]
        for key in ("train", "held_out")
    }


def same_bits(one: Path, two: Path) -> bool:
    first, second = tensors(one), tensors(two)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------- training


def test_two_processes_give_the_bits_of_one_that_computes_updates_in_two_parts(curves, tmp_path):
    trained(alone, "curves_in_parts", tmp_path)
    for name in ("heads alone", "joint"):
        assert same_bits(tmp_path / name, curves / name), name
        assert history(tmp_path / name)["train"] == history(curves / name)["train"], name


# Sums of float32 in another order are 1e-7 of a gradient, which some hundred updates carry on. Those of adapters begin
# at zero, and AdamW's first steps are as long whatever the size of a gradient.
@pytest.mark.parametrize("name, tolerance", [("heads alone", 1e-4), ("joint", 1e-2)])
def test_two_processes_give_the_loss_curve_of_one(curves, curves_of_one, name, tolerance):
    one, two = history(curves_of_one / name), history(curves / name)
    assert one["train"][-1]["loss"] < one["train"][0]["loss"]
    for key in ("train", "held_out"):
        losses = [[entry["loss"] for entry in own[key]] for own in (one, two)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)


def test_hidden_states_are_those_of_one_process(curves, curves_of_one):
    folders = [sorted((root / "heads alone" / "cache").glob("hidden-*")) for root in (curves_of_one, curves)]
    assert [path.name for path in folders[0]] == [path.name for path in folders[1]] and len(folders[0]) == 2
    for one, two in zip(*folders):
        assert (one / "states.bin").read_bytes() == (two / "states.bin").read_bytes()


def test_a_killed_process_ends_the_job_and_a_resumed_one_gives_the_bits_of_an_unbroken_one(curves, tmp_path):
    killed = together("stopping", tmp_path)
    assert killed.returncode != 0
    assert "exited on signal 9 (Killed)" in killed.stderr and "--resume" in killed.stderr
    left = train_loop.checkpoints(tmp_path / "run")
    assert [path.stem for path in left] == ["checkpoint-00000020", "checkpoint-00000030"]
    assert checkpoint.load(left[-1])[1]["step"] == 30
    assert not (tmp_path / "heads" / kinds.WEIGHTS_FILE).exists()
    resumed = together("resumed", tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert same_bits(tmp_path, curves / "heads alone")
    assert history(tmp_path) == history(curves / "heads alone")


def test_an_error_of_one_process_ends_the_others_that_wait_for_it(tmp_path):
    failed = together("failing", tmp_path)
    assert failed.returncode == 1
    assert "ValueError: this rank's disk is full" in failed.stderr and "rank 1 failed" in failed.stderr


# ---------------------------------------------------------------- distillation and benchmark


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """Folder of what two processes distilled and measured."""
    folder = tmp_path_factory.mktemp("evaluations")
    done = together("evaluations", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_distil_the_file_of_one(evaluations, tmp_path):
    assert len(mpi_jobs.answers(tmp_path)) >= 6
    assert (evaluations / "set.parquet").read_bytes() == (tmp_path / "set.parquet").read_bytes()
    assert [path.name for path in evaluations.glob("set*")] == ["set.parquet"]


def test_one_process_goes_on_from_what_two_had_distilled(evaluations, tmp_path):
    assert "signal 9" in together("interrupted", tmp_path).stderr
    left = tmp_path / "set.parquet.journal.jsonl.rank1"
    assert len(left.read_text().splitlines()) == 1 + 2  # a digest and two answers
    mpi_jobs.answers(tmp_path)
    assert (tmp_path / "set.parquet").read_bytes() == (evaluations / "set.parquet").read_bytes()
    assert not list(tmp_path.glob("set.journal*"))


def test_two_processes_answer_a_question_each_and_report_as_one(evaluations, tmp_path):
    one, two = mpi_jobs.speeds(tmp_path), json.loads((evaluations / "bench.json").read_text())
    for own, other in zip(one["runs"], two["runs"], strict=True):
        for mine, theirs in zip(own["samples"], other["samples"], strict=True):
            for key in ("question_id", "turn", "token_ids", "text", "steps", "tokens_per_step_histogram"):
                assert json.loads(json.dumps(mine[key])) == theirs[key]
    assert [row["identical"] for row in one["summary"]] == [row["identical"] for row in two["summary"]]
    assert two["config"] == {**json.loads(json.dumps(one["config"])), "processes": 2}
    parts = [evaluations / f"bench.partial.jsonl{end}" for end in ("", ".rank1")]
    asked = [
        [json.loads(line).get("question_id") for line in part.read_text().splitlines()] for part in parts
    ]
    assert asked == [[None, 3, 8], [None, 1]]
