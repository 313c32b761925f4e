"""The Medusa paper's claims put to the test: what trees, typical acceptance, data and the number of heads do here.

Tokens a step are counted along held-out texts (`text_ranks`), predicted speed-ups divide them by measured step times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, product
from math import exp, sqrt
from operator import mul

import numpy as np

from medusa_core import answers, resample, summary, tree
from medusa_core.answers import Drafting, Settings
from medusa_core.cost import StepCost
from medusa_core.masks import padded
from medusa_core.path_shares import PathShares
from medusa_core.text_ranks import TextRanks
from medusa_core.token_set import TokenSet
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
        if widths[0] > 1 and list(widths) == sorted(widths, reverse=True):
            yield "dense", tree.dense(widths)
    for nodes in sorted({*range(1, min(most, 64) + 1), *range(72, most + 1, 8), most}):
        if nodes <= len(shares.share):
            yield "searched", shares.best(nodes)


def _widths(depth: int, most: int, least: int = 1) -> Iterator[tuple[int, ...]]:
    """Widths by depth, each up to WIDEST, of all dense trees of `least` to `most` nodes below the root."""
    for length in range(1, depth + 1):
        for widths in product(range(1, WIDEST + 1), repeat=length):
            if least <= sum(accumulate(widths, mul)) <= most:
                yield widths


def measured_trees(chosen: TextRanks, judged: TextRanks, cost: StepCost, most: int) -> list[dict]:
    """A row a tree: family, nodes, depth, tokens_per_step on texts it was not chosen on, predicted overhead and
    speedup, and `texts`: (tokens, steps) of each text.
    """
    shares = chosen.shares()
    return [_judged(family, shape, judged, cost) for family, shape in shapes(shares, chosen.heads, most)]


def random_trees(judged: TextRanks, least: int, most: int, samples: int, seed: int) -> list[dict]:
    """Random dense trees of `least` to `most` nodes, as the paper samples them, smallest first.

    A dense tree takes the first few guesses of each depth, in all combinations; widths may grow with depth. Each of all
    such trees is drawn with the same probability, none twice. Rows as of `measured_trees`, without speed-ups.
    """
    all_widths = list(_widths(judged.heads, most, least))
    places = np.random.default_rng(seed).permutation(len(all_widths))[:samples]
    rows = [_judged("random", tree.dense(all_widths[place]), judged) for place in places]
    return sorted(rows, key=lambda row: row["nodes"])


def _judged(family: str, shape: Tree, judged: TextRanks, cost: StepCost | None = None) -> dict:
    texts = judged.steps(shape)
    tokens, steps = np.sum(texts, axis=0).tolist()
    row = {"family": family, "nodes": shape.size - 1, "depth": shape.max_depth,
           "tokens_per_step": tokens / steps, "texts": texts}  # fmt: skip
    if cost is not None:
        row |= {"overhead": cost.overhead(shape.size)}
        row |= {"speedup": row["tokens_per_step"] / row["overhead"]}
    return row


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
    temperature 1, the share of tokens that end a stretch of 4 which the answer held before, and of each answer `texts`,
    (tokens, steps), and `losses`, (sum of -log p, tokens).
    """
    shared = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    asked = {None: Settings(**shared, acceptance="exact")}
    asked |= {e: Settings(**shared, acceptance="typical", epsilon=e, delta=sqrt(e)) for e in epsilons}
    found = []
    for epsilon, settings in asked.items():
        texts, losses, repeated = [], [], 0
        for number, prompt in enumerate(prompts):
            trace = answers.answer(base, drafting, prompt, replace(settings, seed=seed + number))
            texts.append((len(trace.tokens) - 1, len(trace.steps) - 1))
            losses.append((answer_loss(base, prompt, trace.tokens), len(trace.tokens)))
            repeated += repeats(trace.tokens)
        (tokens, steps), (loss, whole) = np.sum(texts, axis=0).tolist(), np.sum(losses, axis=0).tolist()
        whole = int(whole)
        found.append({"epsilon": epsilon, "tokens": whole, "tokens_per_step": tokens / max(steps, 1),
                      "perplexity": exp(loss / whole), "repeated": repeated / whole,
                      "texts": texts, "losses": losses})  # fmt: skip
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


def apart(
    first: Sequence[tuple], second: Sequence[tuple], overheads: tuple[float, float] = (1.0, 1.0)
) -> bool | None:
    """Whether `first` is surely the larger: sum over sum of (part, whole) pairs, a pair for each text.

    The texts are drawn anew, the same for both (resample.py); None where the middle 95 % of the differences hold zero.
    overheads: what a whole counts on either side, for speed-ups from (tokens, steps).
    """
    sides = [
        [{"tokens": part, "seconds": whole * price} for part, whole in pairs]
        for pairs, price in zip((first, second), overheads)
    ]
    one = [{"tokens": 1, "seconds": 1}] * len(first)
    return sign(*resample.difference(sides[0], one, sides[1], one))


def ascending(rows: Sequence[Mapping], speed: bool = False) -> bool | None:
    """Whether trees bring more tokens a step, or are faster, row by row: each than the one before, as `apart` says."""
    found = [
        apart(
            after["texts"], before["texts"], (after["overhead"], before["overhead"]) if speed else (1.0, 1.0)
        )
        for before, after in zip(rows, rows[1:])
    ]
    return False if False in found else None if None in found else True


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
