"""Keeping evaluation out of training: which training prompts repeat a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

NGRAM = 8  # words in a row that make a training prompt count as a copy of an evaluation prompt


class Overlap(NamedTuple):
    """A training prompt that repeats part of an evaluation prompt."""

    prompt: int  # index into the prompts
    question_id: int | str
    turn: int  # from 1
    words: str  # what both contain


def words(text: str) -> list[str]:
    """Lower-case words of a text, without punctuation: what two prompts are compared by."""
    return re.findall(r"\w+", text.lower())


def unique_prompts(prompts: Iterable[str]) -> list[str]:
    """Prompts in their order, each wording once; case, spaces and the marks at its end do not make a wording new."""
    seen: dict[str, str] = {}
    for prompt in prompts:
        seen.setdefault(" ".join(prompt.casefold().split()).rstrip(".!? "), prompt)
    return list(seen.values())


def overlaps(prompts: Iterable[str], questions: Iterable[Mapping]) -> list[Overlap]:
    """Find the training prompts that hold 8 successive words of an evaluation turn, or a shorter turn as a whole.

    `prompts` are texts (`prompt_texts` gives those of a token set); every prompt appears at most once in the answer.
    """
    grams: dict[tuple[str, ...], tuple[int | str, int]] = {}
    for question in questions:
        for turn, text in enumerate(question["turns"], 1):
            for gram in _ngrams(words(text), min(NGRAM, len(words(text)))):
                grams.setdefault(gram, (question["question_id"], turn))
    lengths = sorted({len(gram) for gram in grams})
    found = []
    for index, prompt in enumerate(prompts):
        own = words(prompt)
        hit = next((gram for length in lengths for gram in _ngrams(own, length) if gram in grams), None)
        if hit:
            found.append(Overlap(index, *grams[hit], " ".join(hit)))
    return found


def _ngrams(tokens: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1) if length)
