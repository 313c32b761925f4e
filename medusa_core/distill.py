"""Self-distillation data: the base model answers prompts, given ones and ones it writes itself.

python -m medusa_core.distill --self-prompts 5000 --prompts artifacts/data/prompts.jsonl --out FILE.parquet
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from medusa_core import commands, ranks
from medusa_core.batch import Request, Stretch, generate
from medusa_core.data import DataError, read_prompts, read_questions
from medusa_core.files import append_line, finished_lines
from medusa_core.model_folder import MANIFEST, sha256
from medusa_core.overlap import overlaps, unique_prompts
from medusa_core.text import chat_ids, load_tokenizer
from medusa_core.token_set import TokenSet, write_tokens

PROMPT_TOKENS = 128  # longest prompt the model may write itself
MARK = "\u2063user\u2063"  # stands for the user's text while a chat template is taken apart


@dataclass(frozen=True)
class Settings:
    """What a distilled token set depends on, beside the model and the prompts."""

    self_prompts: int = 0
    samples: int = 2  # answers to every given prompt
    temperatures: tuple[float, ...] = (0.0, 0.7)  # taken in turn, answer by answer
    prompt_temperature: float = 1.0
    top_k: int = 50
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self):
        for name, least in (("self_prompts", 0), ("samples", 1), ("top_k", 1), ("max_new_tokens", 1)):
            if (value := getattr(self, name)) < least:
                raise DataError(f"{name} is {value}; at least {least} was expected")
        if not self.temperatures or min(*self.temperatures, self.prompt_temperature) < 0:
            raise DataError(f"temperatures are {self.temperatures}; one or more from 0 up were expected")
        if self.samples % len(self.temperatures):  # an answer's number could not tell its temperature
            raise DataError(
                f"samples is {self.samples}; a multiple of {len(self.temperatures)} was expected, one for each of the "
                f"temperatures {', '.join(f'{each:g}' for each in self.temperatures)}"
            )


def template_parts(tokenizer) -> tuple[list[int], list[int]]:
    """Token ids of a chat before and after the user's text; the latter start with what ends a user's turn.

    Raises DataError where that is plain text, as in "USER: ... ASSISTANT:": no single token tells the end then.
    """
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": MARK}], add_generation_prompt=True, tokenize=False
    )
    parts = text.split(MARK)
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    if not after or after[0] not in tokenizer.all_special_ids:
        raise DataError(
            f"this model cannot write prompts itself: its chat template ends a user's turn with {parts[1][:20]!r} "
            "and not with a special token; give --prompts FILE instead of --self-prompts"
        )
    return before, after


def requests(tokenizer, eos: tuple[int, ...], prompts: list[str], settings: Settings) -> Iterator[Request]:
    """Every answer to make, numbered: the given prompts' samples first, then the prompts the model writes itself."""
    before, after = template_parts(tokenizer) if settings.self_prompts else ([], [])
    temperatures, most = settings.temperatures, settings.max_new_tokens
    for key in range(len(prompts) * settings.samples + settings.self_prompts):
        temperature = temperatures[key % len(temperatures)]
        if key < len(prompts) * settings.samples:
            ids = chat_ids(tokenizer, [{"role": "user", "content": prompts[key // settings.samples]}])
            stretches = [Stretch(ids, most, eos, temperature, settings.top_k)]
        else:
            own = Stretch(before, PROMPT_TOKENS, (after[0],), settings.prompt_temperature, settings.top_k)
            stretches = [own, Stretch(after[1:], most, eos, temperature, settings.top_k)]
        yield Request(key, stretches, settings.seed)


def finished_row(request: Request) -> dict:
    """Row of a finished request: {"key", "prompt_ids", "answer_ids"}; no answer when its prompt never ended."""
    *written, answer = request.stretches
    prompt = [token for stretch in written for token in (*stretch.fed, *stretch.tokens)]
    return {"key": request.key, "prompt_ids": [*prompt, *answer.fed], "answer_ids": answer.tokens}


class Journal:
    """Finished rows as JSON lines beside the output, so that an interrupted run goes on where it stopped.

    The first line holds a digest of everything the rows depend on; a file with another digest is an error.
    """

    def __init__(self, path: Path, settings: dict):
        self.path = path
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        try:
            first, *self.rows = finished_lines(path) or [None]
        except ValueError as error:
            raise DataError(str(error)) from None
        if first == {"digest": digest}:
            return
        if self.rows:
            raise DataError(f"{path}: made with other settings or prompts; delete it or restore them")
        path.unlink(missing_ok=True)  # it holds no answer yet
        append_line(path, {"digest": digest})

    def add(self, row: dict) -> None:
        """Append a finished row."""
        append_line(self.path, row)
        self.rows.append(row)


def distill(base, prompts: list[str], settings: Settings, out: Path, batch: int = 48, exclude=()) -> TokenSet:
    """Answer prompts in batches and write the token set `out` (Parquet); returns it.

    exclude: evaluation questions; rows whose prompt repeats one are dropped. An interrupted run leaves a journal
    beside `out` from which the same call goes on; the result does not depend on interruptions. Several processes
    (ranks.py) share the answers and keep a journal each.
    """
    if batch < 1:
        raise DataError(f"batch is {batch}; at least 1 sequence in a forward was expected")
    if out.is_dir():
        raise DataError(f"{out}: a folder; expected the name of a Parquet file")
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(base.folder)
    prompts = unique_prompts(prompts)
    identity = {**asdict(settings), "model": sha256(base.folder / MANIFEST), "prompts": prompts}
    del identity["self_prompts"]  # answers are numbered: a run may be made longer
    everything = list(requests(tokenizer, base.config.eos_token_ids, prompts, settings))
    most = {each.key: _most_tokens(each, base.config.max_position_embeddings) for each in everything}
    journal = _open_journal(out.with_name(f"{out.name}.journal.jsonl"), identity)
    done = {key for keys in ranks.everyones([row["key"] for row in journal.rows]) for key in keys}
    todo = [request for request in everything if request.key not in done]
    slots = max((most[request.key] for request in todo), default=0)
    own = ranks.share(todo)
    bar = {"total": len(journal.rows) + len(own), "initial": len(journal.rows), **ranks.quiet()}
    with tqdm(unit="answer", desc="distilling", **bar) as progress:
        tokens = sum(len(row["answer_ids"]) for row in journal.rows)
        for request in generate(base, own, batch, slots) if own else ():
            journal.add(finished_row(request))
            tokens += len(journal.rows[-1]["answer_ids"])
            progress.set_postfix(answer_tokens=tokens, refresh=False)
            progress.update()
    made = {row["key"]: row for rows in ranks.everyones(journal.rows) for row in rows}
    rows = [made[key] for key in sorted(made)][: len(everything)]  # of a longer run
    rows = _usable(rows, tokenizer, settings, exclude)
    metadata = {**asdict(settings), "model": base.folder.name, "given_prompts": len(prompts)}
    token_set = ranks.broadcast(write_tokens(out, rows, metadata) if ranks.first() else None)
    journal.path.unlink()
    return token_set


def _most_tokens(request: Request, context: int) -> int:
    """Tokens that a request may come to; raises DataError naming it where they are more than the model's context."""
    most = sum(len(stretch.fed) + stretch.max_new_tokens for stretch in request.stretches)
    if most > context:
        raise DataError(
            f"answer {request.key} may come to {most} tokens, its prompt included, but the model's context holds "
            f"{context}: lower max_new_tokens, or leave out the prompt that is so long"
        )
    return most


def _open_journal(path: Path, identity: dict) -> Journal:
    """This rank's journal; the first rank's takes over the rows of others that an interruption left."""
    if ranks.first():
        journal = Journal(path, identity)
        for other in ranks.other_paths(path):
            left = Journal(other, identity)
            for row in left.rows:
                journal.add(row)
            other.unlink()
    ranks.barrier()
    return journal if ranks.first() else Journal(ranks.own_path(path), identity)


def _usable(rows: list[dict], tokenizer, settings: Settings, exclude) -> list[dict]:
    """Rows with an answer whose prompt repeats no evaluation question, with their `sample` number."""
    rows = [row for row in rows if row["answer_ids"]]
    texts = tokenizer.batch_decode([row["prompt_ids"] for row in rows], skip_special_tokens=True)
    repeated = {overlap.prompt for overlap in overlaps(texts, exclude)}
    return [
        {**row, "sample": row["key"] % settings.samples}
        for index, row in enumerate(rows)
        if index not in repeated
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m medusa_core.distill", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default="embedded", help='"embedded" or a model folder (default: %(default)s)'
    )
    parser.add_argument("--prompts", type=Path, help='JSON lines of {"prompt": ...}, or a ShareGPT file')
    parser.add_argument("--self-prompts", type=int, default=0, help="prompts the model writes itself")
    parser.add_argument(
        "--samples", type=int, default=2, help="answers to every given prompt (default: %(default)s)"
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.7], help="taken in turn")
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, help="longest answer (default: %(default)s)"
    )
    parser.add_argument("--exclude", type=Path, help="questions file whose prompts must not be trained on")
    parser.add_argument("--batch", type=int, default=48, help="sequences in a forward (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    args = parser.parse_args(arguments)
    if not args.prompts and args.self_prompts < 1:
        parser.error("nothing to answer: give --prompts FILE, --self-prompts N, or both")
    if args.out.exists():
        parser.error(f"{args.out} already exists: delete it first or choose another --out")

    def work() -> None:
        settings = Settings(
            self_prompts=args.self_prompts,
            samples=args.samples,
            temperatures=tuple(args.temperatures),
            max_new_tokens=args.max_new_tokens,
            seed=args.seed,
        )
        prompts = read_prompts(args.prompts) if args.prompts else []
        exclude = read_questions(args.exclude) if args.exclude else ()
        from medusa_core import llama  # starts Jittor

        tokens = distill(llama.load(args.model), prompts, settings, args.out, args.batch, exclude)
        print(f"{args.out}: {len(tokens)} answers, {tokens.answer_tokens:,} answer tokens")

    return commands.finish(work, commands.GOES_ON)


if __name__ == "__main__":
    ranks.run(main)
