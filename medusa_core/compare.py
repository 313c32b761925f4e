"""One comparison of trained heads: size, training, accuracy, tokens a step, time to draft, and speed in one race."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from medusa_core import (
    bench_play,
    calibrate,
    commands,
    contestants,
    data,
    heads,
    heads_race,
    meter,
    ranks,
    room,
    text,
    token_set,
)
from medusa_core.answers import SettingsError
from medusa_core.bench import BenchSettings
from medusa_core.contestants import Contestant
from medusa_core.cost import ROWS, StepCost
from medusa_core.files import append_line, file_name, write_json
from medusa_core.heads import context
from medusa_core.heads import corpus as corpora
from medusa_core.heads.corpus import Corpus
from medusa_core.heads_race import shares_of
from medusa_core.model_folder import sha256
from medusa_core.runtime import ARTIFACTS, ROOT
from medusa_core.tables import text_table
from medusa_core.token_set import TokenSet
from medusa_core.tree import Tree

VERSION = 1
SHARES = 64  # paths that a row keeps, the likeliest first
STEPS, DRAFTS = "step seconds", "draft seconds"  # rows of the partial file beside those of heads


@dataclass(frozen=True)
class CompareSettings:
    """What is compared, and on how much; the defaults take about half an hour on 2 cores."""

    heads: tuple[str, ...]
    model: str = "embedded"
    data: str = "artifacts/data/distilled.parquet"
    held_out_positions: int = 0
    nodes: tuple[int, ...] = (4, 8, 16, 32)
    candidates: int = 16
    checked: int = 4
    past: int = 256
    cost_rounds: int = 40
    draft_repeats: int = 24
    limit: int = 24
    max_new_tokens: int = 128
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self):
        if not self.heads or len(set(self.heads)) != len(self.heads):
            raise SettingsError(f"heads are {list(self.heads)}: name each that takes part once")
        if not self.nodes or min(self.nodes) < 1:
            raise SettingsError(f"nodes are {list(self.nodes)}: expected one or more sizes of 1 or more")
        for name in (
            "candidates",
            "checked",
            "past",
            "cost_rounds",
            "draft_repeats",
            "limit",
            "max_new_tokens",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.candidates > SHARES:
            raise SettingsError(f"candidates is {self.candidates}, expected {SHARES} or fewer")
        if not 0 < self.temperature < float("inf") or self.seed < 0:
            raise SettingsError(
                f"temperature {self.temperature} and seed {self.seed}: expected a positive number, and 0 or more"
            )
        if self.held_out_positions < 0:
            raise SettingsError(f"held_out_positions is {self.held_out_positions}, expected 0 (all) or more")


def compare(
    settings: CompareSettings,
    found: Sequence[Contestant],
    held_out: TokenSet,
    questions: Sequence[Mapping],
    tokenizer,
    corpus: Corpus | None = None,
    partial: Path | None = None,
    progress: bool = True,
) -> dict:
    """Measure what `settings` ask for of every contestant and return the result that goes to artifacts/results.

    held_out: greedy answers of the base to prompts that no heads learned from. corpus: of the answers that they did
    learn from, for the ways of guessing that ask it. partial: JSON lines of finished parts; a run that finds one of
    the same settings, heads and processor goes on from it.
    """
    weights = {each.name: sha256(heads.resolve(each.name) / heads.WEIGHTS_FILE) for each in found}
    config = {**asdict(settings), "heads_sha256": weights}
    machine, done = bench_play.begin(partial, config, key="part")

    def part(name: str, make) -> dict:
        if name not in done:
            done[name] = make()
            if partial:
                append_line(partial, {"part": name, **done[name]})
        return done[name]

    silent = {} if progress else {"disable": True}
    with tqdm(found, desc="heads", **silent) as bar:
        rows = [part(each.name, lambda each=each: _counted(each, held_out, settings)) for each in bar]
    shapes = {row["name"]: {len(tree): Tree.from_paths(tree) for tree in row["trees"]} for row in rows}
    steps = part(STEPS, lambda: _step_seconds(found[0], shapes[found[0].name], settings))[STEPS]
    drafts = part(DRAFTS, lambda: _drafts(found, rows, shapes, settings))[DRAFTS]
    rates = context.rates(zip(held_out.prompt_ids, held_out.answer_ids, strict=True))
    for row in rows:
        row["draft_ms"] = {nodes: 1e3 * seconds for nodes, seconds in drafts[row["name"]].items()}
        _choose(row, steps, drafts[row["name"]], settings)
    shared = BenchSettings(
        model=settings.model,
        heads=found[0].name,
        drafts=("heads",),
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
    )
    asked = bench_play.asked(bench_play.spread(questions, settings.limit or None))
    plan = {row["name"]: heads_race.plan_of(row, steps, rates, settings.data, corpus) for row in rows}
    file = partial and partial.with_name(partial.name.replace(".partial.", ".race.partial."))
    speed = heads_race.race(found, rows, plan, asked, shared, tokenizer, file, progress)
    return {
        "version": VERSION,
        "config": config,
        "machine": machine,
        "step_seconds": steps,
        "context_rates": [float(rate) for rate in rates],
        "heads": rows,
        "bench": speed,
        "summary": [_flat(row, speed) for row in rows],
    }


def _counted(each: Contestant, held_out: TokenSet, settings: CompareSettings) -> dict:
    """The row of one contestant, as far as no clock is needed."""
    counted = contestants.count(each, held_out, settings.nodes)
    middle = counted.trees[sorted(settings.nodes)[len(settings.nodes) // 2 - 1]]
    return {
        "name": each.name,
        **contestants.learned(each.name),
        "candidates": settings.candidates,
        "adapted_base": bool(getattr(each.base, "adapters", None)),
        "held_out_positions": counted.texts.answer_tokens,
        "top1": counted.accuracy[:, 0].tolist(),
        "top5": counted.accuracy[:, :5].sum(axis=1).tolist(),
        "tokens_per_step": {str(n): value for n, value in counted.tokens_per_step().items()},
        "trees": [[list(path) for path in tree.choices] for tree in counted.trees.values()],
        "shares": [[list(path), share] for path, share in list(counted.shares.share.items())[:SHARES]],
        "checked": {"nodes": middle.size - 1, **contestants.check(each, counted, middle, settings.checked)},
    }


def _step_seconds(each: Contestant, shapes: Mapping[int, Tree], settings: CompareSettings) -> dict:
    """Seconds of a step by rows; drafts of the largest tree come between, as in decoding."""
    most = max(*shapes, settings.candidates) + 1
    by_rows = meter.any_trees(each.drafter.config.num_heads, sorted({n for n in ROWS if n < most} | {most}))
    measured = meter.measure(each.base, each.drafter, by_rows, settings.past, settings.cost_rounds)
    return {STEPS: list(measured.cost().step_seconds)}


def _drafts(found, rows: list[dict], shapes: dict, settings: CompareSettings) -> dict:
    """Seconds to draft each heads' trees and its candidates."""
    shapes = {
        row["name"]: {**shapes[row["name"]], settings.candidates: shares_of(row).best(settings.candidates)}
        for row in rows
    }
    seconds = contestants.draft_seconds(found, shapes, settings.past, settings.draft_repeats)
    return {DRAFTS: {name: {str(n): s for n, s in own.items()} for name, own in seconds.items()}}


def _choose(row: dict, steps: list[float], drafts: Mapping[str, float], settings: CompareSettings) -> None:
    """Add to a row the tree for this machine, with what it should bring."""
    shares = shares_of(row)
    smallest = min(map(int, drafts))
    cost = StepCost(tuple(steps[: settings.candidates + 1]), drafts[str(smallest)])
    tree = shares.choose(cost, least=1)  # also where none pays
    row["tree"] = [list(path) for path in tree.choices]
    row["expected_speedup"] = shares.expected(tree) / cost.overhead(tree.size)


def _flat(row: dict, speed: dict) -> dict:
    """One row of the table: a number or a word a column."""
    flat = {"heads": row["name"], "kind": row["kind"], "parameters": row["parameters"]}
    flat |= {key: row[key] for key in ("megabytes", "positions", "training_seconds")}
    for name in ("top1", "top5"):
        flat |= {f"{name}, {place}": value for place, value in enumerate(row[name], 1)}
    flat |= {f"tokens/step, {nodes} nodes": value for nodes, value in row["tokens_per_step"].items()}
    flat |= {f"draft ms, {nodes} nodes": value for nodes, value in row["draft_ms"].items()}
    for each in speed["summary"]:
        if each["name"].split(" + ")[0] == row["name"]:
            flat[f"speed-up, {each['acceptance']}{each['name'].removeprefix(row['name'])}"] = each["speedup"]
    return flat


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    defaults = CompareSettings(heads=("-",))
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.compare",
        description="Compare trained heads: size, training, accuracy, tokens a step, draft time, speed.",
        epilog="Writes artifacts/results/NAME.json. The same command goes on after an interruption.",
    )
    cli.add_argument("--heads", nargs="+", help="shipped names or folders (default: all that are shipped)")

    def add(flag: str, words: str, kind=int, **more) -> None:
        default = getattr(defaults, flag.strip("-").replace("-", "_"))
        cli.add_argument(flag, type=kind, default=default, help=f"{words} (default: {default})", **more)

    add("--model", '"embedded" or a converted model folder', str)
    add("--data", "token set whose held-out greedy answers are counted on", str)
    add("--held-out-positions", "answer tokens of it; 0 for all")
    add("--nodes", "sizes of trees that tokens/step are counted with", nargs="+")
    add("--candidates", "guesses that heads offer where the context guesses, too")
    add("--checked", "texts that are decoded to check the counted tokens/step, for each heads")
    add("--past", "tokens before the steps that are timed")
    add("--cost-rounds", "rounds in which steps of each size are timed")
    add("--draft-repeats", "drafts that are timed of each tree")
    add("--limit", "questions of the race, taken from every category in turn; 0 for all")
    add("--max-new-tokens", "length limit of an answer")
    add("--temperature", "of plain sampling, typical and exact", float)
    add("--seed", "of the sampling")
    cli.add_argument("--questions", type=Path, default=ARTIFACTS / "data" / "questions.jsonl",
                     help="MT-bench .jsonl of the race (default: the 80 of this study)")  # fmt: skip
    cli.add_argument(
        "--name", type=file_name, default="compare", help="of the result file (default: %(default)s)"
    )
    cli.add_argument(
        "--write-plans", action="store_true", help="put tree.json and plan.json beside the heads"
    )
    return cli


def main(arguments: list[str] | None = None) -> int:
    options = vars(parser().parse_args(arguments))
    questions, name, write = (options.pop(key) for key in ("questions", "name", "write_plans"))
    options["heads"] = options["heads"] or heads.available()

    def work() -> None:
        out = commands.result_file(name)
        settings = CompareSettings(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        )
        tokens = token_set.read_tokens(ROOT / settings.data)
        held_out = tokens.select("held-out").greedy().thin(0, settings.held_out_positions)
        asked = list(data.read_questions(questions))
        found = contestants.load(settings.heads, settings.model)
        partial = out.with_suffix(".partial.jsonl")
        tokens.warn_unless_of(found[0].base.folder)
        tokenizer = text.load_tokenizer(found[0].base.folder)
        calibrate.check_past(settings.past, max(*settings.nodes, settings.candidates) + 1, found[0].base)
        context = found[0].base.config.max_position_embeddings
        room.check_first(tokenizer, bench_play.spread(asked, settings.limit), context)
        counted = corpora.of_answers(tokens)
        result = compare(settings, found, held_out, asked, tokenizer, counted, partial)
        write_json(out, result)
        for file in (partial, out.with_suffix(".race.partial.jsonl")):
            file.unlink(missing_ok=True)
        if write:
            write_plans(result)
        print(table(result), f"The result: {out}", sep="\n\n")

    return commands.finish(work, commands.GOES_ON)


def write_plans(result: dict) -> None:
    """Put each heads' tree for this machine and its plan beside the heads, where `--tree auto` and `--drafts both`
    find them.
    """
    for row in result["heads"]:
        plan = heads_race.plan_of(
            row, result["step_seconds"], result["context_rates"], result["config"]["data"]
        )
        measured = {"model": result["config"]["model"], "heads": row["name"], "machine": result["machine"]}
        folder, tree = heads.resolve(row["name"]), Tree.from_paths(row["tree"])
        calibrate.write(folder, tree, plan, shares_of(row), **measured)


def table(result: dict) -> str:
    """The summary as text, a row a column of it: heads side by side."""
    columns = list(dict.fromkeys(key for row in result["summary"] for key in row if key != "heads"))
    return text_table(
        [{"": key, **{row["heads"]: row.get(key) for row in result["summary"]}} for key in columns]
    )


if __name__ == "__main__":
    ranks.alone(main)
