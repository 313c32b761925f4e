"""Token sets from conversations that were held elsewhere, such as ShareGPT: their replies as they stand.

Heads guess best what they learned from the model's own text (`distill`, chapter 12); this is the data to hold that
against, and what Medusa-1 was first trained on.

python -m medusa_core.replies --conversations sharegpt.json --out FILE.parquet --exclude artifacts/data/questions.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medusa_core import commands, convert, ranks, text
from medusa_core.config import ModelConfig
from medusa_core.data import DataError, read_questions, read_sharegpt
from medusa_core.model_folder import read_json, sha256
from medusa_core.overlap import overlaps
from medusa_core.token_set import TokenSet, write_tokens

NAMED = 3  # conversations left out that are named, with the reason


def replies(
    tokenizer, conversations: Iterable[Mapping], context: int, template: str = "model"
) -> tuple[list[dict], list[str]]:
    """The rows of a token set (token_set.write_tokens), one a reply, and which conversations were left out, and why.

    conversations: {"id", "messages"} as `read_sharegpt` gives them. A conversation begins with its first user turn, or
    the system's, and ends with its last reply; what lies beyond `context` tokens is cut off. All replies of a
    conversation belong to one split.
    """
    rows, left_out = [], []
    for each in conversations:
        try:
            ids, labels = text.label_mask(tokenizer, _whole_turns(each["messages"]), template)
        except text.TextError as error:
            left_out.append(f"{each['id']}: {error}")
            continue
        found = list(_rows(ids[:context], labels[:context]))
        if not found:
            left_out.append(f"{each['id']}: its first question alone fills the model's {context} tokens")
        rows += found
    return rows, left_out


def _whole_turns(messages: list[dict]) -> list[dict]:
    """The messages without replies that answer nothing and questions that nobody answered."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "assistant"), len(messages))
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[first : last + 1]


def _rows(ids: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    """A row for each run of learnt tokens; ids, labels (T,) as of `label_mask`."""
    learnt = np.concatenate([[0], labels != text.IGNORED, [0]])
    edges = np.flatnonzero(np.diff(learnt)).reshape(-1, 2)  # begin and end of each reply
    for begin, end in edges.tolist():
        yield {
            "prompt_ids": ids[:begin],
            "answer_ids": ids[begin:end],
            "sample": 0,
            "split_by": ids[: edges[0, 0]],
        }


def write_replies(
    folder: Path, conversations: Path, out: Path, template: str = "model", exclude=()
) -> tuple[TokenSet, list[str]]:
    """Write the replies of a ShareGPT file to `out` (Parquet) as the model in `folder` reads them.

    exclude: evaluation questions; conversations in which one is asked are left out. Returns the token set and
    what was left out, and why. Raises DataError where no reply is left.
    """
    tokenizer = text.load_tokenizer(folder)
    config = ModelConfig.from_hf(read_json(folder / "config.json"), where=str(folder / "config.json"))
    read = read_sharegpt(conversations)
    asked = ("\n".join(m["content"] for m in each["messages"] if m["role"] == "user") for each in read)
    repeats = {found.prompt: found.question_id for found in overlaps(asked, exclude)}
    kept = (each for number, each in enumerate(tqdm(read, unit="conversation")) if number not in repeats)
    rows, left_out = replies(tokenizer, kept, config.max_position_embeddings, template)
    left_out += [f"{read[number]['id']}: asks evaluation question {name}" for number, name in repeats.items()]
    if not rows:
        raise DataError(f"{conversations}: no reply can be used. {_named(left_out)}")
    metadata = {"conversations": conversations.name, "sha256": sha256(conversations), "template": template}
    return write_tokens(out, rows, {**metadata, "model": folder.name, "left_out": len(left_out)}), left_out


def _named(left_out: list[str]) -> str:
    return f"Conversations left out: {len(left_out)}; the first: {'; '.join(left_out[:NAMED])}"


def main(arguments: list[str] | None = None) -> int:
    cli = argparse.ArgumentParser(prog="python -m medusa_core.replies", description=__doc__.split("\n")[0])
    cli.add_argument("--conversations", type=Path, required=True, help="ShareGPT file, JSON")
    cli.add_argument(
        "--model", default="embedded", help='"embedded" or a model folder (default: %(default)s)'
    )
    cli.add_argument("--template", default="model", choices=text.TEMPLATES,
                     help="chat template (default: the model's own)")  # fmt: skip
    cli.add_argument("--exclude", type=Path, help="questions file whose prompts must not be trained on")
    cli.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    options = cli.parse_args(arguments)
    if options.out.exists():
        cli.error(f"{options.out} already exists: delete it first or choose another --out")

    def work() -> None:
        exclude = list(read_questions(options.exclude)) if options.exclude else ()
        folder = convert.resolve(options.model)
        tokens, left_out = write_replies(
            folder, options.conversations, options.out, options.template, exclude
        )
        print(f"{options.out}: {len(tokens)} replies, {tokens.answer_tokens:,} tokens to learn from")
        if left_out:
            print(_named(left_out))

    return commands.finish(work)


if __name__ == "__main__":
    ranks.alone(main)
