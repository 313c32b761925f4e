"""What tests/test_mpi.py lets several processes do: mpirun -np N python tests/mpi_jobs.py JOB FOLDER"""

import os
import signal
import sys
from pathlib import Path

import train_tiny
from fake_base import FakeBase, token_set
from tiny_model import folder_of

from medusa_core import llama, ranks, train, train2
from medusa_core.train2_config import Train2Config

EPOCHS = {"epochs": 4.0, "checkpoint_every": 10}


def heads(folder: Path, resume: bool = False, **changes) -> dict:
    """Train heads alone; the base's hidden states go into the folder, too."""
    train.runtime.ARTIFACTS = folder
    config = train_tiny.config(folder, **{**EPOCHS, **changes})
    return train.train(config, FakeBase(folder / "base"), token_set(60), resume)


def joint(folder: Path, **changes) -> dict:
    """Train heads and adapters together."""
    settings = {
        "recipe": "ramp",
        "num_heads": 2,
        "draft_vocab_size": 32,
        "epochs": 4.0,
        "batch_positions": 64,
    }
    settings |= {"micro_batches": 1, "block": 16, "learning_rate": 3e-3, "warmup_steps": 4, "rank": 4}
    settings |= {"log_every": 4, "eval_every": 10, "eval_positions": 80}
    config = Train2Config(out=str(folder / "heads"), run=str(folder / "run"), **{**settings, **changes})
    base = llama.load(folder_of(folder / f"base{ranks.rank()}"), "float32", "plain")
    return train2.train_jointly(config, base, token_set(60))


def curves(folder: Path) -> None:
    """Two trainings, one after the other."""
    heads(folder / "heads alone")
    joint(folder / "joint")


def stopping(folder: Path) -> None:
    """Rank 1 is killed in its 38th update."""
    _at_update(38, lambda: os.kill(os.getpid(), signal.SIGKILL))
    heads(folder)


def failing(folder: Path) -> None:
    """Rank 1 meets an error in its 3rd update, while the other waits for its gradients."""

    def fail():
        raise ValueError("this rank's disk is full")

    _at_update(3, fail)
    heads(folder)


def resumed(folder: Path) -> None:
    """Go on from the last checkpoint."""
    heads(folder, resume=True)


def _at_update(number: int, happens) -> None:
    """Let something happen on rank 1 when it begins update `number`."""
    update = train.update

    def patched(model, optimizer, batches, lr, config, step):
        if step == number and ranks.rank() == 1:
            happens()
        return update(model, optimizer, batches, lr, config, step)

    train.update = patched


if __name__ == "__main__":
    job, place = globals()[sys.argv[1]], Path(sys.argv[2])
    ranks.run(lambda: job(place))
