"""Which guesses to check: those of heads, context and corpus share the rows of a step by expected acceptance.

A static tree needs none of this. A plan weighs at every step what the text proposes and how sure the heads are, and
checks as many rows as this machine makes worthwhile: it maximises (1 + sum of acceptance) / (step time + draft time).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from medusa_core.cost import StepCost
from medusa_core.files import write_json
from medusa_core.grow import DEEPEST, Draft, HeadGuesses, Sources, grow
from medusa_core.heads.context import LONGEST, ContextIndex
from medusa_core.heads.corpus import Corpus
from medusa_core.path_shares import PathShares
from medusa_core.tree import Tree, TreeError

# Where the text's best guess is likelier than this, heads add less than their draft costs (held-out text: 2.40 tokens a
# step with Medusa-1 asked in 6 steps of 10, 2.37 if it is always asked).
SURE = 0.5
PATHS = 64  # whose shares a plan file keeps


class PlanError(ValueError):
    """A plan file that is malformed."""


@dataclass(frozen=True)
class Plan:
    """What guesses are worth on this machine.

    cost: of steps and drafts. tree: the guesses that heads are asked for, more than are checked. rates (LONGEST + 1,):
    how often context proposals are right, by length of match; without them no context is asked, and without a corpus
    no corpus. data: file of the answers that a corpus is counted over, relative to the repository.
    """

    cost: StepCost
    tree: Tree
    rates: tuple[float, ...] | None = None
    corpus: Corpus | None = None
    data: str = ""

    def draft(self, drafter, hidden, context: ContextIndex) -> Draft:
        """Choose the guesses to check after the last token of `context`, of `drafter`, of the context and the corpus.

        hidden (d,) is the base's state before that token. A guess of the heads counts with its own probability, the
        product along its path (EAGLE-2, 2406.16858). They are asked only where the text is not SURE, and without a
        drafter never.
        """
        text = context.tokens
        chain, length = context.propose(DEEPEST) if self.rates is not None else ((), 0)
        sources = Sources(text, None, self.corpus, chain, length, self.rates or ())
        asked = drafter is not None and self.tree.size > 1 and sources.best() < SURE
        if asked:
            tokens, logprob = drafter.draft(hidden, text[-1], self.tree)
            guesses = HeadGuesses(self.tree, tokens.tolist(), logprob.tolist(), drafter.INDEPENDENT)
            sources = replace(sources, heads=guesses)
        return grow(text[-1], sources, self.cost, asked)


def save(path, plan: Plan, shares: PathShares, **more) -> None:
    """Write a plan as JSON, without its corpus.

    shares: how often paths of the heads' guesses are right, by which a tree is chosen for another machine. `more` says
    what it was measured with, `machine` on which (a stamp).
    """
    content = {"step_seconds": [round(seconds, 7) for seconds in plan.cost.step_seconds]}
    content |= {"draft_seconds": round(plan.cost.draft_seconds, 7)}
    content |= {"choices": [list(path) for path in plan.tree.choices]}
    content |= {"shares": [[list(path), round(n, 6)] for path, n in list(shares.share.items())[:PATHS]]}
    content |= {"rates": [round(float(rate), 6) for rate in plan.rates], "data": plan.data}
    write_json(Path(path), {**content, **more})


def load(path) -> Plan:
    """Read a plan written by `save`. Raises PlanError naming the file and the fault."""
    path = Path(path)
    raw = read(path)
    try:
        cost = StepCost(tuple(map(float, raw["step_seconds"])), float(raw["draft_seconds"]))
        rates, tree = tuple(map(float, raw["rates"])), Tree.from_paths(raw["choices"])
    except TreeError as error:
        raise PlanError(f"{path}: key choices: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        keys = "step_seconds, draft_seconds, choices and rates"
        raise PlanError(f"{path}: expected numbers, or lists of them, under {keys} ({error!r})") from None
    positive = cost.step_seconds and all(0 < seconds < math.inf for seconds in cost.step_seconds)
    if not (positive and 0 <= cost.draft_seconds < math.inf):
        raise PlanError(
            f"{path}: step_seconds must be positive, for 1, 2, ... rows, and draft_seconds 0 or more"
        )
    if len(rates) != LONGEST + 1 or not all(0 <= rate <= 1 for rate in rates):
        raise PlanError(f"{path}: rates must be {LONGEST + 1} numbers from 0 to 1")
    if not isinstance(data := raw.get("data", ""), str):
        raise PlanError(f"{path}: data must be the name of a file, not {data!r}")
    return Plan(cost, tree, rates, data=data)


def read_shares(path) -> PathShares:
    """Read how often paths are right from a file written by `save`. Raises PlanError naming the file and the fault."""
    try:
        shares = PathShares({tuple(guesses): float(share) for guesses, share in read(path)["shares"]})
        shares.best(len(shares.share))
    except TreeError as error:
        raise PlanError(f"{path}: key shares: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(
            f"{path}: key shares: expected pairs of a path and how often it is right, as chapter 08 writes them "
            f"({error!r})"
        ) from None
    values = list(shares.share.values())
    if not values or values != sorted(values, reverse=True) or not all(0 <= value <= 1 for value in values):
        raise PlanError(f"{path}: key shares: expected shares from 0 to 1, the largest first")
    return shares


def read(path) -> dict:
    """The content of a plan file. Raises PlanError where it is no JSON object."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"{path}: expected a JSON object ({error})") from None
    if not isinstance(content, dict):
        raise PlanError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
