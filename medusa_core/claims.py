"""The Medusa paper's claims put to the test: what trees, typical acceptance, data and the number of heads do here.

Tokens a step are counted along held-out texts (`text_ranks`), predicted speed-ups divide them by measured step times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import exp, sqrt

import numpy as np

from medusa_core import answers, resample, summary, tree
from medusa_core.answers import Drafting, Settings
from medusa_core.cost import StepCost
from medusa_core.data import TokenSet
from medusa_core.masks import padded
from medusa_core.path_shares import PathShares
from medusa_core.text_ranks import TextRanks
from medusa_core.tree import Tree

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
UNDECIDED, NOT_TESTABLE = "undecided", "not testable here"
WIDEST = 16  # ranks that dense trees use
REPEAT = 4  # tokens of a repeated stretch


def verdict(claim: str, holds: bool | None, figure: str, unknown: str = NOT_TESTABLE) -> dict:
    """A row of the chapter's table; where holds is None, its verdict is `unknown`."""
    word = unknown if holds is None else REPRODUCED if holds else NOT_REPRODUCED
    return {"claim": claim, "verdict": word, "figure": figure}


# ---------------------------------------------------------------- trees


def shapes(shares: PathShares, depth: int, most: int) -> Iterator[tuple[str, Tree]]:
    """Trees of up to `most` nodes by family: chains, all dense trees with widths that never grow, and searched ones."""
    for length in range(1, depth + 1):
        yield "chain", tree.chain(length)
    for widths in _widths(depth, most):
        yield "dense", tree.dense(widths)
    for nodes in sorted({*range(1, min(most, 64) + 1), *range(72, most + 1, 8), most}):
        if nodes <= len(shares.share):
            yield "searched", shares.best(nodes)


def _widths(depth: int, most: int) -> Iterator[tuple[int, ...]]:
    for length in range(1, depth + 1):
        for widths in product(range(1, WIDEST + 1), repeat=length):
            falling = all(a >= b for a, b in zip(widths, widths[1:]))
            if falling and widths[0] > 1 and np.cumprod(widths).sum() <= most:
                yield widths


def measured_trees(chosen: TextRanks, judged: TextRanks, cost: StepCost, most: int) -> list[dict]:
    """A row a tree: family, nodes, depth, tokens_per_step on texts it was not chosen on, and predicted speedup."""
    shares = chosen.shares()
    found = []
    for family, shape in shapes(shares, chosen.heads, most):
        tokens = judged.tokens_per_step(shape)
        speedup = tokens / cost.overhead(shape.size)
        found.append({"family": family, "nodes": shape.size - 1, "depth": shape.max_depth,
                      "tokens_per_step": tokens, "speedup": speedup})  # fmt: skip
    return found


def random_trees(judged: TextRanks, least: int, most: int, samples: int, seed: int) -> list[dict]:
    """Random trees of `least` to `most` nodes, as the paper samples its dense ones; rows as of `measured_trees`."""
    rng, found = np.random.default_rng(seed), []
    for nodes in np.linspace(least, most, samples).astype(int):
        shape = tree.random_tree(int(nodes), judged.heads, WIDEST, rng)
        tokens = judged.tokens_per_step(shape)
        found.append(
            {"family": "random", "nodes": int(nodes), "depth": shape.max_depth, "tokens_per_step": tokens}
        )
    return found


def best_of(rows: Sequence[Mapping], family: str, key: str, most: int | None = None) -> dict:
    """The row of a family with the largest `key`, of at most so many nodes."""
    return max(
        (r for r in rows if r["family"] == family and r["nodes"] <= (most or r["nodes"])),
        key=lambda r: r[key],
    )


def by_depth(chosen: TextRanks, judged: TextRanks, nodes: int) -> list[float]:
    """Tokens a step of the best trees of up to `nodes` nodes from the first 1, 2, ... K heads alone."""
    shares = chosen.shares().share
    found = []
    for depth in range(1, chosen.heads + 1):
        short = PathShares({path: share for path, share in shares.items() if len(path) <= depth})
        found.append(judged.tokens_per_step(short.best(min(nodes, len(short.share)))))
    return found


# ---------------------------------------------------------------- typical acceptance


def thresholds(
    base, drafting: Drafting, prompts: Sequence[Sequence[int]], epsilons: Sequence[float], temperature: float,
    max_new_tokens: int, seed: int = 0,
) -> list[dict]:  # fmt: skip
    """Answer prompts with exact acceptance and with typical acceptance at every epsilon, delta being its root.

    A row each: epsilon (None for exact), tokens, tokens_per_step, perplexity of the answers under the base at
    temperature 1, and the share of tokens that end a stretch of 4 which the answer held before.
    """
    shared = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    asked = {None: Settings(**shared, acceptance="exact")}
    asked |= {e: Settings(**shared, acceptance="typical", epsilon=e, delta=sqrt(e)) for e in epsilons}
    found = []
    for epsilon, settings in asked.items():
        tokens = steps = repeated = 0
        loss = 0.0
        for number, prompt in enumerate(prompts):
            trace = answers.answer(base, drafting, prompt, replace(settings, seed=seed + number))
            tokens, steps = tokens + len(trace.tokens) - 1, steps + len(trace.steps) - 1
            loss += answer_loss(base, prompt, trace.tokens)
            repeated += repeats(trace.tokens)
        whole = tokens + len(prompts)
        found.append({"epsilon": epsilon, "tokens": whole, "tokens_per_step": tokens / max(steps, 1),
                      "perplexity": exp(loss / whole), "repeated": repeated / whole})  # fmt: skip
    return found


def answer_loss(base, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Sum of -log p of an answer's tokens under the base at temperature 1."""
    ids = np.array([[*prompt, *answer][:-1]], np.int32)
    mask = padded(np.ones(ids.shape, bool), base.config.sliding_window)
    states = base(ids, np.arange(ids.shape[1], dtype=np.int32)[None], mask)[0]
    logits = base.logits(states[len(prompt) - 1 :]).numpy().astype(np.float64)  # (answer, V)
    top = logits.max(axis=1)
    norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((norm - logits[np.arange(len(answer)), np.asarray(answer)]).sum())


def repeats(tokens: Sequence[int]) -> int:
    """How many tokens end a stretch of REPEAT tokens that occurred before."""
    stretches = [tuple(tokens[end - REPEAT : end]) for end in range(REPEAT, len(tokens) + 1)]
    return len(stretches) - len(set(stretches))


# ---------------------------------------------------------------- speed


def gain(runs: Sequence[dict], name: str, other: str) -> tuple[float, float]:
    """Where 95 % of the differences lie between the greedy speed-ups of two sets of heads, questions drawn anew.

    runs: of a comparison; each set of heads counts against plain decoding of its own base.
    """
    greedy = {run["name"]: run for run in runs if run["acceptance"] == "greedy"}
    pairs = [(greedy[each], summary.plain_of(greedy[each], runs)) for each in (name, other)]
    return resample.difference(*(run["samples"] for pair in pairs for run in pair))


def sign(low: float, high: float) -> bool | None:
    """Whether an interval lies above zero; None where it holds zero."""
    return None if low <= 0 <= high else low > 0


# ---------------------------------------------------------------- data


def training_sets(
    tokens: TokenSet, others: TokenSet, positions: int, held_out: TokenSet
) -> dict[str, TokenSet]:
    """Sets of about so many positions to train on, by what wrote them, each with the same held-out texts."""
    train = tokens.select("train")
    greedy = train.greedy()
    rows = np.flatnonzero(~np.isin(train.sample, np.unique(greedy.sample)))
    sampled = TokenSet(
        [train.prompt_ids[i] for i in rows], [train.answer_ids[i] for i in rows],
        train.sample[rows], train.split[rows], train.metadata,
    )  # fmt: skip
    kinds = {"its own answers, greedy": greedy, "its own answers, sampled": sampled, "others' text": others}
    return {name: _joined(each.thin(positions, 0), held_out) for name, each in kinds.items()}


def others_text(tokenizer, positions: int, length: int = 256) -> TokenSet:
    """Prose that people wrote and every Python brings along, the language reference, cut into texts of `length` tokens.

    A text's first token is its prompt. Raises ValueError where there is less of it than asked for.
    """
    from pydoc_data.topics import topics

    prose = "\n\n".join(topics[name].strip() for name in sorted(topics))
    paragraphs = [
        f"{part}\n\n" for part in prose.split("\n\n")
    ]  # a tokenizer warns of texts past its model's context
    ids = np.concatenate(tokenizer(paragraphs, add_special_tokens=False)["input_ids"]).astype(np.int32)
    count = -(-positions // length)
    if len(ids) < count * (length + 1):
        raise ValueError(f"{positions} positions asked for, but Python's reference has {len(ids)} tokens")
    texts = ids[: count * (length + 1)].reshape(count, length + 1)
    return TokenSet(
        list(texts[:, :1]), list(texts[:, 1:]), np.zeros(count, np.int32), np.full(count, "train"), {}
    )


def _joined(train: TokenSet, held_out: TokenSet) -> TokenSet:
    columns = ("sample", "split")
    return TokenSet(
        [*train.prompt_ids, *held_out.prompt_ids], [*train.answer_ids, *held_out.answer_ids],
        *(np.concatenate([getattr(part, name) for part in (train, held_out)]) for name in columns), train.metadata,
    )  # fmt: skip
