"""Step and Trace: what a decoding run did, as data and as JSON; everything that people look at reads this."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medusa_core.files import replacing
from medusa_core.tree import Tree, TreeError

VERSION = 2
SOURCES = ("root", "heads", "context", "both")


class TraceError(ValueError):
    """A trace file that is not JSON, has another version, or lacks or mistypes a key."""


@dataclass(eq=False)
class Step:
    """One forward of the base model: n drafted nodes verified, a path accepted, a next token chosen.

    tokens: the ids that the step produced, accepted nodes and then the bonus token (fewer where text ended).
    parents: each node's parent, -1 for the root; source: who guessed it, one of SOURCES.
    node_tokens (n,) int32: root first. node_logprob (n,): the drafter's log-probability of each node given its
    parent. path: accepted node indices, root first. probability, threshold (n,), reason: of accept.Verdict;
    NaN where nothing was asked. length: tokens in the cache before the step. times: seconds of each phase
    ("verify", "accept", "commit", "draft"). A step of plain decoding has one node.
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

    @property
    def tree(self) -> Tree:
        """The tree that was verified."""
        return Tree.from_parents(self.parents)


@dataclass(eq=False)
class Trace:
    """A recorded generation: prompt ids, steps, settings, and seconds of the prefill.

    texts maps every token id that occurs to the text to show for it.
    """

    prompt_ids: list[int]
    steps: list[Step]
    settings: dict = field(default_factory=dict)
    prefill: float = 0.0
    texts: dict[int, str] = field(default_factory=dict)

    @property
    def tokens(self) -> list[int]:
        """All ids that the steps produced, in order."""
        return [token for step in self.steps for token in step.tokens]

    def to_json(self) -> str:
        """JSON text; numbers keep 6 significant digits, NaN becomes null."""
        return json.dumps(
            {
                "version": VERSION,
                "prompt_ids": _ints(self.prompt_ids),
                "settings": self.settings,
                "prefill": _number(self.prefill),
                "texts": {str(token): text for token, text in self.texts.items()},
                "steps": [_step_to_dict(step) for step in self.steps],
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str, where: str = "trace") -> Trace:
        """Read what `to_json` wrote. Raises TraceError naming `where` and the line or key at fault."""
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise TraceError(f"{where}: not JSON at line {error.lineno}: {error.msg}") from None
        if isinstance(raw, dict) and raw.get("version", VERSION) != VERSION:
            raise TraceError(
                f"{where}: version is {raw['version']!r}, this package reads {VERSION}; record it again"
            )
        _check(raw, _TRACE_KEYS, where, at="")
        for i, step in enumerate(raw["steps"]):
            at = f"steps[{i}]"
            _check(step, _STEP_KEYS, where, at=at)
            _check_step(step, where, at)
        return cls(
            prompt_ids=raw["prompt_ids"],
            steps=[_step_from_dict(step) for step in raw["steps"]],
            settings=raw["settings"],
            prefill=raw["prefill"],
            texts={int(token): text for token, text in raw["texts"].items()},
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
    return {
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


def _step_from_dict(raw: dict) -> Step:
    floats = {key: np.array(raw[key], dtype=float) for key in ("node_logprob", "probability", "threshold")}
    node_tokens = np.array(raw["node_tokens"], dtype=np.int32)
    return Step(
        **{
            **raw,
            **floats,
            "node_tokens": node_tokens,
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


def _is_int(value) -> bool:
    return type(value) is int  # bool is an int to isinstance


def _is_number(value) -> bool:
    return type(value) in (int, float)


def _list_of(test: Callable) -> Callable:
    return lambda value: isinstance(value, list) and all(map(test, value))


_INTS = ("a list of whole numbers", _list_of(_is_int))
_FLOATS = ("a list of numbers or nulls", _list_of(lambda value: value is None or _is_number(value)))
_TRACE_KEYS = {
    "version": ("a whole number", _is_int),
    "prompt_ids": _INTS,
    "settings": ("an object", lambda value: isinstance(value, dict)),
    "prefill": ("a number of seconds", _is_number),
    "texts": (
        "an object of token id to text",
        lambda value: (
            isinstance(value, dict) and all(k.isdecimal() and isinstance(t, str) for k, t in value.items())
        ),
    ),
    "steps": ("a list", lambda value: isinstance(value, list)),
}
_STEP_KEYS = {
    "tokens": _INTS,
    "parents": _INTS,
    "source": (f"a list of {', '.join(SOURCES)}", _list_of(lambda value: value in SOURCES)),
    "node_tokens": _INTS,
    "node_logprob": _FLOATS,
    "path": _INTS,
    "probability": _FLOATS,
    "threshold": _FLOATS,
    "reason": ("a list of texts", _list_of(lambda value: isinstance(value, str))),
    "length": ("a whole number", _is_int),
    "times": (
        "an object of phase to seconds",
        lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    ),
}


def _check(raw, keys: dict, where: str, at: str) -> None:
    if not isinstance(raw, dict):
        raise TraceError(f"{where}: {at or 'the whole file'} must be an object, got {type(raw).__name__}")
    prefix = f"{at}." if at else ""
    for key, (expected, test) in keys.items():
        if key not in raw:
            raise TraceError(f"{where}: key {prefix}{key} is missing; expected {expected}")
        if not test(raw[key]):
            raise TraceError(
                f"{where}: key {prefix}{key} must be {expected}, got {json.dumps(raw[key])[:60]}"
            )
    if unknown := sorted(set(raw) - set(keys)):
        raise TraceError(f"{where}: key {prefix}{unknown[0]} is unknown; expected {', '.join(keys)}")


def _check_step(step: dict, where: str, at: str) -> None:
    nodes = len(step["parents"])
    try:
        Tree.from_parents(step["parents"])
    except TreeError as error:
        raise TraceError(f"{where}: key {at}.parents: {error}") from None
    for key in ("node_tokens", "source", "node_logprob", "probability", "threshold", "reason"):
        if len(step[key]) != nodes:
            raise TraceError(f"{where}: key {at}.{key} has {len(step[key])} entries for {nodes} nodes")
    if not step["path"] or step["path"][0] != 0 or not all(0 <= node < nodes for node in step["path"]):
        raise TraceError(
            f"{where}: key {at}.path must start at node 0 and stay below {nodes}, got {step['path']}"
        )
