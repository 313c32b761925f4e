"""Context drafts: what followed the last time the text went like this (prompt lookup; SuffixDecoding, 2411.04975).

The longest earlier occurrence of the text's end proposes what came after it, as a chain. No model is asked. How far to
trust a proposal follows from the length of the match, measured on held-out text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LONGEST = 16  # matches are told apart up to this length
OCCURRENCES = 8  # of the last two tokens, latest first, that are compared


class ContextIndex:
    """All tokens of a text so far, and where each pair of successive tokens occurred."""

    def __init__(self, tokens: Iterable[int] = ()):
        self.tokens: list[int] = []
        self._after: dict[tuple[int, int], list[int]] = {}  # pair -> places behind it, earliest first
        self._after_one: dict[int, int] = {}  # token -> the last place behind it
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            # A place is indexed once a token stands in it: the text's own end never matches itself.
            place = len(self.tokens)
            if place > 0:
                self._after_one[self.tokens[-1]] = place
            if place > 1:
                self._after.setdefault((self.tokens[-2], self.tokens[-1]), []).append(place)
            self.tokens.append(token)

    def match(self) -> tuple[int, int]:
        """The place behind the longest match of the text's end, and the match's length; (0, 0) where there is none.

        Equally long matches: the latest.
        """
        text = self.tokens
        best, length = 0, 0
        for place in reversed(self._after.get(tuple(text[-2:]), ())[-OCCURRENCES:]):
            same = 2
            while same < LONGEST and place > same and text[place - 1 - same] == text[-1 - same]:
                same += 1
            if same > length:
                best, length = place, same
        if not length and text and (place := self._after_one.get(text[-1])):
            return place, 1
        return best, length

    def propose(self, most: int) -> tuple[list[int], int]:
        """Up to `most` tokens that should come next, and the length of the match they follow from.

        A match near the end goes on into the proposal itself, so that a repeating text is continued.
        """
        place, length = self.match()
        if not length:
            return [], 0
        known = len(self.tokens)
        chain: list[int] = []
        for source in range(place, place + most):
            chain.append(self.tokens[source] if source < known else chain[source - known])
        return chain, length


def rates(texts: Iterable[tuple[Sequence[int], Sequence[int]]]) -> np.ndarray:
    """How often a proposal's first token is right, by length of match: (LONGEST + 1,), entry 0 being 0.

    texts: pairs of prompt ids and answer ids; every answer token but the first is asked for. A length never counts as
    less reliable than a shorter one, and one that did not occur counts as the one before.
    """
    right, asked = np.zeros(LONGEST + 1), np.zeros(LONGEST + 1)
    for prompt, answer in texts:
        index = ContextIndex([*map(int, prompt), *map(int, answer[:1])])
        for token in map(int, answer[1:]):
            chain, length = index.propose(1)
            if length:
                asked[length] += 1
                right[length] += chain[0] == token
            index.extend([token])
    share = np.divide(right, asked, out=np.zeros_like(right), where=asked > 0)
    return np.maximum.accumulate(share)
