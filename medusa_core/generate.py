"""Answers as files: questions in, one JSON line of answers a question out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from medusa_core import accept, answers, calibrate, commands, data, heads, machine, ranks, room, text
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.files import append_line, finished_lines, write_json
from medusa_core.model_folder import read_json, sha256

EPILOG = """\
Every line of OUT is {"question_id", "choices": [{"index", "turns", "token_ids", "prompt_tokens",
"new_tokens", "steps", "wall_time"}]} with one entry a turn in each list. wall_time is in seconds and
includes the prompt's forward, but neither loading nor the warm-up. The second turn's prompt holds the
first turn and its answer. Heads that learned together with the base (medusa2) decode with the base as
they changed it, and so does the context beside them.

OUT.settings.json, written beside OUT, holds the settings. The same command goes on after an interruption.

examples:
  python -m medusa_core.generate --questions artifacts/data/questions.jsonl --out plain.jsonl
  python -m medusa_core.generate --heads medusa1 --questions q.jsonl --out typical.jsonl \\
      --temperature 0.7 --acceptance typical
"""


def generate(
    base,
    tokenizer,
    drafting: Drafting,
    questions: Sequence[Mapping],
    settings: Settings,
    turns: int,
    out: Path,
):
    """Answer the questions that `out` does not have yet and append a line for each, safe on disk one by one.

    turns: answer at most this many turns of a question; one that outgrows the model's context ends earlier. Raises
    SettingsError naming the questions whose first turn does not fit.
    """
    finished = finished_questions(out)
    todo = [question for question in questions if question["question_id"] not in finished]
    if not todo:
        return
    room.check_first(tokenizer, todo, base.config.max_position_embeddings)
    warm_up = answers.prompt(tokenizer, answers.WARM_UP)
    answers.answer(base, drafting, warm_up, replace(settings, max_new_tokens=8))
    for question in tqdm(todo, desc="questions", initial=len(finished), total=len(finished) + len(todo)):
        choice = _answer_turns(base, tokenizer, drafting, question, settings, turns)
        append_line(out, {"question_id": question["question_id"], "choices": [{"index": 0, **choice}]})


def _answer_turns(base, tokenizer, drafting, question: Mapping, settings: Settings, turns: int) -> dict:
    keys = ("turns", "token_ids", "prompt_tokens", "new_tokens", "steps", "wall_time")
    choice: dict[str, list] = {key: [] for key in keys}
    history: list[str] = []
    for turn, asked in enumerate(question["turns"][:turns], 1):
        history.append(asked)
        ids = answers.prompt(tokenizer, history)
        if room.is_outgrown(ids, base.config.max_position_embeddings, question["question_id"], turn):
            break
        seed = answers.turn_seed(settings.seed, question["question_id"], turn)
        begin = time.perf_counter()
        trace = answers.answer(base, drafting, ids, replace(settings, seed=seed))
        seconds = time.perf_counter() - begin
        reply = tokenizer.decode(trace.tokens, skip_special_tokens=True)
        history.append(reply)
        values = (reply, trace.tokens, len(ids), len(trace.tokens), len(trace.steps), round(seconds, 6))
        for key, value in zip(keys, values, strict=True):
            choice[key].append(value)
    return choice


# ---------------------------------------------------------------- going on after an interruption


def finished_questions(out: Path) -> set:
    """Ids of the questions in an answers file; a last line that was cut short is removed from the file.

    Raises DataError naming the line when an earlier one is no answer.
    """
    finished = set()
    for number, row in enumerate(finished_lines(out), 1):
        if not isinstance(row, dict) or "question_id" not in row:
            raise data.DataError(f"{out}:{number}: not an answer: remove the line or choose another --out")
        finished.add(row["question_id"])
    return finished


def settings_file(out: Path) -> Path:
    """Where the settings of an answers file stand."""
    return out.with_name(out.name + ".settings.json")


def check_settings(out: Path, settings: dict) -> None:
    """Raise SettingsError naming what differs when `out` was begun with other settings than these."""
    if not out.exists():
        return
    recorded = settings_file(out)
    if not recorded.exists():
        raise SettingsError(
            f"{out} exists, but {recorded.name} does not, so it cannot be continued: choose another --out"
        )
    try:
        before = read_json(recorded)
    except ValueError as error:
        raise SettingsError(f"{error}. Choose another --out") from None
    if differ := answers.changes(before, {**dict.fromkeys(before), **settings}):
        raise SettingsError(f"{out} was begun with other settings: {'; '.join(differ)}. Choose another --out")


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.generate",
        description="Answer a file of questions with a base model, plainly or sped up by draft heads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(cli, heads="none")
    cli.add_argument(
        "--questions", type=Path, help="MT-bench .jsonl, or a ShareGPT file whose human turns are asked"
    )
    cli.add_argument("--limit", type=int, help="answer only the first N questions")
    cli.add_argument(
        "--turns", type=int, default=2, help="most turns of a question that are asked (default: %(default)s)"
    )
    cli.add_argument("--out", type=Path, help="answers file to write or to continue, .jsonl")
    return cli


def add_arguments(cli: argparse.ArgumentParser, heads: str) -> None:
    """Add what says how to decode: model, heads, guesses, sampling."""
    cli.add_argument(
        "--model", default="embedded", help='"embedded" or a converted model folder (default: %(default)s)'
    )
    cli.add_argument(
        "--heads", default=heads, help='"none", "list", a shipped name or a folder (default: %(default)s)'
    )
    cli.add_argument(
        "--tree",
        default="auto",
        help='"auto" (beside the heads), "dynamic" (chosen at every step), a name in artifacts/trees, chain-N or a '
        "file (default: %(default)s)",
    )
    cli.add_argument(
        "--drafts",
        choices=answers.DRAFTS,
        default="all",
        help=f"who guesses: {answers.DRAFTS_HELP} (default: %(default)s; nobody with --heads none, unless guesses "
        "without heads are asked for)",
    )
    cli.add_argument(
        "--max-new-tokens", type=int, default=256, help="length limit of an answer (default: %(default)s)"
    )
    cli.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token (default: %(default)s)"
    )
    cli.add_argument(
        "--acceptance",
        choices=answers.ACCEPTANCE,
        help="which guesses count (default: greedy at temperature 0, exact above: both leave the text as it is "
        "without heads; typical takes more guesses and changes it)",
    )
    cli.add_argument(
        "--epsilon",
        type=float,
        default=Settings.epsilon,
        help="typical acceptance: the highest probability that a guess needs (default: %(default)s)",
    )
    cli.add_argument(
        "--delta",
        type=float,
        default=Settings.delta,
        help="typical acceptance: what it needs where all tokens are alike, times exp(-entropy) (default: %(default)s)",
    )
    cli.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="of the weights (default: %(default)s)",
    )
    cli.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that are asked for; without an acceptance, the one that changes no text."""
    acceptance = options.acceptance or ("exact" if options.temperature else "greedy")
    names = ("max_new_tokens", "temperature", "epsilon", "delta", "seed")
    settings = Settings(acceptance=acceptance, **{name: getattr(options, name) for name in names})
    accept.check_thresholds(settings.epsilon, settings.delta, [acceptance])
    return settings


def main(arguments: list[str] | None = None) -> int:
    cli = parser()
    options = cli.parse_args(arguments)
    if options.heads == "list":
        print("\n".join(heads.available()) or f"no heads in {heads.folder_of_names()}")
        return 0
    if not options.questions or not options.out:
        cli.error("--questions FILE and --out FILE are needed")
    kept = f"finished answers are in {options.out}, and {commands.GOES_ON}"
    return commands.finish(lambda: _run(options), kept)


def _run(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    if options.limit is not None and options.limit < 1:
        raise SettingsError(f"--limit is {options.limit}; at least 1 question must be asked")
    if options.turns < 1:
        raise SettingsError(f"--turns is {options.turns}; at least 1 turn must be asked")
    questions = list(data.read_questions(options.questions))[: options.limit]
    recorded = record(options, settings)
    check_settings(options.out, recorded)
    if finished_questions(options.out) >= {question["question_id"] for question in questions}:
        print(f"{options.out} is complete.")
        return

    base = answers.load_base(options.model, options.heads, options.dtype)
    drafting = answers.load_drafting(options.heads, options.tree, options.drafts, base)
    calibrate.warn(options.model, options.heads, options.tree, [options.drafts])
    tokenizer = text.load_tokenizer(base.folder)
    write_json(settings_file(options.out), recorded)
    generate(base, tokenizer, drafting, questions, settings, options.turns, options.out)
    print(f"{len(questions)} questions answered in {options.out}.")
    if unasked := sum(max(0, len(question["turns"]) - options.turns) for question in questions):
        print(f"Turns left out because of --turns {options.turns}: {unasked}.")


def record(options: argparse.Namespace, settings: Settings) -> dict:
    """All that decides what an answer line says: settings, questions, and files by content."""
    recorded = {**asdict(settings), "model": options.model, "dtype": options.dtype, "turns": options.turns}
    recorded["questions_sha256"] = sha256(options.questions)
    recorded |= {"heads": options.heads, "tree": options.tree, "drafts": options.drafts}
    asked = (options.model, options.heads, options.tree, [options.drafts])
    recorded["files_sha256"] = answers.fingerprints(*asked)
    if options.dtype == "bfloat16" and machine.tiles():
        recorded["MEDUSA_AMX"] = "1"  # sums in another order, which other texts may come from
    return recorded


if __name__ == "__main__":
    ranks.alone(main)
