"""README's tables with a line for each processor: what guessing brings there, and what rows cost."""

from __future__ import annotations

import numpy as np

from medusa_core.cost import Rounds
from medusa_core.stamp import in_words
from medusa_core.summary import PLAIN, interval
from medusa_core.tables import columns_of, markdown

FLAT = (8, 12, 16)  # rows whose price is told

SPEED = (
    "Greedy decoding of these questions, by processor. On those from the second on, with the tree and the plan that "
    "`python -m medusa_core.calibrate` chose there; in brackets, where a speed-up would lie with other questions "
    "(95 %):"
)
STEPS = (
    "What a step costs, by processor: rows in plain steps of their own round, draft included (median and 80 % of the "
    "rounds of chapter 08 at study scale); then how much faster four trees made decoding in the race that followed, "
    "and in brackets how much had been predicted:"
)


def speed_row(bench: dict) -> dict[str, str]:
    """The cells of a benchmark's line, by column."""
    row = {"processor": in_words(bench["machine"])}
    same = texts = 0
    for found, run in zip(bench["summary"], bench["runs"], strict=True):
        if found["temperature"]:
            continue
        if found["name"] == PLAIN:
            row["plain tokens/s"] = f"{found['tokens_per_second']:.1f}"
            continue
        low, high = interval(run, bench["runs"])
        row[found["name"]] = f"{found['speedup']:.2f} ({low:.2f} to {high:.2f})"
        same += sum(sample["text"] == sample["plain_text"] for sample in run["samples"])
        texts += len(run["samples"])
    return {**row, "same text as plain": f"{same} of {texts}"}


def steps_row(search: dict) -> dict[str, str]:
    """The cells of a race of trees, by column."""
    rounds = Rounds.of(search["rounds"])
    prices = rounds.overheads()[:, [rounds.rows.index(rows) for rows in FLAT]]
    row = {
        "processor": in_words(search["machine"]),
        "plain step, ms": f"{1e3 * np.median(rounds.seconds[:, 0]):.1f}",
    }
    for rows, (low, middle, high) in zip(FLAT, np.quantile(prices, (0.1, 0.5, 0.9), axis=0).T):
        row[f"{rows} rows"] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    static = [way for way in search["ways"] if "predicted_speedup" in way]
    return row | {way["name"]: f"{way['speedup']:.2f} ({way['predicted_speedup']:.2f})" for way in static}


def lines(opening: str, rows: list[dict[str, str]]) -> list[str]:
    """Lines of Markdown: `rows` under the columns that any of them has; none without rows."""
    columns = columns_of(rows)
    cells = [[row.get(column, "") for column in columns] for row in rows]
    return [opening, "", *markdown(columns, cells)] if rows else []
