"""Base against Medusa on the same prompts: speed, tokens per step and both texts, in one JSON file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medusa_core import accept, answers, calibrate, commands, data, peers, ranks, text
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.bench_play import Mode, Player, asked, play, spread
from medusa_core.files import file_name, write_json
from medusa_core.runtime import ARTIFACTS
from medusa_core.summary import PLAIN, table


@dataclass(frozen=True)
class BenchSettings:
    """What is measured; acceptance "greedy" runs at temperature 0, "typical" and "exact" at `temperature`."""

    model: str = "embedded"
    heads: str = "medusa1"
    tree: str = "auto"
    drafts: tuple[str, ...] = ("all",)
    dtype: str = "bfloat16"
    acceptance: tuple[str, ...] = answers.ACCEPTANCE
    temperature: float = 0.7
    max_new_tokens: int = 128
    turns: int = 1
    repeats: int = 1
    epsilon: float = accept.EPSILON
    delta: float = accept.DELTA
    seed: int = 0

    def __post_init__(self):
        if self.repeats < 1 or self.turns < 1:
            raise SettingsError(f"repeats {self.repeats} and turns {self.turns} must be at least 1")
        if self.heads == "none":
            raise SettingsError(
                "a benchmark compares heads with plain decoding, which always runs: name heads"
            )
        if not self.drafts or set(self.drafts) - set(answers.DRAFTS):
            raise SettingsError(f"drafts is {self.drafts}: name one or more of {', '.join(answers.DRAFTS)}")
        if not self.acceptance:
            raise SettingsError(f"acceptance is empty: name one or more of {', '.join(answers.ACCEPTANCE)}")
        accept.check_thresholds(self.epsilon, self.delta, self.acceptance)


def modes(settings: BenchSettings, plain: str = PLAIN) -> list[Mode]:
    """Plain decoding at every temperature that occurs, then every way of drafting with every acceptance.

    plain: another name where the heads draft for a base of their own.
    """
    shared = {key: getattr(settings, key) for key in ("max_new_tokens", "epsilon", "delta", "seed")}
    found = [Mode(plain, "greedy", None, Settings(**shared), plain)]
    if set(settings.acceptance) - {"greedy"}:
        sampled = Settings(**shared, acceptance="exact", temperature=settings.temperature)
        found.append(Mode(plain, "sampling", None, sampled, plain))
    for acceptance in settings.acceptance:
        temperature = 0.0 if acceptance == "greedy" else settings.temperature
        own = Settings(**shared, acceptance=acceptance, temperature=temperature)
        found += [
            Mode(answers.who(settings.heads, drafts), acceptance, drafts, own, plain)
            for drafts in settings.drafts
        ]
    return found


def run(
    base,
    draftings: Mapping[str, Drafting],
    questions: Sequence[Mapping],
    settings: BenchSettings,
    tokenizer,
    recorded: Mapping | None = None,
    partial: Path | None = None,
    progress: bool = True,
) -> dict:
    """Decode every question in every mode, interleaved, and return the result that goes to artifacts/results.

    draftings: who guesses, for each of settings.drafts. All modes continue the same prompts: a second turn follows
    plain greedy decoding's answer to the first. recorded: what else the result's config should say. partial: JSON
    lines of finished questions; a run that finds one of the same config and processor goes on from it. Raises
    SettingsError when it is of another.
    """
    questions = asked(questions)
    config = {**asdict(settings), "choices": _choices(draftings), "questions": questions, **(recorded or {})}
    players = {PLAIN: Player(base, Drafting())}
    players |= {answers.who(settings.heads, drafts): Player(base, each) for drafts, each in draftings.items()}
    return play(players, modes(settings), questions, settings, tokenizer, config, partial, progress)


def _choices(draftings: Mapping[str, Drafting]) -> dict[str, list]:
    """The tree that each way of drafting asks its heads for, as rank paths."""
    trees = {drafts: each.tree or (each.plan and each.plan.tree) for drafts, each in draftings.items()}
    return {drafts: [list(path) for path in tree.choices] for drafts, tree in trees.items() if tree}


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    defaults = BenchSettings()
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.bench",
        description="Measure a base model with and without draft heads on the same prompts.",
        epilog="Writes artifacts/results/NAME.json. The same command goes on after an interruption.",
    )

    def add(flag: str, text: str, **more) -> None:
        default = getattr(defaults, flag.strip("-").replace("-", "_"))
        cli.add_argument(flag, default=default, help=f"{text} (default: {default})", **more)

    add("--model", '"embedded" or a converted model folder')
    add("--heads", "a shipped name or a folder")
    add("--tree", '"auto" (beside the heads), "dynamic", a name in artifacts/trees, chain-N or a file')
    add("--dtype", "of the base's weights", choices=("bfloat16", "float32"))
    cli.add_argument(
        "--drafts",
        nargs="+",
        choices=answers.DRAFTS,
        default=defaults.drafts,
        help=f"who guesses: {answers.DRAFTS_HELP} (default: all)",
    )
    cli.add_argument(
        "--acceptance",
        nargs="+",
        choices=answers.ACCEPTANCE,
        default=defaults.acceptance,
        help="greedy runs at temperature 0, the others at --temperature (default: all)",
    )
    add("--temperature", "of plain sampling, typical and exact", type=float)
    add("--epsilon", "of typical acceptance: the highest probability that a guess needs", type=float)
    add("--delta", "of typical acceptance: what it needs where all tokens are alike", type=float)
    add("--max-new-tokens", "length limit of an answer", type=int)
    add("--turns", "turns of each question", type=int, choices=(1, 2))
    add("--repeats", "times that everything is decoded; speeds are medians over them", type=int)
    add("--seed", "of the sampling", type=int)
    cli.add_argument(
        "--questions",
        type=Path,
        default=ARTIFACTS / "data" / "questions.jsonl",
        help="MT-bench .jsonl or a ShareGPT file (default: the 80 of this study)",
    )
    cli.add_argument("--limit", type=int, help="use N questions, taken from every category in turn")
    cli.add_argument(
        "--name", type=file_name, default="bench", help="of the result file (default: %(default)s)"
    )
    return cli


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["peers"]:
        if ranks.size() > 1:
            print("error: peers take turns with one process: leave mpirun out", file=sys.stderr)
            return 2
        return peers.main(arguments[1:])
    options = vars(parser().parse_args(arguments))
    path, limit, name = (options.pop(key) for key in ("questions", "limit", "name"))

    def work() -> None:
        out = commands.result_file(name)
        settings = BenchSettings(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
        )
        if limit is not None and limit < 1:
            raise SettingsError(f"--limit is {limit}; at least 1 question is needed")
        result = measure(settings, spread(list(data.read_questions(path)), limit), out)
        print(table(result["summary"]), f"The result: {out}", sep="\n\n")

    return commands.finish(work, commands.GOES_ON)


def measure(settings: BenchSettings, questions: Sequence[Mapping], out: Path) -> dict:
    """Load what `settings` name, run the benchmark, write the result file `out` and return it.

    Heads that learned together with the base are compared with the base as they changed it, decoding plainly;
    adapters_sha256 in the result's config says so.
    """
    modes(settings)  # contradictions and missing heads, before the time that loading takes
    files = answers.fingerprints(settings.model, settings.heads, settings.tree, settings.drafts)
    base = answers.load_base(settings.model, settings.heads, settings.dtype)
    draftings = {
        drafts: answers.load_drafting(settings.heads, settings.tree, drafts, base)
        for drafts in settings.drafts
    }
    calibrate.warn(settings.model, settings.heads, settings.tree, settings.drafts)
    partial = out.with_suffix(".partial.jsonl")
    tokenizer = text.load_tokenizer(base.folder)
    recorded = {"files_sha256": files, "adapters_sha256": base.adapters}
    result = run(base, draftings, questions, settings, tokenizer, recorded, partial)
    if ranks.first():
        write_json(out, result)
    ranks.barrier()
    ranks.own_path(partial).unlink()
    return result


if __name__ == "__main__":
    ranks.run(main)
