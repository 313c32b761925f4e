"""The base model's hidden states over a token set, computed once and kept on disk: what its heads learn from.

A row is a position from a prompt's last token to its answer's last but one: `tokens[row]` is the answer token
that comes next, `states[row]` the state the base chose it from. Rows of a sequence are neighbours, so the
token k places further on is `tokens[row + k]`, and the base chose it from `states[row + k]`.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from tqdm import tqdm

from medusa_core import files, ranks, runtime
from medusa_core.losses import NO_TARGET
from medusa_core.masks import padded
from medusa_core.model_folder import MANIFEST, locked
from medusa_core.token_set import TokenSet

runtime.start()
import jittor as jt

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
COMPLETE, PROGRESS, STATES = "complete.json", "progress.json", "states.bin"
PASS_TOKENS = 2048  # tokens of one forward pass, padding included
PASSES_PER_SAVE = 50


class HiddenError(ValueError):
    """Hidden states that cannot be computed or used."""


@dataclass(frozen=True)
class Batch:
    """Blocks of successive rows, of one shape whatever the step, so that no kernel is compiled twice."""

    hidden: np.ndarray  # (N, d) float32; a jt.Var where the base learns, too
    tokens: (
        np.ndarray
    )  # (K + 1, N) int32: the next token, then the K that heads guess; NO_TARGET past the end
    teacher_hidden: np.ndarray  # (m, d) float32 states that the base chose the guessed tokens from
    teacher_row: np.ndarray  # (K, N) int32 row of teacher_hidden for each guessed token


@dataclass(frozen=True)
class HiddenStates:
    """A token set seen through the base model."""

    states: np.ndarray  # (rows, d) float16 or bfloat16, on disk
    tokens: np.ndarray  # (rows,) int32 the answer token that comes next
    end: np.ndarray  # (rows,) int64 the row after the last of this sequence
    key: str  # digest of model, tokens and dtype

    def batch(self, blocks: np.ndarray, block: int, heads: int, size: int) -> Batch:
        """Return `size` positions: the blocks numbered `blocks`, of `block` rows each, then padding.

        Padding has no targets; heads is K. Raises ValueError where there are fewer blocks.
        """
        if (highest := int(np.max(blocks, initial=-1))) >= (known := len(self.tokens) // block):
            raise ValueError(
                f"block {highest} of {block} positions was asked for, of {known}: take more answer tokens"
            )
        first = np.zeros(size // block, np.int64)
        first[: len(blocks)] = np.asarray(blocks, np.int64) * block
        row = (first[:, None] + np.arange(block)).reshape(-1)  # (N,)
        ahead = row + np.arange(heads + 1)[:, None]  # (K + 1, N)
        last = len(self.tokens) - 1
        tokens = np.where(ahead < self.end[row], self.tokens[np.minimum(ahead, last)], np.int32(NO_TARGET))
        tokens[:, len(blocks) * block :] = NO_TARGET
        span = block + heads - 1  # rows that the base chose a block's guessed tokens from
        source = np.minimum((first[:, None] + 1 + np.arange(span)).reshape(-1), last)
        within = np.arange(size) // block * span + np.arange(size) % block
        return Batch(
            hidden=np.asarray(self.states[row], np.float32),
            tokens=tokens,
            teacher_hidden=np.asarray(self.states[source], np.float32),
            teacher_row=(within + np.arange(heads)[:, None]).astype(np.int32),
        )


def most_frequent(tokens: TokenSet, size: int, always=()) -> np.ndarray:
    """Return the `size` most frequent ids of the answers, `always` among them, ascending int32 (FR-Spec).

    Equally frequent ids are taken from the lowest: byte-pair merges are numbered by frequency.
    """
    count = np.bincount(np.concatenate(tokens.answer_ids), minlength=max(size, *always, 0) + 1)
    count[list(always)] = np.iinfo(np.int64).max
    return np.sort(np.argsort(-count, kind="stable")[:size]).astype(np.int32)


def digest(base, tokens: TokenSet, dtype: str) -> str:
    """Return the name of the states of `tokens` under `base`: 16 digits from its manifest, adapters and the tokens."""
    hasher = hashlib.sha256((Path(base.folder) / MANIFEST).read_bytes() + dtype.encode())
    hasher.update((getattr(base, "adapters", None) or "").encode())
    for prompt, answer in zip(tokens.prompt_ids, tokens.answer_ids, strict=True):
        hasher.update(np.array([len(prompt), len(answer)], "<i8").tobytes())
        hasher.update(np.concatenate([prompt, answer]).astype("<i4").tobytes())
    return hasher.hexdigest()[:16]


def compute(base, tokens: TokenSet, dtype: str = "float16", root: Path | None = None) -> HiddenStates:
    """Return the base's hidden states over `tokens`, from the disk when they are complete there.

    dtype: float16 (finer) or bfloat16 (wider). They are kept in root/hidden-<digest>, `root` being
    artifacts/cache by default; an interrupted computation continues where it stopped. Several processes (ranks.py)
    share the work; the first writes, so their machines must share that folder. Raises HiddenError for
    sequences the model cannot take, states float16 cannot hold, a full disk and a damaged cache.
    """
    if dtype not in DTYPES:
        raise HiddenError(f"hidden states can be kept as {' or '.join(DTYPES)}, not as {dtype!r}")
    _check_sequences(base, tokens)
    key = digest(base, tokens, dtype)
    folder = (root or runtime.ARTIFACTS / "cache") / f"hidden-{key}"
    lengths = np.array([len(answer) for answer in tokens.answer_ids])
    ends = np.cumsum(lengths)
    shape = (int(ends[-1]), base.config.hidden_size)
    if not _complete(folder):
        with locked(folder) if ranks.first() else nullcontext():
            if not _complete(folder):  # another program may have made them meanwhile
                _fill(base, tokens, ends - lengths, folder, shape, DTYPES[dtype])
    ranks.barrier()
    if not (folder / STATES).is_file():
        raise HiddenError(f"{folder / STATES}: no such file; all machines must share {folder.parent}")
    size, expected = (folder / STATES).stat().st_size, shape[0] * shape[1] * DTYPES[dtype].itemsize
    if size != expected:
        raise HiddenError(
            f"{folder / STATES} has {size} bytes, not {expected}: delete {folder} and run again"
        )
    states = np.memmap(folder / STATES, DTYPES[dtype], "r", shape=shape)
    return HiddenStates(
        states, np.concatenate(tokens.answer_ids).astype(np.int32), np.repeat(ends, lengths), key
    )


def _complete(folder: Path) -> bool:
    return ranks.broadcast((folder / COMPLETE).is_file())


def _check_sequences(base, tokens: TokenSet) -> None:
    if not len(tokens):
        raise HiddenError("the token set has no rows")
    limit = base.config.max_position_embeddings
    for i, (prompt, answer) in enumerate(zip(tokens.prompt_ids, tokens.answer_ids, strict=True)):
        if not len(prompt) or not len(answer):
            raise HiddenError(
                f"row {i} of the token set has an empty {'answer' if len(prompt) else 'prompt'}"
            )
        if len(prompt) + len(answer) > limit:
            raise HiddenError(
                f"row {i} of the token set has {len(prompt) + len(answer)} tokens, but the model takes "
                f"{limit}: leave it out or cut it"
            )


def _fill(base, tokens: TokenSet, starts, folder: Path, shape, dtype) -> None:
    """Compute what is missing of the states' file; `progress.json` counts the passes that are on the disk.

    Every rank computes a pass of each round, and the first one writes them all.
    """
    passes = _passes([len(p) + len(a) - 1 for p, a in zip(tokens.prompt_ids, tokens.answer_ids, strict=True)])
    done = ranks.broadcast(_prepare(folder, shape[0] * shape[1] * dtype.itemsize) if ranks.first() else None)
    states = np.memmap(folder / STATES, dtype, "r+", shape=shape) if ranks.first() else None
    with tqdm(total=shape[0], desc="hidden states", unit="token", mininterval=1, **ranks.quiet()) as bar:
        bar.update(sum(len(tokens.answer_ids[i]) for rows in passes[:done] for i in rows))
        for begin in range(done, len(passes), ranks.size()):
            together = passes[begin : begin + ranks.size()]
            end = begin + len(together)
            own = [_answer_states(base, tokens, rows, dtype) for rows in ranks.share(together)]
            for rows, found in zip(together, ranks.merge(own), strict=True):
                for i, values in zip(rows, found, strict=True):
                    if ranks.first():
                        states[starts[i] : starts[i] + len(values)] = values
                    bar.update(len(values))
            saves = end // PASSES_PER_SAVE > begin // PASSES_PER_SAVE or end == len(passes)
            if saves and ranks.first():
                states.flush()
                files.write_json(folder / PROGRESS, {"passes": end})
    if ranks.first():
        files.write_json(folder / COMPLETE, {"rows": shape[0], "hidden_size": shape[1], "dtype": dtype.name})


def _prepare(folder: Path, size: int) -> int:
    """Make the states' file of `size` bytes where there is none; returns how many passes are on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path, progress = folder / STATES, folder / PROGRESS
    done = json.loads(progress.read_text())["passes"] if progress.is_file() and path.is_file() else 0
    if not done:
        _reserve(path, size)
    return done


def _answer_states(base, tokens: TokenSet, rows: np.ndarray, dtype) -> list[np.ndarray]:
    """States (A, d) that the base chose the A tokens of each of the answers `rows` from, from one pass."""
    hidden = _forward(base, [np.concatenate([tokens.prompt_ids[i], tokens.answer_ids[i]])[:-1] for i in rows])
    return [_narrowed(values[-len(tokens.answer_ids[i]) :], dtype) for i, values in zip(rows, hidden)]


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes with its disk blocks: writing to a map of a full disk kills the process."""
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HiddenError(
            f"{path}: cannot reserve {size / 1e9:.2f} GB: {error.strerror}; free some space"
        ) from error


def _passes(lengths: list[int]) -> list[np.ndarray]:
    """Group sequences of like length into passes of PASS_TOKENS tokens at most, or of one longer sequence."""
    order = np.argsort(-np.array(lengths), kind="stable")
    passes, first = [], 0
    while first < len(order):
        rows = max(1, PASS_TOKENS // lengths[order[first]])
        passes.append(order[first : first + rows])
        first += rows
    return passes


def _forward(base, sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Return each sequence's states (T, d) float32, from one padded pass."""
    width = max(map(len, sequences))
    ids = np.zeros((len(sequences), width), np.int32)
    valid = np.zeros(ids.shape, bool)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = sequence
        valid[i, : len(sequence)] = True
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), ids.shape)
    with jt.no_grad():
        hidden = base(ids, positions, padded(valid, base.config.sliding_window)).numpy()
    return [hidden[i, : len(sequence)] for i, sequence in enumerate(sequences)]


def _narrowed(values: np.ndarray, dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if not np.isfinite(narrow).all():
        what = "are not finite" if not np.isfinite(values).all() else f"overflow {dtype.name}: use bfloat16"
        raise HiddenError(f"the base model's hidden states {what}")
    return narrow
