"""Writes README's result tables from the result files: `python -m medusa_core.readme`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from medusa_core import peer_summary
from medusa_core.runtime import ROOT
from medusa_core.summary import PLAIN

BEGIN = "<!-- results: begin; written by `python -m medusa_core.readme` -->"
END = "<!-- results: end -->"
RESULTS = ("benchmark.json", "train_medusa1.json")
PEERS = "peers.json"  # may be missing: it takes programs that not everybody installs


def tables(root: Path = ROOT) -> str:
    """The tables in Markdown, from artifacts/results below `root`."""
    bench, training = (_read(root / "artifacts" / "results" / name) for name in RESULTS)
    config, machine = bench["config"], bench["machine"]
    questions, tokens = bench["summary"][0]["prompts"], config["max_new_tokens"]
    lines = [
        f"{questions} questions, up to {tokens} tokens each, on {_machine(machine)}; batch size 1, base in "
        f"{config['dtype']}, a tree of {len(config['choices'])} nodes below the root:",
        "",
        *_speed(bench),
        "",
        f"How often each head's guess is the token that comes, on {training['held_out_positions']:,} answer tokens "
        f"whose prompts were held out (trained on {training['positions']:,}):",
        "",
        *_accuracy(training["summary"]),
    ]
    if (root / "artifacts" / "results" / PEERS).exists():
        lines += ["", *_peers(_read(root / "artifacts" / "results" / PEERS))]
    return "\n".join(lines)


def updated(text: str, content: str) -> str:
    """`text` with what stands between the markers replaced; raises ValueError when a marker is not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must hold {BEGIN!r} and {END!r} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}"


def _speed(bench: dict) -> list[str]:
    rows = []
    for row, run in zip(bench["summary"], bench["runs"], strict=True):
        plain, samples = row["name"] == PLAIN, run["samples"]
        same = sum(sample["text"] == sample["plain_text"] for sample in samples if not plain)
        name = "base alone" if plain else row["name"]
        acceptance = "sampling" if plain and row["temperature"] else row["acceptance"]
        numbers = [f"{row[key]:.2f}" for key in ("tokens_per_step", "overhead", "speedup")]
        speed = f"{row['tokens_per_second']:.1f}"
        texts = "" if plain else f"{same} of {len(samples)}"
        rows.append([name, acceptance, f"{row['temperature']:g}", speed, *numbers, texts])
    columns = ("heads", "acceptance", "T", "tokens/s", "tokens/step", "overhead", "speed-up")
    return _markdown([*columns, "same text as base alone"], rows)


def _accuracy(summary: list[dict]) -> list[str]:
    kept = [row for row in summary if row["heads"] == "kept"]
    heads = [f"head {row['head']}" for row in kept]
    rows = [[rank, *(f"{row[rank]:.1%}" for row in kept)] for rank in ("top-1", "top-5")]
    return _markdown(["", *heads], rows)


def _peers(result: dict) -> list[str]:
    config, found = result["config"], result["summary"]["peers"]
    opening = (
        f"Beside other programs, all answering the same {found[0]['questions']} questions in turns in one run, up to "
        f"{config['max_new_tokens']} tokens each, on {_machine(result['machine'])}; tokens/s with the prompt and "
        "without loading, median over the questions:"
    )
    rows = []
    for row in found:
        speed, spread = f"{row['tokens_per_second']:.1f}", f"{row['low']:.1f} to {row['high']:.1f}"
        same = "" if row["name"] == peer_summary.REFERENCE else f"{row['same']} of {row['questions']}"
        rows.append([peer_summary.label(row["name"], config), speed, spread, f"{row['tokens']:,}", same])
    columns = ["", "tokens/s", "10% to 90% of questions", "tokens", "same text as ours plain"]
    return [opening, "", *_markdown(columns, rows), "", " ".join(peer_summary.notes(result))]


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _machine(machine: dict) -> str:
    return f"{machine['threads']} threads, {machine['cpu']} ({', '.join(machine['instruction_sets'])})"


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `make study PARAMS=params/study.yaml` makes it") from None


def main(root: Path = ROOT) -> int:
    """Rewrite README.md where its tables differ from the result files; returns the exit status."""
    path = root / "README.md"
    try:
        path.write_text(updated(path.read_text(encoding="utf-8"), tables(root)), encoding="utf-8")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
