"""Answers of a model as token ids, in a Parquet file with what made them; no Jittor."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medusa_core.data import DataError
from medusa_core.files import replacing

SPLITS = ("train", "held-out")


@dataclass(frozen=True)
class TokenSet:
    """Answers of a model as token ids, one row an answer, with what made them in `metadata`."""

    prompt_ids: list[np.ndarray]  # each (P,) int32, chat template included
    answer_ids: list[np.ndarray]  # each (A,) int32
    sample: np.ndarray  # (rows,) int32, which of the answers to the same prompt
    split: np.ndarray  # (rows,) str, "train" or "held-out"
    metadata: dict

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def answer_tokens(self) -> int:
        return sum(map(len, self.answer_ids))

    def warn_unless_of(self, folder: Path) -> None:
        """Say on stderr where another model than this folder's made these answers: its ids may mean other tokens."""
        if (made := self.metadata.get("model", folder.name)) != folder.name:
            print(
                f"note: these answers are of {made}, not of {folder.name}: the two must share a tokenizer",
                file=sys.stderr,
            )

    def select(self, split: str) -> TokenSet:
        """The rows of one split, in their order."""
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown: expected {' or '.join(SPLITS)}")
        return self.rows(np.flatnonzero(self.split == split))

    def thin(self, train: int, held_out: int) -> TokenSet:
        """Rows spread evenly over each split that hold about so many answer tokens; 0 keeps the whole split."""
        kept = []
        for split, positions in zip(SPLITS, (train, held_out), strict=True):
            rows = np.flatnonzero(self.split == split)
            tokens = sum(len(self.answer_ids[i]) for i in rows)
            share = min(1.0, positions / max(tokens, 1)) if positions else 1.0
            kept.append(rows[np.linspace(0, len(rows) - 1, math.ceil(share * len(rows))).astype(int)])
        return self.rows(np.concatenate(kept))

    def greedy(self) -> TokenSet:
        """The rows that were answered at temperature 0, which is how lossless decoding is measured."""
        temperatures = self.metadata.get("temperatures", [])
        if self.metadata.get("samples", 0) % max(len(temperatures), 1) or 0.0 not in temperatures:
            raise DataError("these answers do not say which of them were made at temperature 0")
        own = np.asarray(temperatures)[self.sample % len(temperatures)]
        return self.rows(np.flatnonzero(own == 0.0))

    def rows(self, rows: np.ndarray) -> TokenSet:
        """The rows of these numbers, in this order."""
        prompts, answers = [self.prompt_ids[i] for i in rows], [self.answer_ids[i] for i in rows]
        return TokenSet(prompts, answers, self.sample[rows], self.split[rows], self.metadata)


def prompt_texts(tokens: TokenSet, tokenizer) -> list[str]:
    """Decode every row's prompt, special tokens left out."""
    return tokenizer.batch_decode([ids.tolist() for ids in tokens.prompt_ids], skip_special_tokens=True)


def split_of(prompt_ids: Iterable[int], held_out: float) -> str:
    """Split that a prompt belongs to: a hash of its ids, so that every answer to it lands on the same side."""
    digest = hashlib.sha256(np.asarray(prompt_ids, "<i4").tobytes()).digest()
    return SPLITS[int.from_bytes(digest[:8], "little") < held_out * 2**64]


def write_tokens(
    path: Path | str, rows: Iterable[Mapping], metadata: dict, held_out: float = 0.05
) -> TokenSet:
    """Write answers to a Parquet file in one atomic step and return them as `read_tokens` would.

    A row is {"prompt_ids", "answer_ids", "sample"}; a pair of prompt and answer that came before is left out. Rows with
    the same "split_by" (token ids; default: the prompt) lie on the same side of the split.
    `metadata` (seed, settings; JSON values) goes into the file's schema; `held_out` is the held-out share of prompts.
    Raises DataError naming the row when it has no prompt, no answer or a negative id.
    """
    kept: dict[tuple[bytes, bytes], tuple[np.ndarray, np.ndarray, int, str]] = {}
    for index, row in enumerate(rows):
        prompt, answer = (np.asarray(row[key], np.int32) for key in ("prompt_ids", "answer_ids"))
        for key, ids in (("prompt_ids", prompt), ("answer_ids", answer)):
            if ids.ndim != 1 or not len(ids) or ids.min() < 0:
                raise DataError(
                    f"{path}: row {index}: {key} must be one or more token ids, none of them negative"
                )
        split = split_of(row.get("split_by", prompt), held_out)
        kept.setdefault((prompt.tobytes(), answer.tobytes()), (prompt, answer, int(row["sample"]), split))
    if not kept:
        raise DataError(f"{path}: no rows to write")
    prompts, answers, samples, splits = zip(*kept.values(), strict=True)
    metadata = {**metadata, "held_out": held_out}
    columns = {
        "prompt_ids": pa.array(prompts, pa.list_(pa.int32())),
        "answer_ids": pa.array(answers, pa.list_(pa.int32())),
        "sample": pa.array(samples, pa.int32()),
        "split": pa.array(splits, pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata({"medusa_core": json.dumps(metadata)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19, write_page_checksum=True)
    return _token_set(table, metadata)


def read_tokens(path: Path | str) -> TokenSet:
    """Read a token set that `write_tokens` wrote, checksums verified.

    Raises DataError naming the file and the column when it is damaged, lacks a column or has a prompt in both splits.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; `python -m medusa_core.distill --help` tells how to make one")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: damaged or not a Parquet file: {error}") from error
    kinds = {"prompt_ids": pa.list_(pa.int32()), "answer_ids": pa.list_(pa.int32()), "sample": pa.int32()}
    for name, kind in {**kinds, "split": pa.string()}.items():
        found = table.schema.field(name).type if name in table.column_names else "missing"
        if found != kind:
            raise DataError(f"{path}: column {name!r} is {found}, expected {kind}")
    raw = (table.schema.metadata or {}).get(b"medusa_core")
    if raw is None:
        raise DataError(
            f"{path}: the schema holds no 'medusa_core' metadata, so nothing says what made these tokens"
        )
    tokens = _token_set(table, json.loads(raw))
    sides = [{ids.tobytes() for ids in tokens.select(split).prompt_ids} for split in SPLITS]
    if sides[0] & sides[1]:
        raise DataError(
            f"{path}: column 'split': {len(sides[0] & sides[1])} prompts are both in train and held-out"
        )
    return tokens


def _token_set(table: pa.Table, metadata: dict) -> TokenSet:
    lists = ([row.values.to_numpy() for row in table[name]] for name in ("prompt_ids", "answer_ids"))
    split = np.array(table["split"].to_pylist(), str)
    return TokenSet(*lists, table["sample"].to_numpy(), split, metadata)
