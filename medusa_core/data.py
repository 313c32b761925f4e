"""Reading conversations, questions and prompts; no Jittor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

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
