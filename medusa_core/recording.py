"""What transformers and torch computed on a base model's weights, and how close another base comes to it.

tests/oracles/make_base_fixtures.py makes the recording and describes its two files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medusa_core import masks


@dataclass(frozen=True)
class Recording:
    """Prompts with their greedy continuations, and logits (positions, 256) of a part of the vocabulary."""

    prompts: list[dict]  # {"name", "ids", "positions", "greedy"}
    arrays: dict[str, np.ndarray]
    versions: dict[str, str]
    weights_sha256: str


def read(stem: Path) -> Recording:
    """Read `stem`.json and `stem`.npz."""
    stem = Path(stem)
    summary = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(stem.with_suffix(".npz")) as arrays:
        return Recording(summary["prompts"], dict(arrays), summary["versions"], summary["weights_sha256"])


def weights_sha256(tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of half-precision tensors in name order, whatever the layout of the file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).view(np.uint16))
    return digest.hexdigest()


def compare(base, recording: Recording) -> list[dict]:
    """One row a prompt: {"prompt", "tokens", "difference", "greedy_equal", "greedy"}.

    difference: the largest |logit - recorded logit| over the recorded positions, for 256 token ids, the five
    highest and the log-sum-exp of all. greedy_equal: the recorded continuation's tokens that the base chooses
    from the same text before them; when all are, its own greedy continuation is the recorded one.
    """
    rows = []
    for i, prompt in enumerate(recording.prompts):
        start, greedy = len(prompt["ids"]), np.array(prompt["greedy"])
        ids = np.array([*prompt["ids"], *greedy[:-1]])
        hidden = base(ids, np.arange(len(ids)), masks.causal(len(ids), window=base.config.sliding_window))[0]
        logits = base.logits(hidden[prompt["positions"]]).numpy().astype(np.float64)  # (positions, V)
        highest = recording.arrays[f"{i}/top_ids"]
        found = (
            (logits[:, recording.arrays["vocab"]], "logits"),
            (np.take_along_axis(logits, highest, 1), "top_logits"),
            (_logsumexp(logits), "logsumexp"),
        )
        chosen = base.top(hidden[start - 1 :], 1)[0][:, 0]  # (greedy tokens,)
        rows.append(
            {
                "prompt": prompt["name"],
                "tokens": start,
                "difference": max(np.abs(own - recording.arrays[f"{i}/{key}"]).max() for own, key in found),
                "greedy_equal": int((chosen == greedy).sum()),
                "greedy": len(greedy),
            }
        )
    return rows


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    highest = logits.max(axis=-1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
