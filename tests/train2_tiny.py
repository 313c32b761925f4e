"""What tests of joint training share: a token set, settings for a tiny base, and the softmax to check with."""

import numpy as np
from fake_base import token_set

from medusa_core.train2_config import Train2Config

DATA = token_set(60)


def config_of(folder, **changes) -> Train2Config:
    settings = {
        "out": str(folder / "heads"),
        "run": str(folder / "run"),
        "recipe": "ramp",
        "num_heads": 2,
        "draft_vocab_size": 32,
        "epochs": 3.0,
        "batch_positions": 64,
        "micro_batches": 2,
        "block": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 4,
        "rank": 4,
        "log_every": 4,
        "eval_every": 20,
        "eval_positions": 80,
        "checkpoint_every": 50,
    }
    return Train2Config(**{**settings, **changes})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
