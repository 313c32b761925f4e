"""Heads of several kinds answer the same questions in turns, each against plain decoding of the base it drafts for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from medusa_core import bench, bench_play
from medusa_core.answers import Drafting
from medusa_core.bench import BenchSettings
from medusa_core.contestants import Contestant
from medusa_core.cost import StepCost
from medusa_core.path_shares import PathShares
from medusa_core.plan import Plan
from medusa_core.summary import PLAIN
from medusa_core.tree import Tree

SAMPLE = ("question_id", "category", "tokens", "steps", "seconds")  # what is kept of an answer


def race(
    found: Sequence[Contestant],
    rows: Sequence[Mapping],
    plans: Mapping[str, Plan],
    asked: Sequence[Mapping],
    shared: BenchSettings,
    tokenizer,
    partial: Path | None = None,
    progress: bool = True,
) -> dict:
    """Decode plainly with every base, and with all heads along their own tree, by every acceptance of `shared`; and
    greedily by their plan, where the guesses of the context and, if it has one, of the corpus stand beside theirs.

    rows: of a comparison, with each heads' tree. Returns the part "bench" of its result, without texts.
    """
    players, modes = {}, []
    for each, row in zip(found, rows, strict=True):
        plain = f"{PLAIN} {each.name}" if row["adapted_base"] else PLAIN
        players[plain] = bench_play.Player(each.base, Drafting())
        named = replace(shared, heads=each.name)
        plan = plans[each.name]
        ways = {"heads": Drafting(each.drafter, Tree.from_paths(row["tree"]))}
        ways["both"] = Drafting(each.drafter, None, replace(plan, corpus=None))
        if plan.corpus is not None:
            ways["all"] = Drafting(each.drafter, None, plan)
        for drafts, drafting in ways.items():
            acceptance = shared.acceptance if drafts == "heads" else ("greedy",)
            own = bench.modes(replace(named, drafts=(drafts,), acceptance=acceptance), plain)
            players |= {mode.name: bench_play.Player(each.base, drafting) for mode in own if mode.drafts}
            modes += own
    modes = list(dict.fromkeys(modes))  # heads of the same base share its plain decoding
    config = {**asdict(shared), "heads": [row["name"] for row in rows], "questions": asked, "rows": rows}
    result = bench_play.play(players, modes, asked, shared, tokenizer, config, partial, progress)
    identical = _identical(result["runs"])
    return {
        "questions": [{key: each[key] for key in ("question_id", "category")} for each in asked],
        "runs": [_slim(run) for run in result["runs"]],
        "summary": [{**row, "identical": same} for row, same in zip(result["summary"], identical)],
        "categories": result["categories"],
        "differences": result["differences"],
    }


def plan_of(row: Mapping, steps: Sequence[float], rates: Sequence[float], data: str, corpus=None) -> Plan:
    """The plan by which a row's heads share a step's rows with the context and the corpus; the rest as in a plan."""
    nodes = row["candidates"]
    cost = StepCost(tuple(steps), row["draft_ms"][str(nodes)] / 1e3)
    return Plan(cost, shares_of(row).best(nodes), tuple(float(rate) for rate in rates), corpus, data)


def shares_of(row: Mapping) -> PathShares:
    """How often each path of a row's heads is right, the most frequent first."""
    return PathShares({tuple(path): share for path, share in row["shares"]})


def _slim(run: dict) -> dict:
    """A run without its texts, whose equality is counted before."""
    kept = [{key: each[key] for key in SAMPLE} | {"draft": each["times"]["draft"]} for each in run["samples"]]
    return {**{key: run[key] for key in ("name", "acceptance", "temperature", "plain")}, "samples": kept}


def _identical(runs: list[dict]) -> list[int | None]:
    """How many answers of each run are, token for token, plain decoding's at its temperature."""
    plain = {(run["name"], run["temperature"]): run for run in runs if run["name"] == run["plain"]}
    pairs = [(run, plain[run["plain"], run["temperature"]]) for run in runs]
    return [
        None if own is other else sum(a["token_ids"] == b["token_ids"] for a, b in _samples(own, other))
        for own, other in pairs
    ]


def _samples(own: dict, other: dict) -> zip:
    return zip(own["samples"], other["samples"], strict=True)
