"""Talk to a model in the terminal: its answer appears as it is decoded, with what a step brought behind it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from medusa_core import answers, calibrate, commands, generate, heads, ranks, text
from medusa_core.answers import Drafting, Settings

EPILOG = """\
Without --prompt, every line you type is a turn of one conversation. Ctrl-C drops the answer that is being written,
/new begins another conversation, an empty line or Ctrl-D ends it.

examples:
  python -m medusa_core.chat --prompt "Why is the sky blue?"
  python -m medusa_core.chat --heads none --temperature 0.7
"""
NEW = "/new"
UNFINISHED = "\ufffd"  # what a tokenizer writes for a character whose last bytes have not come yet


def pieces(tokenizer, steps: Iterable) -> Iterator[str]:
    """The text that each step adds to an answer; characters that a step cuts in two wait for the rest.

    steps: what `answers.stream` yields. All pieces together are the answer's text without special tokens.
    """
    tokens, shown = [], ""
    for step in steps:
        tokens += step.tokens
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        if not whole.endswith(UNFINISHED):
            yield whole[len(shown) :]
            shown = whole
    if tokens and whole != shown:
        yield whole[len(shown) :]


def reply(
    base, tokenizer, drafting: Drafting, history: list[str], settings: Settings, write: Callable
) -> str:
    """Decode the answer to a chat whose turns alternate, calling `write` with each piece; returns the whole text.

    Ends with a line on standard error: tokens, tokens a step behind the prompt's own, tokens a second. Errors as
    `answers.answer`.
    """
    prompt_ids = answers.prompt(tokenizer, history)
    counts = []

    def counted() -> Iterator:
        for step in answers.stream(base, drafting, prompt_ids, settings):
            counts.append(len(step.tokens))
            yield step

    begin, said = time.perf_counter(), []
    for piece in pieces(tokenizer, counted()):
        write(piece)
        said.append(piece)
    seconds = time.perf_counter() - begin
    write("\n")
    tokens, steps = sum(counts), counts[1:] or counts  # the first is the prompt's forward, which gives one
    print(
        f"[{tokens} tokens, {sum(steps) / len(steps):.2f} a step, {tokens / seconds:.0f} a second]",
        file=sys.stderr,
    )
    return "".join(said)


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.chat",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("--prompt", help="ask this and end")
    generate.add_arguments(cli, heads=answers.DEFAULT_HEADS)
    return cli


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.heads == "list":
        print("\n".join(heads.available()) or f"no heads in {heads.folder_of_names()}")
        return 0
    return commands.finish(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    settings = generate.settings_of(options)
    if options.prompt is not None and not options.prompt.strip():
        raise answers.SettingsError("--prompt is empty; a prompt needs at least one character")
    answers.check_tree(options.heads, options.tree, [options.drafts])
    base = answers.load_base(options.model, options.heads, options.dtype)
    drafting = answers.load_drafting(options.heads, options.tree, options.drafts, base)
    calibrate.warn(options.model, options.heads, options.tree, [options.drafts])
    tokenizer = text.load_tokenizer(base.folder)

    def write(piece: str) -> None:
        print(piece, end="", flush=True)

    # Operators are compiled once, and not in an answer's time.
    warm_up = answers.prompt(tokenizer, answers.WARM_UP)
    answers.answer(base, drafting, warm_up, replace(settings, max_new_tokens=8))
    if options.prompt is not None:
        reply(base, tokenizer, drafting, [options.prompt], settings, write)
    else:
        converse(lambda turns: reply(base, tokenizer, drafting, turns, settings, write))


def converse(answer: Callable[[list[str]], str]) -> None:
    """Read turns from standard input until an empty line or its end; `answer` writes what follows all turns so far."""
    history: list[str] = []
    while asked := _typed():
        if asked == NEW:
            history = []
            continue
        try:
            history += [asked, answer([*history, asked])]
        except ValueError as error:  # the conversation so far stays
            print(f"error: {error}, or type {NEW}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n[dropped]", file=sys.stderr)


def _typed() -> str:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return ""


if __name__ == "__main__":
    ranks.alone(main)
