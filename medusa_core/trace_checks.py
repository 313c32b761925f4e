"""Whether raw JSON is a trace: every key, its type, and that the lists of a step fit each other."""

from __future__ import annotations

import json
from collections.abc import Callable

from medusa_core.accept import REASONS
from medusa_core.tree import Tree, TreeError

SOURCES = ("root", "heads", "context", "corpus", "both")  # both: a head and a text
STEP_FLOATS = ("node_logprob", "probability", "threshold")
READING_FLOATS = ("logprob", "entropy", "tempered_probability", "tempered_entropy")


class TraceError(ValueError):
    """A trace file that is not JSON, has another version, or lacks or mistypes a key."""


def check_trace(raw, where: str) -> None:
    """Raise TraceError naming `where`, the key and what was expected there, unless `raw` is a trace."""
    _check(raw, _TRACE_KEYS, where, at="", optional=_TRACE_OPTIONAL)
    known = {key: _SETTINGS[key] for key in _SETTINGS.keys() & raw["settings"].keys()}
    _check({key: raw["settings"][key] for key in known}, known, where, at="settings")
    for i, step in enumerate(raw["steps"]):
        at = f"steps[{i}]"
        _check(step, _STEP_KEYS, where, at=at, optional=_STEP_OPTIONAL)
        _check_step(step, where, at)


def _is_int(value) -> bool:
    return type(value) is int and -1 <= value < 2**31  # bool is an int to isinstance


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # JSON has no NaN, but Python reads one


def _list_of(test: Callable) -> Callable:
    return lambda value: isinstance(value, list) and all(map(test, value))


_INTS = ("a list of whole numbers", _list_of(_is_int))
_NUMBER = ("a number", _is_number)
_TEXT = ("a text", lambda value: isinstance(value, str))
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
_TRACE_OPTIONAL = {"plain_seconds": ("a list of numbers", _list_of(_is_number))}
# Settings are free, but those that figures and criteria read must be what they take them for.
_SETTINGS = dict.fromkeys(("temperature", "epsilon", "delta", "reading_temperature"), _NUMBER)
_SETTINGS |= dict.fromkeys(("acceptance", "heads", "drafts", "question", "category"), _TEXT)
_STEP_KEYS = {
    "tokens": _INTS,
    "parents": _INTS,
    "source": (f"a list of {', '.join(SOURCES)}", _list_of(lambda value: value in SOURCES)),
    "node_tokens": _INTS,
    "node_logprob": _FLOATS,
    "path": _INTS,
    "probability": _FLOATS,
    "threshold": _FLOATS,
    "reason": (f"a list of {', '.join(REASONS)}", _list_of(lambda value: value in REASONS)),
    "length": ("a whole number", _is_int),
    "times": (
        "an object of phase to seconds",
        lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    ),
}
_READING_KEYS = {"best": _INTS, **dict.fromkeys(READING_FLOATS, _FLOATS)}
_STEP_OPTIONAL = {"reading": ("an object", lambda value: isinstance(value, dict))}


def _check(raw, keys: dict, where: str, at: str, optional: dict | None = None) -> None:
    if not isinstance(raw, dict):
        raise TraceError(f"{where}: {at or 'the whole file'} must be an object, got {type(raw).__name__}")
    prefix, optional = f"{at}." if at else "", optional or {}
    for key, (expected, test) in {**keys, **optional}.items():
        if key in optional and key not in raw:
            continue
        if key not in raw:
            raise TraceError(f"{where}: key {prefix}{key} is missing; expected {expected}")
        if not test(raw[key]):
            raise TraceError(
                f"{where}: key {prefix}{key} must be {expected}, got {json.dumps(raw[key])[:60]}"
            )
    if unknown := sorted(raw.keys() - keys.keys() - optional.keys()):
        names = ", ".join([*keys, *optional])
        raise TraceError(f"{where}: key {prefix}{unknown[0]} is unknown; expected {names}")


def _check_step(step: dict, where: str, at: str) -> None:
    parents, path = step["parents"], step["path"]
    try:
        Tree.from_parents(parents)
    except TreeError as error:
        raise TraceError(f"{where}: key {at}.parents: {error}") from None
    lists = {f"{at}.{key}": step[key] for key in ("node_tokens", "source", "reason", *STEP_FLOATS)}
    if "reading" in step:
        _check(step["reading"], _READING_KEYS, where, at=f"{at}.reading")
        lists |= {f"{at}.reading.{key}": values for key, values in step["reading"].items()}
    for key, values in lists.items():
        if len(values) != len(parents):
            raise TraceError(f"{where}: key {key} has {len(values)} entries for {len(parents)} nodes")
    if [source == "root" for source in step["source"]] != [parent < 0 for parent in parents]:
        raise TraceError(f"{where}: key {at}.source must be root for node 0 and for no other")
    if not path or path[0] != 0 or not all(0 <= node < len(parents) for node in path):
        raise TraceError(
            f"{where}: key {at}.path must start at node 0 and stay below {len(parents)}, got {path}"
        )
    if [parents[node] for node in path[1:]] != path[:-1]:
        raise TraceError(f"{where}: key {at}.path must go from parent to child, got {path}")
    accepted = [step["node_tokens"][node] for node in path[1:]]
    if len(step["tokens"]) > len(path) or step["tokens"][: len(accepted)] != accepted[: len(step["tokens"])]:
        raise TraceError(
            f"{where}: key {at}.tokens must be the path's tokens {accepted} and one more, got {step['tokens']}"
        )
