"""What checking guesses costs on this machine, put beside the heads: the trees and plans that suit it.

Shipped trees and plans were measured on one machine. Where rows cost more they ask for too many guesses, down to slower
than plain decoding. How often guesses are right does not change, so timing steps and drafts is all that it takes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medusa_core import answers, commands, contestants, cost, heads, meter, ranks, tree_files
from medusa_core import plan as plans
from medusa_core.answers import SettingsError
from medusa_core.contestants import Contestant
from medusa_core.cost import StepCost
from medusa_core.heads import PLAN_FILE, TREE_FILE
from medusa_core.path_shares import PathShares
from medusa_core.plan import Plan
from medusa_core.stamp import PROCESSOR, in_words, processor_differences, stamp
from medusa_core.tables import text_table
from medusa_core.tree import Tree


def calibrate(
    names: Sequence[str], model: str = "embedded", rounds: int = 10, past: int = 256, repeats: int = 20
) -> tuple[tuple[float, ...], list[dict]]:
    """Time steps of 1 to 64 rows and every heads' drafts, and renew plan.json and tree.json of all `names`.

    All kinds of heads share the step times, measured in `rounds` behind `past` tokens; drafts are timed `repeats`
    times. Returns the seconds of a step by rows, and a row a kind: draft time, rows of its tree, expected speed-up.
    Raises HeadsError for heads that do not exist, SettingsError or PlanError where a plan is missing or broken:
    nothing is measured or written then.
    """
    files = {name: heads.resolve(name) / PLAN_FILE for name in names}
    for path in files.values():
        if not path.is_file():
            raise SettingsError(
                f"{path}: no such file; chapter 08 and `compare --write-plans` write a first one"
            )
    known = {name: plans.load(path) for name, path in files.items()}
    shares = {name: plans.read_shares(path) for name, path in files.items()}
    found = contestants.load(names, model)
    check_past(past, max(cost.ROWS), found[0].base)
    steps = _step_seconds(found[0], rounds, past)
    shapes = {name: {plan.tree.size: plan.tree} for name, plan in known.items()}
    drafts = contestants.draft_seconds(found, shapes, past, repeats)
    machine, rows = stamp(), []
    for name, path in files.items():
        here = StepCost(steps, drafts[name][known[name].tree.size])
        chosen = shares[name].choose(here, least=1)  # who asks for heads gets some, also where none pay
        measured = {"model": model, "heads": name, "machine": machine}
        write(path.parent, chosen, replace(known[name], cost=here), shares[name], **measured)
        row = {"heads": name, "draft ms": here.draft_seconds * 1e3, "rows": chosen.size}
        rows.append({**row, "expected speed-up": shares[name].expected(chosen) / here.overhead(chosen.size)})
    return steps, rows


def check_past(past: int, rows: int, base) -> None:
    """Raise SettingsError where steps of so many rows behind `past` tokens do not fit the context of `base`."""
    if past + rows > (context := base.config.max_position_embeddings):
        raise SettingsError(
            f"--past is {past}: with {rows} rows behind it that is more than the model's context of {context}"
        )


def _step_seconds(contestant: Contestant, rounds: int, past: int) -> tuple[float, ...]:
    shapes = meter.any_trees(contestant.drafter.config.num_heads, cost.ROWS)
    measured = meter.measure(contestant.base, contestant.drafter, shapes, past, rounds, progress=True)
    return measured.cost().step_seconds


def write(folder: Path, chosen: Tree, plan: Plan, shares: PathShares, **measured) -> None:
    """Put a tree and a plan into a heads folder; shares and measured: as `plan.save` takes them."""
    tree_files.save(chosen, folder / TREE_FILE, name=f"machine-{chosen.size}-rows")
    plans.save(folder / PLAN_FILE, plan, shares, **measured)


def warn(model: str, name: str, tree_name: str, drafts: Sequence[str]) -> None:
    """Say on stderr where guesses will follow what was measured on another machine, and how to measure this one.

    model: as `answers.load_base` takes it; the others as `answers.load_drafting` does.
    """
    drafts = [each for each in drafts if not answers.nobody_guesses(name, each)]
    if not drafts or (set(drafts) == {"heads"} and tree_name not in ("auto", "dynamic")):
        return
    name = answers.DEFAULT_HEADS if name == "none" else name
    path = heads.resolve(name) / PLAN_FILE
    there = plans.read(path).get("machine") if path.is_file() and ranks.first() else None
    if not isinstance(there, dict) or not there.keys() >= set(PROCESSOR):
        return
    here = stamp()
    if not processor_differences(there, here):
        return
    command = ["python", "-m", "medusa_core.calibrate", "--heads", name]
    command += ["--model", model] if model != "embedded" else []
    print(
        f"note: {path} was measured on another machine, {in_words(there)}; this one has {in_words(here)}. Greedy and "
        f"exact texts do not depend on it. For speed, measure this one: {shlex.join(command)} (runs that were begun "
        "before cannot go on then)",
        file=sys.stderr,
    )


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.calibrate",
        description="Measure what checking guesses costs on this machine, and choose trees and plans for it.",
        epilog="Renews plan.json and tree.json beside the heads. Greedy and exact texts do not depend on them.",
    )
    cli.add_argument(
        "--heads", nargs="+", help="shipped names or folders (default: all shipped ones that have a plan)"
    )
    cli.add_argument(
        "--model", default="embedded", help='"embedded" or a converted model folder (default: %(default)s)'
    )
    cli.add_argument(
        "--rounds", type=int, default=10, help="rounds in which every size is timed (default: %(default)s)"
    )
    cli.add_argument(
        "--past", type=int, default=256, help="tokens before the steps that are timed (default: %(default)s)"
    )
    return cli


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def work() -> None:
        if options.rounds < 1 or options.past < 1:
            raise SettingsError("--rounds and --past must be at least 1")
        planned = [name for name in heads.available() if (heads.resolve(name) / PLAN_FILE).is_file()]
        if not (names := options.heads or planned):
            raise SettingsError(f"no heads with a {PLAN_FILE} in {heads.folder_of_names()}")
        steps, chosen = calibrate(names, options.model, options.rounds, options.past)
        costs = [
            {"rows": n, "ms": 1e3 * steps[n - 1], "t(n) / t(1)": steps[n - 1] / steps[0]} for n in cost.ROWS
        ]
        print(text_table(costs), text_table(chosen), sep="\n\n")

    return commands.finish(work)


if __name__ == "__main__":
    ranks.alone(main)
