"""Step and Trace: what a decoding run did, as data and as JSON; everything that people look at reads this."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medusa_core.files import replacing
from medusa_core.trace_checks import READING_FLOATS, STEP_FLOATS, TraceError, check_trace
from medusa_core.tree import Tree

VERSION = 3
PHASES = ("verify", "accept", "commit", "draft")  # of a step


@dataclass(eq=False)
class Reading:
    """What the base model says about the n nodes of a step, so that the step can be decided again without it.

    best (n,) int32: its argmax after each node. logprob (n,): its log-probability of each node given its parent, NaN
    for the root. entropy (n,): of its next token after each node, in nats. Both are at temperature 1;
    tempered_probability, tempered_entropy (n,) are the same at the temperature that the trace's settings call
    "reading_temperature", the probability as such, as typical acceptance compares it.
    """

    best: np.ndarray
    logprob: np.ndarray
    entropy: np.ndarray
    tempered_probability: np.ndarray
    tempered_entropy: np.ndarray


@dataclass(eq=False)
class Step:
    """One forward of the base model: n drafted nodes verified, a path accepted, a next token chosen.

    tokens: the ids that the step produced, accepted nodes and then the bonus token (fewer where text ended).
    parents: each node's parent, -1 for the root; source: who guessed it, one of SOURCES.
    node_tokens (n,) int32: root first. node_logprob (n,): the drafter's log-probability of each node given its
    parent. path: accepted node indices, root first. probability, threshold (n,), reason: of accept.Verdict;
    NaN where nothing was asked. length: tokens in the cache before the step. times: seconds of each phase
    (PHASES). A step of plain decoding has one node. reading: only in traces that were
    recorded to be decided again (record.py).
    """

    tokens: list[int]
    parents: tuple[int, ...]
    source: tuple[str, ...]
    node_tokens: np.ndarray
    node_logprob: np.ndarray
    path: tuple[int, ...]
    probability: np.ndarray
    threshold: np.ndarray
    reason: tuple[str, ...]
    length: int
    times: dict[str, float] = field(default_factory=dict)
    reading: Reading | None = None

    @property
    def tree(self) -> Tree:
        """The tree that was verified."""
        return Tree.from_parents(self.parents)


@dataclass(eq=False)
class Trace:
    """A recorded generation: prompt ids, steps, settings, and seconds of the prefill.

    texts maps every token id that occurs to the text to show for it. plain_seconds: of each step of plain decoding of
    the same prompt, the prefill first, where it was timed beside this run.
    """

    prompt_ids: list[int]
    steps: list[Step]
    settings: dict = field(default_factory=dict)
    prefill: float = 0.0
    texts: dict[int, str] = field(default_factory=dict)
    plain_seconds: list[float] | None = None

    @property
    def tokens(self) -> list[int]:
        """All ids that the steps produced, in order."""
        return [token for step in self.steps for token in step.tokens]

    def to_json(self) -> str:
        """JSON text; numbers keep 6 significant digits, NaN becomes null, what is None is left out."""
        content = {
            "version": VERSION,
            "prompt_ids": _ints(self.prompt_ids),
            "settings": self.settings,
            "prefill": _number(self.prefill),
            "texts": {str(token): text for token, text in self.texts.items()},
            "steps": [_step_to_dict(step) for step in self.steps],
        }
        if self.plain_seconds is not None:
            content["plain_seconds"] = _numbers(self.plain_seconds)
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str = "trace") -> Trace:
        """Read what `to_json` wrote. Raises TraceError naming `where` and the line or key at fault."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise TraceError(f"{where}: not JSON at line {error.lineno}: {error.msg}") from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits, lists in lists in lists
            raise TraceError(f"{where}: JSON that cannot be read: {error}") from None
        if isinstance(raw, dict) and raw.get("version", VERSION) != VERSION:
            raise TraceError(
                f"{where}: version is {raw['version']!r}, this package reads {VERSION}; record it again"
            )
        check_trace(raw, where)
        return cls(
            prompt_ids=raw["prompt_ids"],
            steps=[_step_from_dict(step) for step in raw["steps"]],
            settings=raw["settings"],
            prefill=raw["prefill"],
            texts={int(token): text for token, text in raw["texts"].items()},
            plain_seconds=raw.get("plain_seconds"),
        )

    def save(self, path) -> None:
        """Write the JSON form to a file, in one piece."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path) -> Trace:
        """Read a trace file. Raises TraceError naming the file and the line or key at fault."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TraceError(f"{path}: not UTF-8 text at byte {error.start}") from None
        return cls.from_json(text, where=str(path))


def _step_to_dict(step: Step) -> dict:
    content = {
        "tokens": _ints(step.tokens),
        "parents": _ints(step.parents),
        "source": list(step.source),
        "node_tokens": _ints(step.node_tokens),
        "node_logprob": _numbers(step.node_logprob),
        "path": _ints(step.path),
        "probability": _numbers(step.probability),
        "threshold": _numbers(step.threshold),
        "reason": list(step.reason),
        "length": int(step.length),
        "times": {phase: _number(seconds) for phase, seconds in step.times.items()},
    }
    if step.reading is not None:
        floats = {key: _numbers(getattr(step.reading, key)) for key in READING_FLOATS}
        content["reading"] = {"best": _ints(step.reading.best), **floats}
    return content


def _step_from_dict(raw: dict) -> Step:
    floats = {key: np.array(raw[key], dtype=float) for key in STEP_FLOATS}
    reading = raw.get("reading")
    if reading is not None:
        arrays = {key: np.array(reading[key], dtype=float) for key in READING_FLOATS}
        reading = Reading(np.array(reading["best"], dtype=np.int32), **arrays)
    return Step(
        **{
            **raw,
            **floats,
            "node_tokens": np.array(raw["node_tokens"], dtype=np.int32),
            "reading": reading,
            "parents": tuple(raw["parents"]),
            "source": tuple(raw["source"]),
            "path": tuple(raw["path"]),
            "reason": tuple(raw["reason"]),
        }
    )


def _ints(values) -> list[int]:
    return [int(value) for value in values]


def _numbers(values) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")
