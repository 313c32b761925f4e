"""Writes README's result tables from the result files: `python -m medusa_core.readme`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from medusa_core import commands, peer_summary, readme_processors
from medusa_core.files import replacing
from medusa_core.readme_processors import SPEED, STEPS
from medusa_core.results import head_of, way_of
from medusa_core.runtime import ROOT
from medusa_core.stamp import in_words
from medusa_core.summary import PLAIN, interval, plain_of
from medusa_core.tables import markdown

BEGIN = "<!-- results: begin; written by `python -m medusa_core.readme` -->"
END = "<!-- results: end -->"
WHAT = {
    "heads": "nodes below the root of the heads' tree",
    "both": "guesses of the heads to choose from where the context guesses, too",
    "all": "guesses of the heads to choose from where context and corpus guess, too",
}


def tables(root: Path = ROOT) -> str:
    """The tables in Markdown, from artifacts/results below `root`; ValueError names a file that is no good."""
    folder = root / "artifacts" / "results"
    found = (part(folder) for part in PARTS)
    return "\n\n".join("\n".join(lines) for lines in found if lines)


def _if_there(folder: Path, name: str, write: Callable) -> list[str]:
    return _told(folder / name, write) if (folder / name).exists() else []


def _by_processor(folder: Path, stem: str, opening: str, write: Callable) -> list[str]:
    paths = [folder / f"{stem}{processor}.json" for processor in PROCESSORS]
    return readme_processors.lines(opening, [_told(path, write) for path in paths if path.exists()])


def _told(path: Path, write: Callable):
    """What `write` makes of a result file."""
    result = _read(path)
    try:
        return write(result)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: not as this version writes it ({what}); make it again") from error


def updated(text: str, content: str) -> str:
    """`text` with what stands between the markers replaced; raises ValueError when a marker is not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must hold {BEGIN!r} and {END!r} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.split(END)[1]}"


def _speed(bench: dict) -> list[str]:
    config, nodes = bench["config"], bench["config"]["choices"]
    shapes = [f"{len(nodes[drafts])} {what}" for drafts, what in WHAT.items() if drafts in nodes]
    opening = (
        f"{bench['summary'][0]['prompts']} questions, up to {config['max_new_tokens']} tokens each, on "
        f"{in_words(bench['machine'])}; batch size 1, base in {config['dtype']}, {' and '.join(shapes)}:"
    )
    return [opening, "", *_speed_table(bench)]


def _speed_table(bench: dict) -> list[str]:
    rows = []
    for row, run in zip(bench["summary"], bench["runs"], strict=True):
        plain, samples = row["name"] == PLAIN, run["samples"]
        same = sum(sample["text"] == sample["plain_text"] for sample in samples if not plain)
        name = "base alone" if plain else row["name"]
        acceptance = "sampling" if plain and row["temperature"] else row["acceptance"]
        values = (row[key] for key in ("tokens_per_step", "overhead", "speedup"))
        numbers = ["-" if value is None else f"{value:.2f}" for value in values]
        # Not from the summary, where older results have no interval.
        low, high = interval(run, bench["runs"])
        spread = "" if plain else f"{low:.2f} to {high:.2f}"
        speed = f"{row['tokens_per_second']:.1f}"
        texts = "" if plain else f"{same} of {len(samples)}"
        rows.append([name, acceptance, f"{row['temperature']:g}", speed, *numbers, spread, texts])
    columns = ("heads", "acceptance", "T", "tokens/s", "tokens/step", "overhead", "speed-up", "95%")
    return markdown([*columns, "same text as base alone"], rows)


def _typical_spread(runs: list[dict]) -> float:
    intervals = (interval(run, runs) for run in runs if plain_of(run, runs) is not run)
    return float(np.median([(high - low) / 2 for low, high in intervals]))


def _accuracy(training: dict) -> list[str]:
    opening = (
        f"How often each head's guess is the token that comes, on {training['held_out_positions']:,} answer tokens "
        f"whose prompts were held out (trained on {training['positions']:,}):"
    )
    kept = [row for row in training["summary"] if row["heads"] == "kept"]
    heads = [f"head {row['head']}" for row in kept]
    rows = [[rank, *(f"{row[rank]:.1%}" for row in kept)] for rank in ("top-1", "top-5")]
    return [opening, "", *markdown(["", *heads], rows)]


def _peers(result: dict) -> list[str]:
    config, found = result["config"], result["summary"]
    opening = (
        f"Beside other programs, all answering the same {found[0]['questions']} questions in turns in one run, up to "
        f"{config['max_new_tokens']} tokens each, on {in_words(result['machine'])}; tokens/s with the prompt and "
        "without loading, median over the questions:"
    )
    rows = []
    for row in found:
        speed, spread = f"{row['tokens_per_second']:.1f}", f"{row['low']:.1f} to {row['high']:.1f}"
        same = "" if row["name"] == peer_summary.REFERENCE else f"{row['same']} of {row['questions']}"
        rows.append([peer_summary.label(row["name"], config), speed, spread, f"{row['tokens']:,}", same])
    columns = ["", "tokens/s", "10% to 90% of questions", "tokens", "same text as ours plain"]
    return [opening, "", *markdown(columns, rows), "", " ".join(peer_summary.notes(result))]


def _trees(result: dict) -> list[str]:
    prompts, tokens = result["ways"][0]["prompts"], result["config"]["max_new_tokens"]
    apart = (
        "" if result["config"].get("raced_apart") else ", the raced ones among them,"
    )  # as runs were at first
    opening = (
        f"Ways of guessing on {prompts} prompts held out from training, up to {tokens} tokens each, greedy, on "
        f"{in_words(result['machine'])}, without the prompt's forward; predictions by walking along held-out answers"
        f"{apart} and by measured step times (chapter 08):"
    )
    rows = []
    for way in result["ways"]:
        speed = f"{way['speedup']:.2f}"
        if "predicted_speedup" in way:
            speed += f" ({way['predicted_speedup']:.2f} predicted)"
        texts = f"{way['identical']} of {way['prompts']}"
        cells = [f"{way[key]:.2f}" for key in ("rows_per_step", "tokens_per_step", "overhead")]
        rows.append([way["name"], *cells, f"{way['draft_ms']:.2f}", speed, texts])
    columns = ["", "rows", "tokens/step", "overhead", "draft ms", "speed-up", "same text as plain"]
    return [opening, "", *markdown(columns, rows)]


def _comparison(result: dict) -> list[str]:
    rows, speed = result["heads"], [row for row in result["bench"]["summary"] if row["identical"] is not None]
    lossless = [row for row in speed if row["acceptance"] != "typical"]
    same, all_of = (sum(row[key] for row in lossless) for key in ("identical", "prompts"))
    nodes = list(rows[0]["tokens_per_step"])
    opening = (
        f"All trained heads, on {in_words(result['machine'])}. Top-1 and tokens/step: along held-out greedy answers, "
        "which are easier to guess than those of the table before, half of them sampled; recurrent heads (gated, gru, "
        "lstm, redrafter) hear the true tokens before each guess. Tokens/step: with the best trees of "
        f"{nodes[0]} to {nodes[-1]} nodes of other answers. Speed-up: measured in one race of "
        f"{len(result['bench']['questions'])} questions, up to {result['config']['max_new_tokens']} tokens each, every "
        "set of heads with its tree for this machine, against plain decoding of the base that it drafts for; "
        f"{same:,} of {all_of:,} greedy and exact answers are that base's plain ones. Other questions of the same "
        f"kinds would move a speed-up by {_typical_spread(result['bench']['runs']):.2f} either way (median of the "
        "table, 95 %):"
    )
    ways = list(dict.fromkeys(way_of(row) for row in speed))
    shown = nodes[min(1, len(nodes) - 1)]
    lines = []
    for row in rows:
        own = {way_of(each): each["speedup"] for each in speed if head_of(each) == row["name"]}
        minutes = "" if row["training_seconds"] is None else f"{row['training_seconds'] / 60:.0f}"
        cells = [row["name"], f"{row['parameters'] / 1e6:.2f}", minutes]
        cells.append(" / ".join(f"{100 * value:.0f}" for value in row["top1"]))
        cells += [f"{value:.2f}" for value in row["tokens_per_step"].values()]
        cells.append(f"{row['draft_ms'][shown]:.2f}")
        lines.append([*cells, *(f"{own[way]:.2f}" if way in own else "" for way in ways)])
    columns = ["heads", "million parameters", "minutes of training", "top-1 by depth, %"]
    columns += [f"tokens/step, {n} nodes" for n in nodes] + [f"draft ms, {shown} nodes"]
    return [opening, "", *markdown([*columns, *(f"speed-up, {way}" for way in ways)], lines)]


def _claims(result: dict) -> list[str]:
    opening = (
        f"Claims of the Medusa paper, tested on this model (chapter 12), on {in_words(result['machine'])}:"
    )
    columns = ("claim", "verdict", "figure")
    return [
        opening,
        "",
        *markdown(list(columns), [[row[key] for key in columns] for row in result["summary"]]),
    ]


def _training_speed(result: dict) -> list[str]:
    training, parts = result["training"], []
    for row in result["rows"]:
        what = "with the teacher term" if row["teacher_weight"] else "without a teacher"
        ours, torch = (row["training_seconds"][engine] / 60 for engine in ("jittor", "torch"))
        parts.append(f"{what} {ours:.1f} minutes in Jittor, {torch:.1f} in torch")
    opening = f"Training four heads on {training['positions']:,} cached states, {training['epochs']} passes, "
    opening += f"by the time of an update, in turns, on {in_words(result['machine'])}"
    return [f"{opening}: {'; '.join(parts)}."]


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `make study PARAMS=params/study.yaml` makes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); remove it or make it again") from None


PROCESSORS = ("", "_avx2", "_zen5", "_amx")  # ends of the result files that were made on each
PARTS = (
    lambda folder: _told(folder / "benchmark.json", _speed),  # these two must be there
    lambda folder: _told(folder / "train_medusa1.json", _accuracy),
    partial(_by_processor, stem="benchmark", opening=SPEED, write=readme_processors.speed_row),
    partial(_by_processor, stem="search_trees", opening=STEPS, write=readme_processors.steps_row),
    partial(_if_there, name="search_trees.json", write=_trees),
    # These two take all trained heads, the last three programs that not everybody installs.
    partial(_if_there, name="comparison.json", write=_comparison),
    partial(_if_there, name="claims.json", write=_claims),
    partial(_if_there, name="peers.json", write=_peers),
    partial(_if_there, name="peers_zen5.json", write=_peers),
    partial(_if_there, name="training_speed.json", write=_training_speed),
)


def main(root: Path = ROOT) -> int:
    """Rewrite README.md where its tables differ from the result files; returns the exit status."""
    path = root / "README.md"

    def work() -> None:
        text = updated(path.read_text(encoding="utf-8"), tables(root))
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    return commands.finish(work)


if __name__ == "__main__":
    argparse.ArgumentParser("python -m medusa_core.readme", description=main.__doc__).parse_args()
    sys.exit(main())
