"""Base against Medusa on the same prompts: speed, tokens per step and both texts, in one JSON file."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from medusa_core import answers, data, heads, ranks, text
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.differences import first_difference
from medusa_core.files import append_line, finished_lines, write_json
from medusa_core.machine import resident_mib
from medusa_core.model_folder import sha256
from medusa_core.runtime import ARTIFACTS
from medusa_core.stamp import stamp
from medusa_core.summary import PLAIN, by_category, summarise, table

VERSION = 1


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
    epsilon: float = 0.09
    delta: float = 0.3
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


class Mode(NamedTuple):
    """One way of decoding that takes part in a benchmark."""

    name: str
    acceptance: str
    drafts: str | None  # None for plain decoding
    settings: Settings
    plain: str = PLAIN  # name of the plain decoding that it is compared with


class Player(NamedTuple):
    """What a mode decodes with."""

    base: object
    drafting: Drafting


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


def asked(questions: Sequence[Mapping]) -> list[dict]:
    """What a result keeps of the questions."""
    return [{key: question[key] for key in ("question_id", "category", "turns")} for question in questions]


def play(
    players: Mapping[str, Player],
    modes: Sequence[Mode],
    questions: Sequence[Mapping],
    settings: BenchSettings,
    tokenizer,
    config: dict,
    partial: Path | None = None,
    progress: bool = True,
) -> dict:
    """Decode every question in every mode by the player of its name; the first mode's answers continue a chat.

    config: all that the result depends on. Of `settings`, only turns, repeats and seed count. The rest as `run`.
    Several processes (ranks.py) share the questions; the result's config says how many shared the machine.
    """
    if ranks.size() > 1:
        config = {**config, "processes": ranks.size()}
    partial = partial and ranks.own_path(partial)
    machine, done = begin(partial, config)
    bench = _Bench(players, modes, tokenizer, settings)
    warm_up = answers.prompt(tokenizer, answers.WARM_UP)
    for mode in modes:
        bench.decode(mode, warm_up, replace(mode.settings, max_new_tokens=8))
    resident = [resident_mib()]
    silent = ranks.quiet() if progress else {"disable": True}
    for number, question in tqdm(ranks.share(list(enumerate(questions))), desc="questions", **silent):
        name = question["question_id"]
        if name not in done:
            done[name] = bench.question(question, first=number)
            if partial:
                append_line(partial, {"question_id": name, **done[name]})
    done = {name: record for part in ranks.everyones(done) for name, record in part.items()}
    records = [done[question["question_id"]] for question in questions]
    resident.append(resident_mib())
    runs = [
        {
            "name": mode.name,
            "acceptance": mode.acceptance,
            "temperature": mode.settings.temperature,
            "plain": mode.plain,
            "samples": [sample for record in records for sample in record["samples"][number]],
        }
        for number, mode in enumerate(modes)
    ]
    return {
        "version": VERSION,
        "config": config,
        "machine": machine,
        "runs": runs,
        "summary": summarise(runs),
        "categories": by_category(runs),
        "resident_mib": [round(each, 1) for each in resident],  # before the first question and after the last
        "differences": [difference for record in records for difference in record["differences"]],
    }


def _choices(draftings: Mapping[str, Drafting]) -> dict[str, list]:
    """The tree that each way of drafting asks its heads for, as rank paths."""
    trees = {drafts: each.tree or (each.plan and each.plan.tree) for drafts, each in draftings.items()}
    return {drafts: [list(path) for path in tree.choices] for drafts, tree in trees.items() if tree}


class _Bench:
    """What every question of a benchmark is decoded with."""

    def __init__(self, players: Mapping[str, Player], modes, tokenizer, settings: BenchSettings):
        self.players, self.modes, self.tokenizer, self.settings = players, modes, tokenizer, settings

    def decode(self, mode: Mode, prompt_ids: list[int], settings: Settings) -> dict:
        """One timed generation."""
        begin = time.perf_counter()
        trace = answers.answer(*self.players[mode.name], prompt_ids, settings)
        seconds = time.perf_counter() - begin
        return {"token_ids": trace.tokens, "seconds": seconds, **answers.measures(trace)}

    def question(self, question: Mapping, first: int) -> dict:
        """Decode all turns in all modes; returns {"samples": a list a mode, one a turn; "differences"}."""
        samples: list[list[dict]] = [[] for _ in self.modes]
        differences, history = [], []
        for turn, asked in enumerate(question["turns"][: self.settings.turns], 1):
            history.append(asked)
            ids = answers.prompt(self.tokenizer, history)
            labels = {"question_id": question["question_id"], "category": question["category"], "turn": turn}
            seed = answers.turn_seed(self.settings.seed, question["question_id"], turn)
            for own, repeats in zip(samples, self._interleaved(ids, seed, first)):
                own.append({**labels, "prompt_tokens": len(ids), **self._sample(repeats)})
            differences += [{**labels, **found} for found in self._compare(ids, [own[-1] for own in samples])]
            history.append(samples[0][-1]["text"])
        return {"samples": samples, "differences": differences}

    def _interleaved(self, ids: list[int], seed: int, first: int) -> list[list[dict]]:
        """Generations by mode and repeat; the modes take turns in beginning, so none always runs first."""
        done: list[list[dict]] = [[] for _ in self.modes]
        for round_ in range(self.settings.repeats):
            for offset in range(len(self.modes)):
                number = (first + round_ + offset) % len(self.modes)
                mode = self.modes[number]
                done[number].append(self.decode(mode, ids, replace(mode.settings, seed=seed)))
        return done

    def _compare(self, ids: list[int], samples: list[dict]) -> Iterator[dict]:
        """Put plain decoding's text beside that of the heads; yield where greedy answers part."""
        pairs = list(zip(self.modes, samples))
        plain = {(mode.name, mode.settings.temperature): s for mode, s in pairs if not mode.drafts}
        for mode, sample in pairs:
            if not mode.drafts:
                continue
            other = plain[mode.plain, mode.settings.temperature]
            sample["plain_text"] = other["text"]
            if mode.acceptance == "greedy" and sample["token_ids"] != other["token_ids"]:
                base = self.players[mode.name].base
                found = first_difference(base, ids, other["token_ids"], sample["token_ids"])
                yield {"name": mode.name, **found}

    def _sample(self, repeats: list[dict]) -> dict:
        """The repeat of median duration stands for all; what the spread is computed from is kept of each."""
        middle = sorted(repeats, key=lambda each: each["seconds"])[(len(repeats) - 1) // 2]
        keys = ("tokens", "steps", "seconds")
        kept = [{**{key: each[key] for key in keys}, "prefill": each["times"]["prefill"]} for each in repeats]
        text = self.tokenizer.decode(middle["token_ids"], skip_special_tokens=True)
        return {"text": text, **middle, "repeats": kept}


def spread(questions: Sequence[Mapping], limit: int | None) -> list[Mapping]:
    """At most `limit` questions, taken from every category in turn, in their original order."""
    place, seen = [], {}
    for question in questions:
        seen[question["category"]] = seen.get(question["category"], 0) + 1
        place.append(seen[question["category"]])
    chosen = sorted(range(len(place)), key=lambda index: (place[index], index))[:limit]
    return [questions[index] for index in sorted(chosen)]


# ---------------------------------------------------------------- going on after an interruption


def begin(partial: Path | None, config: dict, key: str = "question_id") -> tuple[dict, dict]:
    """The machine's stamp and the finished rows by `key`, of `partial` where that has been begun.

    Raises SettingsError when it is of another config or processor.
    """
    machine = stamp()
    content = json.dumps([config, machine["cpu"], machine["threads"]], sort_keys=True)
    header = {"settings_sha256": hashlib.sha256(content.encode()).hexdigest(), "machine": machine}
    if partial is None:
        return machine, {}
    rows = finished_lines(partial)
    if not rows:
        append_line(partial, header)
        return machine, {}
    if rows[0].get("settings_sha256") != header["settings_sha256"]:
        raise SettingsError(
            f"{partial} holds part of a benchmark with other settings, questions or processor: "
            "finish that one, delete the file, or choose another name"
        )
    return rows[0]["machine"], {row.pop(key): row for row in rows[1:]}


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
    cli.add_argument("--name", default="bench", help="of the result file (default: %(default)s)")
    return cli


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["peers"]:
        if ranks.size() > 1:
            print("error: peers take turns with one process: leave mpirun out", file=sys.stderr)
            return 2
        from medusa_core import peers  # which imports this module

        return peers.main(arguments[1:])
    options = vars(parser().parse_args(arguments))
    path, limit, name = (options.pop(key) for key in ("questions", "limit", "name"))
    try:
        settings = BenchSettings(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
        )
        if limit is not None and limit < 1:
            raise SettingsError(f"--limit is {limit}; at least 1 question is needed")
        result = measure(settings, spread(list(data.read_questions(path)), limit), name)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on.", file=sys.stderr)
        return 130
    print(table(result["summary"]))
    return 0


def measure(settings: BenchSettings, questions: Sequence[Mapping], name: str) -> dict:
    """Load what `settings` name, run the benchmark, write artifacts/results/`name`.json and return it.

    Heads that learned together with the base are compared with the base as they changed it, decoding plainly;
    adapters_sha256 in the result's config says so.
    """
    modes(settings)  # contradictions and missing heads, before the time that loading takes
    weights = heads.resolve(settings.heads) / heads.WEIGHTS_FILE
    base = answers.load_base(settings.model, settings.heads, settings.dtype)
    draftings = {
        drafts: answers.load_drafting(settings.heads, settings.tree, drafts, base)
        for drafts in settings.drafts
    }
    partial = ARTIFACTS / "results" / f"{name}.partial.jsonl"
    tokenizer = text.load_tokenizer(base.folder)
    recorded = {"heads_sha256": sha256(weights), "adapters_sha256": base.adapters}
    result = run(base, draftings, questions, settings, tokenizer, recorded, partial)
    if ranks.first():
        write_json(partial.with_name(f"{name}.json"), result)
    ranks.barrier()
    ranks.own_path(partial).unlink()
    return result


if __name__ == "__main__":
    ranks.run(main)
