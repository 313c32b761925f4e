"""Recorded steps looked at again: how each token came, and what another criterion would have decided. No model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from medusa_core import accept
from medusa_core.accept import DELTA, EPSILON, Verdict
from medusa_core.trace import Reading, Step, Trace

RECORDED = "as recorded"
CRITERIA = (RECORDED, "greedy", "typical")
_FAILED = ("rejected", "parent rejected", "empty")


class ReplayError(ValueError):
    """A step that cannot be decided again."""


class Origin(NamedTuple):
    """Where a produced token came from: source as in the step, or "bonus", and its depth in the tree."""

    source: str
    depth: int


def who(trace: Trace) -> str:
    """Who guessed and who decided in a recording, e.g. "medusa1, greedy"; "medusa1 (all), greedy" by a plan."""
    settings = trace.settings
    drafts = settings.get("drafts", "heads")
    guessed = settings.get("heads", "guesses") + ("" if drafts == "heads" else f" ({drafts})")
    return f"{guessed}, {settings.get('acceptance', 'greedy')}"


def by_who(traces: Iterable[Trace]) -> dict[str, list[Trace]]:
    """Traces of a file's questions by `who`; a prompt of one's own has no category and is left out."""
    groups: dict[str, list[Trace]] = {}
    for trace in traces:
        if "category" in trace.settings and trace.settings["acceptance"] in CRITERIA:
            groups.setdefault(who(trace), []).append(trace)
    return groups


def origins(step: Step) -> list[Origin]:
    """The origin of each token that a step produced; the bonus token has depth 0."""
    guessed = [Origin(step.source[node], depth) for depth, node in enumerate(step.path) if depth]
    return [*guessed, Origin("bonus", 0)][: len(step.tokens)]


def decide(step: Step, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA) -> Verdict:
    """What a criterion decides about the guesses of a recorded step, typical at the temperature of its reading.

    Raises ReplayError for a criterion that is none of CRITERIA, or a step without a reading.
    """
    if criterion == RECORDED:
        return _recorded(step)
    if criterion not in CRITERIA:
        raise ReplayError(f"criterion {criterion!r} is unknown: choose one of {', '.join(CRITERIA)}")
    reading, tree = _reading(step), step.tree
    if criterion == "greedy":
        return accept.greedy(tree, step.node_tokens, reading.best)
    return accept.typical_again(
        tree,
        step.node_tokens,
        reading.tempered_probability,
        reading.tempered_entropy,
        reading.best,
        epsilon,
        delta,
    )


def decide_all(
    trace: Trace, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA
) -> list[Verdict]:
    """`decide` for every step of a trace."""
    return [decide(step, criterion, epsilon, delta) for step in trace.steps]


def leniency(
    traces: list[Trace], criterion: str, epsilon: float = EPSILON, delta: float = DELTA
) -> tuple[float, float]:
    """Tokens of a step, and the share of them that are not what the base holds likeliest, if a criterion decided.

    Each step is decided where it stands in its recording; what would have followed another decision is not known, so
    both are estimates for all criteria but the recorded one, and steps in which the text ended are left out of them.
    Prefills do not count. Raises ReplayError where there is no step to decide, or no reading to decide by.
    """
    steps = [
        step for trace in traces for step in trace.steps[1:] if criterion == RECORDED or not _ended(step)
    ]
    if not steps:
        raise ReplayError("no steps to decide: the traces hold nothing but prefills and last steps")
    produced = others = 0
    for step in steps:
        verdict = decide(step, criterion, epsilon, delta)
        tokens = len(step.tokens) if _ended(step) else len(verdict.path)
        produced += tokens
        best = _reading(step).best
        guesses = verdict.path[1 : tokens + 1]
        others += sum(step.node_tokens[node] != best[step.parents[node]] for node in guesses)
    return produced / len(steps), others / produced


def changed(trace: Trace, verdicts: list[Verdict]) -> list[int]:
    """The steps whose verdict takes another path than the recorded one."""
    return [
        place
        for place, (step, v) in enumerate(zip(trace.steps, verdicts, strict=True))
        if v.path != step.path
    ]


def rejections(verdicts: list[Verdict]) -> list[int]:
    """The steps that had guesses and took none of them."""
    return [place for place, v in enumerate(verdicts) if len(v.reason) > 1 and len(v.path) == 1]


def summary(
    name: str, trace: Trace, criterion: str = RECORDED, epsilon: float = EPSILON, delta: float = DELTA
) -> str:
    """One line about a trace called `name` and what the criterion decides, the same on every machine."""
    verdicts = decide_all(trace, criterion, epsilon, delta)
    line = f"{name}: {len(trace.tokens)} tokens in {len(trace.steps)} steps"
    alone = len(rejections(verdicts))
    if criterion == RECORDED:
        return f"{line}, {alone} of them without an accepted guess"
    settings = f", epsilon {epsilon:g}, delta {delta:g}" if criterion == "typical" else ""
    differs = len(changed(trace, verdicts))
    return f"{line}; {criterion}{settings}: {alone} without an accepted guess, {differs} decide otherwise than recorded"


def _reading(step: Step) -> Reading:
    if step.reading is None:
        raise ReplayError(
            "this trace holds no readings of the base model, so only what was decided can be shown; "
            "`python -m medusa_core.record` records them"
        )
    return step.reading


def _ended(step: Step) -> bool:
    """Whether the text ended in a step, at an end token or the limit, before all that it had accepted."""
    return len(step.tokens) < len(step.path)


def _recorded(step: Step) -> Verdict:
    return Verdict(
        path=step.path,
        next_token=-1 if _ended(step) else step.tokens[-1],  # the token after is not known
        probability=step.probability,
        threshold=step.threshold,
        accepted=np.array([reason not in _FAILED for reason in step.reason]),
        reason=step.reason,
    )
