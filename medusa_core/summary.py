"""From benchmark samples to the numbers that tables and figures show: a flat row a run and a category."""

from __future__ import annotations

from statistics import median

from medusa_core import resample
from medusa_core.tables import aligned

PLAIN = "plain"


def summarise(runs: list[dict]) -> list[dict]:
    """One flat row a run.

    tokens_per_second counts the prompt's forward and never the loading. tokens_per_step, step_ms and
    decode_tokens_per_second leave out the prompt's forward and the one token it gives; None where no step
    follows.
    Speeds and step_ms are medians over the repeats, tokens_per_second_min and _max the spread.
    overhead = step_ms / plain_step_ms and speedup = tokens_per_second / plain's, against the plain run of the
    same temperature; speedup_low, speedup_high: where 95 % of it lie with other questions (resample.py).
    identical: prompts whose greedy tokens equal plain decoding's, None when sampling.
    """
    rows = []
    for run in runs:
        plain, (low, high) = plain_of(run, runs), interval(run, runs)
        rows.append(
            {
                **_labels(run),
                **_rates(run["samples"], plain["samples"]),
                "speedup_low": low,
                "speedup_high": high,
                "identical": _identical(run, plain),
            }
        )
    return rows


def by_category(runs: list[dict]) -> list[dict]:
    """One flat row a run and category, keys as in `summarise` plus "category"."""
    rows = []
    for run in runs:
        plain = plain_of(run, runs)
        for category in dict.fromkeys(sample["category"] for sample in run["samples"]):
            own, others = (
                [sample for sample in each["samples"] if sample["category"] == category]
                for each in (run, plain)
            )
            rows.append({**_labels(run), "category": category, **_rates(own, others)})
    return rows


def table(rows: list[dict]) -> str:
    """The summary as a text table."""
    head = "acceptance, T, tokens/step, tokens/s, step ms, overhead, speed-up, 95%, identical"
    lines = [("", *head.split(", "))]
    for row in rows:
        identical = "" if row["identical"] is None else f"{row['identical']}/{row['prompts']}"
        numbers = ("tokens_per_step", "tokens_per_second", "step_ms", "overhead", "speedup")
        cells = ["-" if row[key] is None else f"{row[key]:.2f}" for key in numbers]
        cells.append("" if row["name"] == PLAIN else f"{row['speedup_low']:.2f} to {row['speedup_high']:.2f}")
        lines.append((row["name"], row["acceptance"], f"{row['temperature']:g}", *cells, identical))
    return aligned(lines, (False, False, *[True] * 8))


def by_way(rows: list[dict]) -> dict[str, dict]:
    """The drafted runs, or their summary rows, by "name, acceptance"."""
    return {f"{row['name']}, {row['acceptance']}": row for row in rows if row["name"] != PLAIN}


def of_acceptance(result: dict, acceptance: str) -> dict:
    """A benchmark's result with only those of its drafted runs that have this acceptance."""
    drafted = {
        part: [row for row in result[part] if row["name"] != PLAIN and row["acceptance"] == acceptance]
        for part in ("runs", "summary", "categories")
    }
    return {**result, **drafted}


def plain_of(run: dict, runs: list[dict]) -> dict:
    """The plain decoding that a run is compared with: of its base and temperature."""
    wanted = run.get("plain", PLAIN), run["temperature"]  # results before several bases do not name it
    return next(each for each in runs if (each["name"], each["temperature"]) == wanted)


def interval(run: dict, runs: list[dict]) -> tuple[float, float]:
    """Where 95 % of a run's speed-ups lie with other questions (resample.py)."""
    return resample.interval(run["samples"], plain_of(run, runs)["samples"])


def _labels(run: dict) -> dict:
    return {key: run[key] for key in ("name", "acceptance", "temperature")}


def _rates(samples: list[dict], plain: list[dict]) -> dict:
    repeats, plain_repeats = _totals(samples), _totals(plain)
    per_second = [r["tokens"] / r["seconds"] for r in repeats]
    step_ms, plain_step_ms = (
        _median(totals, "decode_seconds", "decode_steps", 1e3) for totals in (repeats, plain_repeats)
    )
    return {
        "prompts": len(samples),
        "tokens": sum(sample["tokens"] for sample in samples),
        "tokens_per_step": _median(repeats, "decode_tokens", "decode_steps"),
        "tokens_per_second": median(per_second),
        "tokens_per_second_min": min(per_second),
        "tokens_per_second_max": max(per_second),
        "decode_tokens_per_second": _median(repeats, "decode_tokens", "decode_seconds"),
        "step_ms": step_ms,
        "plain_step_ms": plain_step_ms,
        "overhead": step_ms / plain_step_ms if step_ms and plain_step_ms else None,
        "speedup": median(per_second) / median(r["tokens"] / r["seconds"] for r in plain_repeats),
    }


def _totals(samples: list[dict]) -> list[dict]:
    """Sums over the samples, one dict a repeat; decode_... without the prompts' forwards."""
    rows = []
    for each in zip(*(sample["repeats"] for sample in samples), strict=True):
        row = {key: sum(one[key] for one in each) for key in ("tokens", "steps", "seconds", "prefill")}
        row["decode_tokens"], row["decode_steps"] = row["tokens"] - len(each), row["steps"] - len(each)
        row["decode_seconds"] = row["seconds"] - row["prefill"]
        rows.append(row)
    return rows


def _median(totals: list[dict], over: str, under: str, scale: float = 1.0) -> float | None:
    """Median over the repeats of a quotient; None when no step followed the prompts' forwards."""
    if not all(row["decode_steps"] for row in totals):
        return None
    return median(scale * row[over] / row[under] for row in totals)


def _identical(run: dict, plain: dict) -> int | None:
    if run is plain or run["temperature"] > 0:
        return None
    pairs = zip(run["samples"], plain["samples"], strict=True)
    return sum(own["token_ids"] == other["token_ids"] for own, other in pairs)
