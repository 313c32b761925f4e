"""A comparison's heads beside what others published for their kind, and why the figures differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medusa_core import published
from medusa_core.published import RECORDS, Record

HERE = "135M model, 2 CPU threads: every row costs time, so trees are small; 8,192 tokens to guess from"
# Published methods by kind of heads, with what sets their figures apart from ours; Vicuna 7B throughout.
METHODS = {
    "medusa": (
        ("medusa-1", "own LM head for each of 5 heads; a GPU checks 64 rows for little more than one"),
    ),
    "medusa, adapted": (
        ("medusa-2", "a 7B model; adapters of rank 32 on all its matrices, 60,000 conversations; a GPU"),
    ),
    "gru": (("hydra", "5 heads hear the tokens before them; their own LM heads; 63 nodes on a GPU"),),
    "gated": (
        ("gated recurrent heads", "typical acceptance with 0.01 and 0.1, looser than ours, at T = 0.7"),
    ),
    "redrafter": (
        ("redrafter", "a beam of candidates, its own LM head, H100; learns from the base's own text"),
    ),
    "lstm": (
        ("eagle", "a transformer layer with attention over the text drafts, where ours is one small cell"),
        ("eagle-2", "the same, its tree grown by confidence at every step"),
    ),
    "moe": (),  # the seed's figures are called unsettled there
}


def rows(result: Mapping) -> list[dict]:
    """Rows of a table: each heads of a comparison, greedy with its own tree, then the published figures of its kind."""
    speed = {row["name"]: row for row in result["bench"]["summary"] if row["acceptance"] == "greedy"}
    found, told = [], set()
    for row in result["heads"]:
        own = speed[row["name"]]
        found.append(_row(f"here: {row['name']}", own["tokens_per_step"], own["speedup"], HERE))
        kind = f"{row['kind']}, adapted" if row["adapted_base"] else row["kind"]
        for method, why in METHODS.get(kind, ()):
            if method not in told:
                told.add(method)
                found += [_published(record, why) for record in _records(method)]
    return found


def _records(method: str) -> Iterator[Record]:
    """Speed-ups of Vicuna 7B in conversations: MT-bench, one a source."""
    sources = set()
    for record in RECORDS:
        chat = record.model == "Vicuna 7B" and record.benchmark == "MT-bench" and record.tokens_per_step
        place = record.source, record.heads
        if record.method == method and chat and record.speedup and place not in sources:
            sources.add(place)
            yield record


def _published(record: Record, why: str) -> dict:
    heads = f", {record.heads} heads" if record.heads else ""
    machine = f", {record.machine}" if record.machine else ""
    if record.source == published.SEED:
        why = "Jittor on an unnamed GPU, T = 0.7, typical acceptance with 0.01 and 0.1: looser than ours"
    return _row(
        f"{record.method}{heads}{machine}: {record.origin}", record.tokens_per_step, record.speedup, why
    )


def _row(who: str, tokens: float, speedup: float, why: str) -> dict:
    return {
        "who": who,
        "tokens/step": tokens,
        "overhead": tokens / speedup,
        "speed-up": speedup,
        "why it differs": why,
    }
