"""Context drafts: the longest, latest match proposes what came after it; trust follows from measured hits."""

import numpy as np
import pytest

from medusa_core.heads.context import LONGEST, OCCURRENCES, ContextIndex, rates


def brute_force(tokens):
    """The place behind the longest match of the text's end (the latest of equals) and its length."""
    best, length = 0, 0
    for place in range(1, len(tokens)):
        same = 0
        while same < min(place, LONGEST) and tokens[place - 1 - same] == tokens[-1 - same]:
            same += 1
        if same and same >= length:
            best, length = place, same
    return best, length


def test_the_latest_of_the_longest_matches_proposes_what_followed():
    index = ContextIndex([1, 2, 3, 9, 1, 2, 3, 4, 7, 3, 5, 1, 2, 3])
    assert index.match() == (7, 3)
    assert index.propose(4) == ([4, 7, 3, 5], 3)


def test_matches_equal_a_search_over_all_places():
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = rng.integers(0, 6, 40).tolist()  # few occurrences of a pair: the index compares them all
        for end in range(1, len(tokens) + 1):
            text = tokens[:end]
            place, length = ContextIndex(text).match()
            wanted = brute_force(text)
            assert length == wanted[1]
            if length and len(ContextIndex(text)._after.get(tuple(text[-2:]), ())) <= 8:
                assert place == wanted[0]


def test_of_more_occurrences_than_are_compared_the_latest_count():
    text = [token for number in range(OCCURRENCES + 2) for token in (1, 2, 100 + number)]
    assert ContextIndex([*text, 1, 2]).propose(1) == ([text[-1]], 2)


def test_a_match_longer_than_the_longest_counts_as_that():
    part = range(LONGEST + 4)
    assert ContextIndex([*part, *part]).match() == (len(part), LONGEST)
    assert rates([(part, [*part])])[LONGEST] == 1.0


def test_extending_token_by_token_or_at_once_gives_the_same_index():
    tokens = [4, 4, 1, 4, 4, 4, 2]
    whole, grown = ContextIndex(tokens), ContextIndex()
    for token in tokens:
        grown.extend([token])
        assert grown.propose(3) == ContextIndex(grown.tokens).propose(3)
    assert grown.propose(5) == whole.propose(5)


def test_a_repeating_text_is_continued_beyond_its_end():
    assert ContextIndex([1, 2, 3, 1, 2, 3, 1, 2]).propose(7) == ([3, 1, 2, 3, 1, 2, 3], 5)


@pytest.mark.parametrize("tokens", [[], [5], [1, 2, 3]])
def test_a_text_that_repeats_nothing_proposes_nothing(tokens):
    assert ContextIndex(tokens).propose(4) == ([], 0)


def test_rates_are_hits_by_length_of_match_and_never_fall():
    # After "1 2" comes 3 twice out of three, after the longer "0 1 2" always 3.
    texts = [([0, 1, 2, 3, 8, 1, 2, 4, 9, 0, 1], [2, 3])]
    share = rates(texts)
    assert share.shape == (LONGEST + 1,) and share[0] == 0
    assert share[3] == 1.0 and (np.diff(share) >= 0).all()
    index, asked, right = ContextIndex([0, 1, 2]), {}, {}
    answer = [5, 0, 1, 2, 6, 1, 2, 6, 2, 5, 0, 1]
    index = ContextIndex([0, 1, 2, *answer[:1]])
    for token in answer[1:]:
        chain, length = index.propose(1)
        asked[length] = asked.get(length, 0) + 1
        right[length] = right.get(length, 0) + (chain == [token])
        index.extend([token])
    share = rates([([0, 1, 2], answer)])
    assert share[1] == right[1] / asked[1]
