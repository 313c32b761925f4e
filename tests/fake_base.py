"""A base model of a few lines, for tests of what is built on one, and a token set to train on."""

import hashlib
from pathlib import Path

import numpy as np

from medusa_core.config import ModelConfig
from medusa_core.files import write_json
from medusa_core.token_set import TokenSet


class FakeBase:
    """Hidden state = tanh(embedding of this token + half of the one before); the LM head is the embedding."""

    def __init__(self, folder: Path, vocabulary: int = 50, size: int = 16, seed: int = 0):
        self.config = ModelConfig(
            model_type="llama",
            vocab_size=vocabulary,
            hidden_size=size,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
            eos_token_ids=(49,),
        )
        self.embedding = np.random.default_rng(seed).standard_normal((vocabulary, size)).astype(np.float32)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(self.embedding.tobytes()).hexdigest()
        write_json(self.folder / "manifest.json", {"sha256": digest})  # whole, whoever else writes it
        self.passes = 0

    def __call__(self, ids, positions, mask):
        import jittor as jt

        self.passes += 1
        x = self.embedding[ids]  # (B, T, d)
        x[:, 1:] += 0.5 * self.embedding[ids[:, :-1]]
        # A query that may not see itself and its neighbour would not know them.
        assert mask[:, np.arange(ids.shape[1]), np.arange(ids.shape[1])].all()
        assert (positions == np.arange(ids.shape[1])).all()
        return jt.array(np.tanh(x))

    def states(self, ids) -> np.ndarray:
        """Hidden states (T, d) of one sequence."""
        x = self.embedding[ids]
        x[1:] += 0.5 * self.embedding[ids[:-1]]
        return np.tanh(x)

    def lm_head_rows(self, ids) -> np.ndarray:
        return self.embedding[ids]

    def embedding_rows(self, ids) -> np.ndarray:
        return self.embedding[ids]


def token_set(rows: int, seed: int = 0, vocabulary: int = 50) -> TokenSet:
    """Texts in which a token nearly decides the next, so that heads have something to learn."""
    rng = np.random.default_rng(seed)
    prompts, answers = [], []
    for _ in range(rows):
        text = [int(rng.integers(vocabulary))]
        for _ in range(int(rng.integers(12, 30))):
            follows = (text[-1] * 3 + 7) % vocabulary
            text.append(follows if rng.random() < 0.9 else int(rng.integers(vocabulary)))
        cut = int(rng.integers(1, 8))
        prompts.append(np.array(text[:cut], np.int32))
        answers.append(np.array(text[cut:], np.int32))
    split = np.array(["held-out" if row % 5 == 0 else "train" for row in range(rows)])
    return TokenSet(prompts, answers, np.zeros(rows, np.int32), split, {})
