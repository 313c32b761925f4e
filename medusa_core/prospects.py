"""What a tree promises on a machine: tokens/step from measured acceptance, speed-up from measured step times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medusa_core import tree as trees
from medusa_core.cost import StepCost
from medusa_core.path_shares import PathShares
from medusa_core.tree import Tree, TreeError

PRODUCT, COUNTED = "product of head accuracies", "counted on held-out text"


class ProspectsError(ValueError):
    """Measurements that are malformed, or that cannot answer what is asked of them."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of heads and machine. Raises ProspectsError for numbers that cannot have been measured.

    accuracy (K, R): how often head k's guess of rank i is the base's token. cost: of steps and drafts. shares: of
    whole paths, where they were counted.
    """

    accuracy: np.ndarray
    cost: StepCost
    shares: PathShares | None = None

    def __post_init__(self):
        if self.accuracy.ndim != 2 or not self.accuracy.size:
            raise ProspectsError(f"accuracy must be (heads, ranks), got shape {self.accuracy.shape}")
        if not ((self.accuracy >= 0) & (self.accuracy <= 1)).all():
            raise ProspectsError("accuracy must hold numbers from 0 to 1")
        seconds = np.array([*self.cost.step_seconds, self.cost.draft_seconds])
        if len(seconds) < 2 or not np.isfinite(seconds).all() or seconds.min() < 0 or not seconds[:-1].all():
            raise ProspectsError(
                "step_seconds must be positive, for 1, 2, ... rows, and draft_seconds 0 or more"
            )
        if self.shares is not None:
            _check_shares(self.shares.share)

    @property
    def rules(self) -> list[str]:
        """Ways to value a path that these measurements allow."""
        return [PRODUCT] if self.shares is None else [PRODUCT, COUNTED]


def _check_shares(share: dict[tuple[int, ...], float]) -> None:
    """Raise ProspectsError unless shares are parts of the whole, and none is above an earlier path's."""
    above = 1.0
    for path, value in share.items():
        if not 0 <= value <= above:
            raise ProspectsError(
                f"shares: {list(path)} has {value}, expected 0 to {above}, the one before it"
            )
        above = value
    try:
        Tree.from_paths(share)
    except TreeError as error:
        raise ProspectsError(f"shares: {error}") from None


def load(path) -> Measured:
    """Read the result file of chapter 08. Raises ProspectsError naming the file and the fault."""
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        cost = StepCost(tuple(map(float, raw["step_seconds"])), float(raw["draft_seconds"]))
        shares = PathShares({tuple(ranks): float(share) for ranks, share in raw["shares"]})
        return Measured(np.array(raw["accuracy"], dtype=float), cost, shares)
    except ProspectsError as error:
        raise ProspectsError(f"{path}: {error}") from None
    except OSError as error:
        raise ProspectsError(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise ProspectsError(f"{path}: key {error} is not there") from None
    except (TypeError, ValueError) as error:
        keys = "accuracy, step_seconds, draft_seconds and shares"
        raise ProspectsError(f"{path}: expected a JSON object with {keys} ({error})") from None


@dataclass(frozen=True)
class Outlook:
    """Of one tree: tokens_per_step expected; overhead of its step, and speed-up, over plain decoding."""

    tokens_per_step: float
    overhead: float

    @property
    def speedup(self) -> float:
        return self.tokens_per_step / self.overhead


class Prospects:
    """Trees on one machine, with one rule for how often a path is right."""

    def __init__(self, measured: Measured, rule: str = PRODUCT):
        if rule not in measured.rules:
            raise ProspectsError(
                f"paths cannot be valued by {rule!r}: choose one of {', '.join(measured.rules)}"
            )
        self.measured, self.rule = measured, rule

    @cached_property
    def most(self) -> int:
        """Most nodes below the root of which value and time are known."""
        heads, ranks = self.measured.accuracy.shape
        counted = self.rule == COUNTED
        paths = len(self.measured.shares.share) if counted else trees.capacity(heads, ranks)
        return min(self.measured.cost.rows - 1, paths)

    def best(self, nodes: int) -> Tree:
        """The tree of `nodes` nodes below the root with the most expected tokens a step."""
        if self.rule == COUNTED:
            return self.measured.shares.best(nodes)
        return trees.search(self.measured.accuracy, nodes)

    def values(self, tree: Tree) -> np.ndarray:
        """How often (n,) each node should be accepted, 1 for the root; a path that was not counted has 0."""
        if self.rule == COUNTED:
            return np.array([1.0, *(self.measured.shares.share.get(path, 0.0) for path in tree.choices)])
        return trees.path_products(tree, self.measured.accuracy)

    def judge(self, tree: Tree) -> Outlook:
        """What a tree promises; the root alone is plain decoding, which drafts nothing."""
        self.check(tree)
        overhead = self.measured.cost.overhead(tree.size, drafted=tree.size > 1)
        return Outlook(float(self.values(tree).sum()), overhead)

    def check(self, tree: Tree) -> None:
        """Raise TreeError naming the path that the heads cannot guess, or the size that was not timed."""
        heads, ranks = self.measured.accuracy.shape
        for path in tree.choices:
            if len(path) > heads:
                raise TreeError(f"path {list(path)} is {len(path)} deep, but there are {heads} heads")
            if path[-1] >= ranks:
                raise TreeError(f"path {list(path)}: rank {path[-1]} is beyond the {ranks} guesses of a head")
        if tree.size > self.measured.cost.rows:
            rows = self.measured.cost.rows
            raise TreeError(f"{tree.size} rows with the root, but steps were timed up to {rows} rows")

    @cached_property
    def curve(self) -> list[Outlook]:
        """Outlooks of the best trees of 0, 1, ... most nodes below the root."""
        values = np.sort(self.values(self.best(self.most))[1:])[::-1]
        expected = 1 + np.cumsum([0.0, *values])
        cost = self.measured.cost
        return [
            Outlook(float(tokens), cost.overhead(n + 1, drafted=n > 0)) for n, tokens in enumerate(expected)
        ]

    @property
    def fastest(self) -> int:
        """Nodes below the root of the tree with the most expected tokens per second."""
        return int(np.argmax([outlook.speedup for outlook in self.curve]))
