"""Train tiny heads in a process of its own: python tests/train_tiny.py FOLDER [--resume]."""

import sys
from pathlib import Path

from fake_base import FakeBase, token_set

from medusa_core import train
from medusa_core.train_config import TrainConfig


def config(folder: Path, **changes) -> TrainConfig:
    settings = {
        "out": str(folder / "heads"),
        "run": str(folder / "run"),
        "num_heads": 2,
        "draft_vocab_size": 32,
        "epochs": 12.0,
        "batch_positions": 32,
        "block": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 20,
        "weight_decay": 0.01,
        "teacher_weight": 0.25,
        "log_every": 7,
        "eval_every": 100,
        "eval_positions": 64,
        "checkpoint_every": 50,
    }
    return TrainConfig(**{**settings, **changes})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train.runtime.ARTIFACTS = folder
    train.train(config(folder), FakeBase(folder / "base"), token_set(60), resume="--resume" in sys.argv)
