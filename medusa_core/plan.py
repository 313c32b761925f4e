"""Which guesses to check: heads' and context's guesses share the rows of a step by expected acceptance.

A static tree needs none of this. A plan weighs at every step what the context proposes and how sure the heads are, and
checks as many rows as this machine makes worthwhile: it maximises (1 + sum of acceptance) / (step time + draft time).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medusa_core.cost import StepCost
from medusa_core.files import write_json
from medusa_core.heads.context import LONGEST, ContextIndex
from medusa_core.tree import Tree, TreeError

CHAIN = 8  # longest context proposal


class PlanError(ValueError):
    """A plan file that is malformed."""


class Draft(NamedTuple):
    """A tree of guesses: tokens and the drafter's log-probability of each node given its parent, and who guessed it."""

    tree: Tree
    tokens: Sequence[int]
    logprob: Sequence[float]
    source: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What guesses are worth on this machine.

    cost: of steps and drafts. tree: the guesses that heads are asked for, more than are checked. rates (LONGEST + 1,):
    how often context proposals are right, by length of match; without them no context is asked.
    """

    cost: StepCost
    tree: Tree
    rates: tuple[float, ...] | None = None

    def draft(self, drafter, hidden, context: ContextIndex) -> Draft:
        """Choose the guesses to check after the last token of `context`, of `drafter` and of the context.

        hidden (d,) is the base's state before that token. A guess of the heads counts with its own probability, the
        product along its path (EAGLE-2, 2406.16858). Without a drafter only the context guesses.
        """
        root = context.tokens[-1]
        nodes = _Nodes(root)
        if drafter is not None:
            tokens, logprob = drafter.draft(hidden, root, self.tree)
            nodes.add_tree(self.tree, tokens.tolist(), logprob.tolist())
        if self.rates is not None:
            nodes.add_chain(*context.propose(CHAIN), self.rates)
        return nodes.best(self.cost, drafter is not None)


def save(path, plan: Plan, **more) -> None:
    """Write a plan as JSON; `more` says what it was measured with."""
    content = {"step_seconds": [round(seconds, 7) for seconds in plan.cost.step_seconds]}
    content |= {"draft_seconds": round(plan.cost.draft_seconds, 7)}
    content |= {"choices": [list(path) for path in plan.tree.choices]}
    content |= {"rates": [round(float(rate), 6) for rate in plan.rates]}
    write_json(Path(path), {**content, **more})


def load(path) -> Plan:
    """Read a plan written by `save`. Raises PlanError naming the file and the fault."""
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        cost = StepCost(tuple(map(float, raw["step_seconds"])), float(raw["draft_seconds"]))
        rates, tree = tuple(map(float, raw["rates"])), Tree.from_paths(raw["choices"])
    except TreeError as error:
        raise PlanError(f"{path}: key choices: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        keys = "step_seconds, draft_seconds, choices and rates"
        raise PlanError(f"{path}: expected a JSON object with {keys} ({error!r})") from None
    if not cost.step_seconds or min(cost.step_seconds) <= 0 or cost.draft_seconds < 0:
        raise PlanError(
            f"{path}: step_seconds must be positive, for 1, 2, ... rows, and draft_seconds 0 or more"
        )
    if len(rates) != LONGEST + 1 or not all(0 <= rate <= 1 for rate in rates):
        raise PlanError(f"{path}: rates must be {LONGEST + 1} numbers from 0 to 1")
    return Plan(cost, tree, rates)


class _Nodes:
    """Candidates as a tree of tokens; `value` is the expected acceptance of a whole path."""

    def __init__(self, root: int):
        self.token, self.parent, self.value, self.logprob, self.source = [root], [-1], [1.0], [0.0], ["root"]
        self.child: dict[tuple[int, int], int] = {}

    def _add(self, parent: int, token: int, value: float, logprob: float, source: str) -> int:
        node = self.child[parent, token] = len(self.token)
        for column, entry in zip(
            (self.token, self.parent, self.value, self.logprob, self.source),
            (token, parent, value, logprob, source),
        ):
            column.append(entry)
        return node

    def add_tree(self, tree: Tree, tokens: list[int], logprob: list[float]) -> None:
        """Add the heads' guesses; must come first."""
        for node in range(1, tree.size):
            parent = tree.parents[node]
            value = self.value[parent] * math.exp(logprob[node])
            self._add(parent, tokens[node], value, logprob[node], "heads")

    def add_chain(self, chain: list[int], length: int, rates: Sequence[float]) -> None:
        """Add a context proposal; where it enters, heads' other guesses count only for when it is wrong."""
        node, value = 0, 1.0
        for place, token in enumerate(chain):
            rate = rates[min(length + place, LONGEST)]
            value *= rate
            below = self.child.get((node, token))
            if place == 0:
                self._discount(below, rate)
            if below is None:
                below = self._add(node, token, value, math.log(max(rate, 1e-9)), "context")
            else:
                self.value[below] = value = max(value, self.value[below])
                self.source[below] = "both"
            node = below

    def _discount(self, same: int | None, rate: float) -> None:
        known = 0.0 if same is None else self.value[same]
        factor = min(1.0, (1.0 - rate) / max(1.0 - known, 1e-9))
        for node in range(1, len(self.token)):
            top = node
            while self.parent[top]:
                top = self.parent[top]
            if top != same:
                self.value[node] *= factor

    def best(self, cost: StepCost, drafted: bool) -> Draft:
        """The most valuable nodes, as many as pay, in the row order of trees."""
        for node in range(
            1, len(self.token)
        ):  # what lies below a node is accepted no more often than the node
            self.value[node] = min(self.value[node], self.value[self.parent[node]])
        order = sorted(range(1, len(self.token)), key=lambda node: -self.value[node])  # stable: parents first
        order = order[: cost.rows - 1]
        expected, count, most = 1.0, 0, 1.0 / cost.overhead(1, drafted)
        for number, node in enumerate(order, start=1):
            expected += self.value[node]
            if (gain := expected / cost.overhead(number + 1, drafted)) > most:
                count, most = number, gain
        return self._build(order[:count])

    def _build(self, chosen: list[int]) -> Draft:
        path: dict[int, tuple[int, ...]] = {0: ()}
        children = [0] * len(self.token)
        for node in chosen:
            parent = self.parent[node]
            path[node] = (*path[parent], children[parent])
            children[parent] += 1
        rows = sorted(path, key=lambda node: (len(path[node]), path[node]))
        index = {node: row for row, node in enumerate(rows)}
        return Draft(
            Tree(
                tuple(path[node] for node in rows[1:]), (-1, *(index[self.parent[node]] for node in rows[1:]))
            ),
            [self.token[node] for node in rows],
            [self.logprob[node] for node in rows],
            tuple(self.source[node] for node in rows),
        )
