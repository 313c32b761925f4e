"""Reading conversations, questions and distilled token sets; no Jittor."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medusa_core.files import replacing

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",  # published ShareGPT dumps also hold replies of these assistants
    "bing": "assistant",
    "bard": "assistant",
}
SPLITS = ("train", "held-out")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can escape it, UTF-8 cannot hold it


class DataError(ValueError):
    """A data file that cannot be used; the message names the file and the line, item, key or column."""


# ---------------------------------------------------------------- conversations and questions


def read_sharegpt(path: Path | str):
    """Read a ShareGPT file into a `datasets.Dataset` of {"id": str, "messages": [{"role", "content"}]}.

    The file is a JSON list of {"conversations": [{"from", "value"}]}; roles become system, user and assistant.
    Items without any message, which published dumps contain, stay as empty lists.
    Raises DataError naming the file and the item (counted from 0), or the line when the JSON is malformed.
    """
    items = _load_json(Path(path))
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a JSON list of conversations, found {_kind(items)}")
    return _dataset(
        [_conversation(item, f"{path}: item {index}", index) for index, item in enumerate(items)], path
    )


def read_questions(path: Path | str):
    """Read evaluation questions into a `datasets.Dataset` of {"question_id", "category", "turns": [str]}.

    Takes MT-bench JSON lines, or a ShareGPT file (recognised by its leading "["), whose human turns become the turns,
    numbered by position from 1 under the category "sharegpt"; conversations without a human turn are left out.
    Raises DataError naming file, line and key; an empty turn is an error.
    """
    path = Path(path)
    if _is_list(path):
        rows = []
        for index, row in enumerate(read_sharegpt(path)):
            turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
            if turns:
                _check_turns(turns, f"{path}: item {index}")
                rows.append({"question_id": index + 1, "category": "sharegpt", "turns": turns})
        return _dataset(rows, path)
    rows, seen = [], {}
    for where, row in _json_lines(path):
        for key in ("question_id", "category", "turns"):
            if key not in row:
                raise DataError(f"{where}: key {key!r} is missing")
        name = row["question_id"]
        if isinstance(name, int) and not -(2**63) <= name < 2**63:
            raise DataError(f"{where}: question_id {name} does not fit 64 bits")
        if type(name) not in (int, str) or (rows and type(name) is not type(rows[0]["question_id"])):
            raise DataError(
                f"{where}: question_id {name!r} must be an integer or a string, the same kind on every line"
            )
        if name in seen:
            raise DataError(f"{where}: question_id {name!r} was already used at {seen[name]}")
        if not isinstance(row["category"], str):
            raise DataError(f"{where}: category must be a string, found {_kind(row['category'])}")
        _check_turns(row["turns"], where)
        seen[name] = where
        rows.append({key: row[key] for key in ("question_id", "category", "turns")})
    return _dataset(rows, path)


def read_prompts(path: Path | str) -> list[str]:
    """Read JSON lines of {"prompt": str}, or the first human turns of a ShareGPT file (recognised by its leading "[").

    Raises DataError naming file and line or item.
    """
    if _is_list(Path(path)):
        return [question["turns"][0] for question in read_questions(path)]
    prompts = []
    for where, row in _json_lines(Path(path)):
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{where}: key 'prompt' must be a string that is not empty")
        prompts.append(prompt)
    return prompts


def _conversation(item: object, where: str, index: int) -> dict:
    turns = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(turns, list):
        raise DataError(
            f'{where}: expected {{"conversations": [...]}}, found {_kind(item)} without such a list'
        )
    messages = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f"{where}, message {number}: key 'value' must be a string")
        if turn.get("from") not in ROLES:
            raise DataError(
                f"{where}, message {number}: 'from' is {turn.get('from')!r}, not one of {', '.join(ROLES)}"
            )
        _check_characters(turn["value"], f"{where}, message {number}")
        messages.append({"role": ROLES[turn["from"]], "content": turn["value"]})
    return {"id": str(item.get("id", index)), "messages": messages}


def _check_turns(turns: object, where: str) -> None:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise DataError(f"{where}: key 'turns' must be a list of one or more strings")
    for number, turn in enumerate(turns, 1):
        if not turn.strip():
            raise DataError(f"{where}: turn {number} is empty; a prompt needs at least one character")


def _dataset(rows: list[dict], path: Path | str):
    from datasets import Dataset  # takes over a second to import, and token sets do not need it

    if not rows:
        raise DataError(f"{path}: no conversation or question found")
    return Dataset.from_list(rows)


def _json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(_text(path).split("\n"), 1):  # not splitlines: U+2028 is legal in JSON
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object, found {_kind(row)}")
        _check_characters(row, where)
        yield where, row


def _check_characters(value: object, where: str) -> None:
    if HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
        raise DataError(f"{where}: holds half a character (\\ud800 to \\udfff without its other half)")


def _load_json(path: Path) -> object:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}"
        ) from None


def _is_list(path: Path) -> bool:
    return _text(path).lstrip().startswith("[")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); expected a JSON file") from None
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path}: no such file") from None


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )


# ---------------------------------------------------------------- distilled tokens


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
