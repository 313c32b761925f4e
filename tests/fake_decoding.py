"""A base model, a drafter and a tokenizer in NumPy that keep the contract of the real ones."""

from types import SimpleNamespace

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from medusa_core.cache import Cache
from medusa_core.config import ModelConfig

SPECIAL = ["<end>", "<user>", "<assistant>", "<unknown>"]
VOCABULARY = SPECIAL + [chr(code) for code in range(32, 127)]
END = 0


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, and a chat template of role marks."""
    core = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<unknown>")
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    marks = {"eos_token": "<end>", "additional_special_tokens": SPECIAL[1:3], "unk_token": "<unknown>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **marks)
    made.chat_template = (
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return made


class Array(np.ndarray):
    """A NumPy array that answers to a Var's `numpy()`."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


class FakeCache(Cache):
    """Keeps tokens and positions instead of keys and values."""

    def __init__(self, slots: int):
        super().__init__(1, slots)
        self.content = np.zeros((slots, 2), int)  # token, position

    def _move(self, moves: np.ndarray) -> None:
        for _, source, target in moves:
            self.content[target] = self.content[source]


class FakeBase:
    """Hidden state: embeddings of visible tokens, fading with distance, so mask, position and cache count."""

    def __init__(self, context: int = 256, size: int = 24, end_bias: float = -30.0):
        self.config = ModelConfig(
            model_type="llama",
            vocab_size=len(VOCABULARY),
            hidden_size=size,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=size,
            max_position_embeddings=context,
            eos_token_ids=(END,),
        )
        rng = np.random.default_rng(1)
        self.embedding = rng.standard_normal((len(VOCABULARY), size))
        self.head = rng.standard_normal((len(VOCABULARY), size))
        self.bias = np.zeros(len(VOCABULARY))
        self.bias[: len(SPECIAL)] = -30.0
        self.bias[END] = end_bias
        self.forwards = 0

    def new_cache(self, batch: int = 1, length: int | None = None) -> FakeCache:
        return FakeCache(length or self.config.max_position_embeddings)

    def __call__(self, ids, positions, mask, cache=None, rows=None):
        self.forwards += 1
        ids, positions = np.ravel(ids), np.ravel(positions)  # one sequence
        new = np.stack([ids, positions], axis=1)
        seen = new
        if cache is not None:
            cache.reserve(len(ids), np.zeros(1, int))
            length = int(cache.length[0])
            cache.content[length : length + len(ids)] = new
            seen = cache.content[: length + len(ids)]
        mask = mask.reshape(len(ids), len(seen))
        fade = np.where(mask, 0.5 ** (positions[:, None] - seen[:, 1]), 0.0)  # (T, S)
        return (fade @ self.embedding[seen[:, 0]])[None].view(Array)  # (1, T, d)

    def logits(self, hidden):
        return (hidden @ self.head.T + self.bias).view(Array)

    def top(self, hidden, k: int):
        logits = self.logits(hidden).numpy()
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        return ids, np.take_along_axis(logits, ids, axis=1)


class FakeDrafter:
    """Goes on with the base itself from the last hidden state; rank 0 is right, `skill` of the time."""

    INDEPENDENT = False

    def __init__(self, base: FakeBase, heads: int = 3, skill: float = 0.7):
        self.base, self.skill, self.config = base, skill, SimpleNamespace(num_heads=heads)

    def draft(self, hidden, token: int, tree):
        tokens = np.full(tree.size, token)
        states = {0: 0.5 * np.asarray(hidden) + self.base.embedding[token]}
        for node in range(1, tree.size):
            above = states[int(tree.parent[node])]
            order = np.argsort(-(self.base.head @ above + self.base.bias), kind="stable")
            wrong = np.random.default_rng(int(token) * 7 + node).random() > self.skill
            tokens[node] = order[int(tree.rank[node]) + wrong]
            states[node] = 0.5 * above + self.base.embedding[tokens[node]]
        return tokens, np.zeros(tree.size, np.float32)
