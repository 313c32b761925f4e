"""From a benchmark of peers to the numbers that tables and figures show."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, median

import numpy as np

from medusa_core import answers
from medusa_core.tables import aligned

REFERENCE = "ours plain"  # whose answers the others' are compared with, and who measures the memory


def summarise(result: Mapping) -> dict:
    """{"summary": a row a peer, "roofline": what memory allows, "waiting_share": cores kept busy by waiting peers}.

    summary: tokens_per_second is the median over the questions, low and high the 10th and 90th percentiles, prompt
    included; same counts the answers that equal plain decoding's.
    roofline: bytes_per_second is the mean, low and high the extremes, of each measurement's best pass;
    tokens_per_second = that by bytes_per_token; decode_tokens_per_second is plain decoding's median without the prompt;
    share = its speed by what the memory allowed at the time, the median over the questions with a measurement (both
    None when no answer has two tokens, share also when none was measured).
    """
    rows = [_row(peer) for peer in result["peers"]]
    shares, speeds, rates = _of_the_memory(result)
    seconds = sum(sample["seconds"] for peer in result["peers"] for sample in peer["samples"])
    size = result["config"]["bytes_per_token"]
    rate = mean(rates.values())
    roofline = {
        "bytes_per_second": rate,
        "low": min(rates.values()),
        "high": max(rates.values()),
        "bytes_per_token": size,
        "tokens_per_second": rate / size,
        "decode_tokens_per_second": median(speeds.values()) if speeds else None,
        "share": median(shares) if shares else None,
    }
    return {"summary": rows, "roofline": roofline, "waiting_share": result["waiting_seconds"] / seconds}


def _of_the_memory(result: Mapping) -> tuple[list[float], dict, dict]:
    """Plain decoding's speed by what the memory allowed at the time, then both, by question: tokens/s and bytes/s."""
    rates = {each["question_id"]: max(each["bytes_per_second"]) for each in result["bandwidth"]}
    plain = next(peer["samples"] for peer in result["peers"] if peer["name"] == REFERENCE)
    speeds = {
        s["question_id"]: (s["tokens"] - 1) / (s["seconds"] - s["prefill"]) for s in plain if s["tokens"] > 1
    }
    size = result["config"]["bytes_per_token"]
    return [speeds[name] * size / rate for name, rate in rates.items() if name in speeds], speeds, rates


def _row(peer: Mapping) -> dict:
    samples = peer["samples"]
    low, middle, high = np.percentile([s["tokens"] / s["seconds"] for s in samples], (10, 50, 90)).tolist()
    return {
        "name": peer["name"],
        "questions": len(samples),
        "tokens": sum(sample["tokens"] for sample in samples),
        "tokens_per_second": middle,
        "low": low,
        "high": high,
        "same": sum(sample["same"] for sample in samples),
    }


def table(result: Mapping) -> str:
    """The summary as a text table, with notes below."""
    lines = [("", "tokens/s", "10%", "90%", "tokens", "same as plain")]
    for row in result["summary"]:
        speeds = [f"{row[key]:.1f}" for key in ("tokens_per_second", "low", "high")]
        lines.append(
            (
                label(row["name"], result["config"]),
                *speeds,
                f"{row['tokens']:,}",
                f"{row['same']}/{row['questions']}",
            )
        )
    return "\n".join([aligned(lines, (False, *[True] * 5)), "", *notes(result)])


def label(name: str, config: Mapping) -> str:
    """A peer's name, and for "ours" who guesses."""
    if name != "ours":
        return name
    return f"ours, {answers.who(config['heads'], config['drafts'])}"


def notes(result: Mapping) -> list[str]:
    """What belongs below the table: the roofline in words, how quiet waiting was, versions, absent peers."""
    config, (shares, _, rates) = result["config"], _of_the_memory(result)
    size, low, high = config["bytes_per_token"], min(rates.values()), max(rates.values())
    bound = (
        f"Reading the bfloat16 weights moves {size / 1e6:.0f} MB a token. Measured beside {len(rates)} of the "
        f"questions, the memory gave {low / 1e9:.0f} to {high / 1e9:.0f} GB/s, which allows {low / size:.0f} to "
        f"{high / size:.0f} tokens/s"
    )
    if shares:
        bound += (
            f"; after the prompt, plain decoding made {median(shares):.0%} of what it allowed at the time (median of "
            f"{len(shares)} questions; {min(shares):.0%} to {max(shares):.0%})"
        )
    waiting = f"Programs that waited for their turn used {result['waiting_share']:.1%} of a core."
    versions = sorted(
        {f"{name} {version}" for own in config["versions"].values() for name, version in own.items()}
    )
    absent: dict[str, list[str]] = {}
    for one in config["absent"]:
        absent.setdefault(f"({one['reason']}); {one['install']}.", []).append(one["name"])
    missing = [f"Absent: {', '.join(names)} {why}" for why, names in absent.items()]
    return [f"{bound}.", waiting, f"Versions: {', '.join(versions)}.", *missing]
