"""Several ways of guessing on the same prompts, greedy, in turns: tokens a step, time a step, and the same text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from medusa_core import answers
from medusa_core.answers import Drafting, Settings

PLAIN = "plain"


def race(
    base,
    ways: Mapping[str, Drafting],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    repeats: int = 1,
    between: Callable[[], None] = lambda: None,
) -> list[dict]:
    """Continue every prompt in every way, plainly too, and return a row a way, plain decoding first.

    The ways take turns in beginning. between: what to do before each prompt, such as timing single steps. A row holds
    name, tokens_per_step, rows_per_step, step_ms (median over the repeats of the mean), draft_ms, overhead and speedup
    against plain decoding, both without the prompt's forward, and `identical`: how many prompts got plain decoding's
    text.
    """
    everyone = {PLAIN: Drafting(), **ways}
    settings = Settings(max_new_tokens)
    totals = {
        name: np.zeros((repeats, 5)) for name in everyone
    }  # tokens, steps, rows, seconds, draft seconds
    identical = dict.fromkeys(everyone, 0)
    for drafting in everyone.values():
        answers.answer(base, drafting, prompts[0], Settings(8))
    names = list(everyone)
    for number, prompt in enumerate(tqdm(prompts, desc="prompts")):
        between()
        for repeat in range(repeats):
            texts = {}
            for turn in range(len(names)):
                name = names[(number + repeat + turn) % len(names)]
                begin = time.perf_counter()
                trace = answers.answer(base, everyone[name], prompt, settings)
                seconds = time.perf_counter() - begin - trace.prefill
                steps = trace.steps[1:]
                texts[name] = trace.tokens
                totals[name][repeat] += (
                    len(trace.tokens) - 1,
                    len(steps),
                    sum(len(step.parents) for step in steps),
                    seconds,
                    sum(step.times["draft"] for step in steps),
                )
            if not repeat:
                for name in names:
                    identical[name] += texts[name] == texts[PLAIN]
    plain = _per_step(totals[PLAIN])
    return [_row(name, _per_step(totals[name]), plain, identical[name], len(prompts)) for name in names]


def _per_step(totals: np.ndarray) -> dict:
    tokens, steps, rows, seconds, draft = totals.T
    return {
        "tokens_per_step": float(np.median(tokens / steps)),
        "rows_per_step": float(np.median(rows / steps)),
        "step_ms": float(np.median(seconds / steps) * 1e3),
        "draft_ms": float(np.median(draft / steps) * 1e3),
        "tokens_per_second": float(np.median(tokens / seconds)),
    }


def _row(name: str, own: dict, plain: dict, identical: int, prompts: int) -> dict:
    return {
        "name": name,
        **own,
        "overhead": own["step_ms"] / plain["step_ms"],
        "speedup": own["tokens_per_second"] / plain["tokens_per_second"],
        "identical": identical,
        "prompts": prompts,
    }
