"""Result files as the dashboard needs them: checked value by value, so that figures draw them or nobody does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medusa_core.cost import StepCost
from medusa_core.path_shares import PathShares
from medusa_core.peer_summary import REFERENCE
from medusa_core.summary import PLAIN

EXPECTED = ("benchmark.json", "search_trees.json", "peers.json")  # and train_*.json, comparison.json if any


class ResultError(ValueError):
    """A result file that cannot be used; the message names file and key and says what was expected."""


@dataclass(frozen=True)
class Sweep:
    """Trees of 0, 1, ... nodes below the root: expected tokens a step and speed-up; measured: {rows, speedup, name}."""

    tokens: list[float]
    speedup: list[float]
    measured: list[dict] = field(default_factory=list)


@dataclass
class Results:
    """What the result files of a folder hold, by kind; problems: a sentence for each that is missing or damaged.

    benches: by file name; accuracy: (top-1, top-5) by depth, and sweeps, by the heads' name.
    """

    folder: Path
    benches: dict[str, dict] = field(default_factory=dict)
    accuracy: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    peers: dict | None = None
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.damaged, *self.missing]


def read(folder: Path) -> Results:
    """Read every result file of `folder` that the dashboard shows; what is wrong with one stands in `problems`."""
    results = Results(folder)
    training = sorted(file.name for file in folder.glob("train_*.json"))
    for name in (*EXPECTED, *training, "comparison.json"):
        file = folder / name
        if not file.exists():
            if name in EXPECTED:
                results.missing.append(f"{file} is not there: `make study PARAMS=params/study.yaml` makes it")
            continue
        try:
            _READERS[name.split("_")[0].removesuffix(".json")](results, name, _load(file))
        except ResultError as error:
            results.damaged.append(f"{file}: {error}; remove it or make it again")
    if not training:
        results.missing.append(f"{folder / 'train_NAME.json'} is not there: chapter 04 makes one")
    return results


def head_of(row: dict) -> str:
    """The heads that a run, or a row of its summary, decodes with."""
    return row["name"].split(" + ")[0]


def way_of(row: dict) -> str:
    """A run's acceptance, and who guesses beside the heads."""
    return " + ".join([row["acceptance"], *row["name"].split(" + ")[1:]])


def temperature_of(row: dict) -> str:
    """The temperature of a run, or of a row of its summary, as it is written and chosen."""
    return f"{row['temperature']:g}"


def is_plain(row: dict) -> bool:
    """Whether a run, or a row of its summary, decodes without guesses; heads may name the base that they adapted."""
    return row["name"].split(" ")[0] == PLAIN


def _read_bench(results: Results, name: str, content: dict) -> None:
    check(content, {**SUMMARY, "runs": [RUN]})
    results.benches[name] = content


def _read_training(results: Results, name: str, content: dict) -> None:
    check(content, {"histories": {ANY: {"held_out": [ACCURACY]}}})
    histories = content["histories"]
    own = str(content.get("kept", "kept"))
    if own in histories:
        kept = {Path(name).stem.removeprefix("train_"): histories[own]}
    elif "kept" in content:
        raise ResultError(f'"histories" has no "{own}", the run that was kept')
    else:
        kept = histories  # every run made heads of its own
    for heads, history in kept.items():
        last = history["held_out"][-1]
        results.accuracy[heads] = last["top1"], last["top5"]


def _read_search(results: Results, _: str, content: dict) -> None:
    way = {"name": TEXT, "rows_per_step": POSITIVE, "speedup": POSITIVE}
    check(
        content,
        {"config": {"heads": TEXT}, **COSTS, "draft_seconds": NUMBER, "shares": [PATH_SHARE], "ways": [way]},
    )
    measured = [
        {"rows": w["rows_per_step"], "speedup": w["speedup"], "name": w["name"]} for w in content["ways"]
    ]
    results.sweeps[content["config"]["heads"]] = _sweep(content, content, content["draft_seconds"], measured)


def _read_peers(results: Results, _: str, content: dict) -> None:
    check(content, PEERS)
    own = next((peer["samples"] for peer in content["peers"] if peer["name"] == REFERENCE), None)
    if own is None:
        raise ResultError(f'"peers" has no "{REFERENCE}", with which the others are compared')
    check(own, [{"prefill": NUMBER}], REFERENCE)
    if any(sample["prefill"] >= sample["seconds"] for sample in own):
        raise ResultError(f"{REFERENCE}: a prefill takes longer than its whole answer")
    results.peers = content


def _read_comparison(results: Results, name: str, content: dict) -> None:
    check(content, {**COSTS, "heads": [{"name": TEXT, **ACCURACY, "shares": [PATH_SHARE], "draft_ms": {ANY: POSITIVE}}],
                    "bench": SUMMARY})  # fmt: skip
    results.benches[name] = {"runs": [], **{key: content["bench"][key] for key in SUMMARY}}
    for row in content["heads"]:
        results.accuracy.setdefault(row["name"], (row["top1"], row["top5"]))
        draft_seconds = min(row["draft_ms"].values()) / 1e3
        results.sweeps.setdefault(row["name"], _sweep(content, row, draft_seconds, []))


def _sweep(costs: dict, row: dict, draft_seconds: float, measured: list[dict]) -> Sweep:
    shares = PathShares({tuple(path): share for path, share in row["shares"]})
    speedup = shares.curve(StepCost(tuple(costs["step_seconds"]), draft_seconds)).tolist()
    tokens = [1.0]
    for share in list(shares.share.values())[: len(speedup) - 1]:
        tokens.append(tokens[-1] + share)
    return Sweep(tokens, speedup, measured)


_READERS: dict[str, Callable[[Results, str, dict], None]] = {
    "benchmark": _read_bench,
    "train": _read_training,
    "search": _read_search,
    "peers": _read_peers,
    "comparison": _read_comparison,
}


# ------------------------------------------------------------------------------------ what values must be


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_path_share(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], list)
        and all(isinstance(rank, int) for rank in value[0])
        and _is_number(value[1])
    )


def _is_histogram(value: object) -> bool:
    """Empty where the prompt's own forward gave the whole answer."""
    return isinstance(value, dict) and all(k.isdigit() and _is_number(n) for k, n in value.items())


ANY = "any key"
TEXT = "a text", lambda value: isinstance(value, str)
NAME = "a text or a number", lambda value: isinstance(value, str) or _is_number(value)
FLAG = "true or false", lambda value: isinstance(value, bool)
NUMBER = "a number", _is_number
POSITIVE = "a number above 0", lambda value: _is_number(value) and value > 0
OPTIONAL = "a number or null", lambda value: value is None or _is_number(value)
SHARE = "a share from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1
PATH_SHARE = "[ranks, share]", _is_path_share
HISTOGRAM = "steps by number of tokens", _is_histogram

WAY = {"name": TEXT, "acceptance": TEXT, "temperature": NUMBER}
RATES = {**WAY, "speedup": NUMBER, "tokens_per_step": OPTIONAL, "overhead": OPTIONAL}
SUMMARY = {"summary": [RATES], "categories": [{**RATES, "category": TEXT}]}
SAMPLE = {"category": TEXT, "tokens": POSITIVE, "steps": POSITIVE, "seconds": POSITIVE,
          "times": {"prefill": NUMBER, ANY: NUMBER}, "tokens_per_step_histogram": HISTOGRAM}  # fmt: skip
RUN = {**WAY, "samples": [SAMPLE]}
ACCURACY = {"top1": [SHARE], "top5": [SHARE]}
COSTS = {"step_seconds": [POSITIVE]}
ANSWER = {"question_id": NAME, "category": TEXT, "tokens": POSITIVE, "seconds": POSITIVE, "same": FLAG}
SPEED = {"name": TEXT, "tokens_per_second": POSITIVE, "low": POSITIVE, "high": POSITIVE, "same": NUMBER,
         "questions": NUMBER}  # fmt: skip
PEERS = {
    "config": {"heads": TEXT, "drafts": TEXT, "bytes_per_token": POSITIVE},
    "peers": [{"name": TEXT, "samples": [ANSWER]}],
    "bandwidth": [{"question_id": NAME, "bytes_per_second": [POSITIVE]}],
    "waiting_seconds": NUMBER,
    "summary": [SPEED],
    "roofline": {"tokens_per_second": POSITIVE},
}


def check(value: object, shape, place: str = "") -> None:
    """Compare a JSON value with a shape: {key: shape}, with ANY for all keys; [shape of its entries]; or a leaf above.

    Raises ResultError with the place of the first value that does not fit, and what was expected there.
    """
    where = place or "the file"
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ResultError(f"{where}: an object was expected, not {_shown(value)}")
        for key, inner in shape.items():
            if key != ANY and key not in value:
                raise ResultError(f'{where}: "{key}" is missing')
            for name in value if key == ANY else (key,):
                check(value[name], inner, f"{place}, {name}" if place else name)
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            raise ResultError(f"{where}: a list with entries was expected, not {_shown(value)}")
        for number, each in enumerate(value):
            check(each, shape[0], f"{place}[{number}]")
    elif not shape[1](value):
        raise ResultError(f"{where}: {shape[0]} was expected, not {_shown(value)}")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _load(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"not JSON ({error})") from error
    except OSError as error:
        raise ResultError(f"cannot be read ({error.strerror})") from error
