"""Growing a tree of guesses: opinions are pooled, the context's chain confirms, the best paths are kept."""

import numpy as np
import pytest

from medusa_core.cost import StepCost
from medusa_core.grow import DEEPEST, FLOOR, HeadGuesses, Sources, confirm, grow, pooled
from medusa_core.heads import corpus
from medusa_core.heads.context import LONGEST
from medusa_core.tree import Tree

FLAT = StepCost((1.0,) * 64)
SHAPE = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0)])
# below the root 10 and 11; below 10, then 11, other words
TOKENS, LOGPROB = [1, 10, 11, 20, 21, 22], np.log([1, 0.6, 0.3, 0.7, 0.2, 0.9]).tolist()


def paths(draft):
    found = [()]
    for node, parent in enumerate(draft.tree.parents[1:], start=1):
        found.append((*found[parent], draft.tokens[node]))
    return dict(zip(found[1:], draft.source[1:]))


def test_a_pool_of_one_opinion_is_that_opinion():
    assert pooled({5: (0.5, 3)}, {}) == {5: (0.5, 3, "heads")}
    assert pooled({}, {5: 0.5}) == {5: (0.5, -1, "corpus")}


def test_a_token_that_both_name_beats_what_only_one_names():
    found = pooled({5: (0.4, 1), 6: (0.4, 2)}, {5: 0.4, 7: 0.4})
    assert found[5][0] > 0.5 > max(found[6][0], found[7][0])
    assert [found[token][1:] for token in (5, 6, 7)] == [(1, "both"), (2, "heads"), (-1, "corpus")]
    assert sum(p for p, _, _ in found.values()) < 1


@pytest.mark.parametrize("heads", [0.999999, 0.5, 1e-4])
def test_pooled_shares_are_probabilities(heads):
    found = pooled({5: (heads, 1)}, {6: 0.9999})
    assert all(0 < p < 1 for p, _, _ in found.values())


def test_the_contexts_token_takes_its_rate_and_leaves_the_rest_to_the_others():
    found = {5: (0.5, 1, "heads"), 6: (0.3, 2, "corpus")}
    confirm(found, 6, 0.9)
    assert found[6] == (0.9, 2, "context") and found[5][0] == pytest.approx(0.5 * 0.1 / 0.7)
    confirm(found, 5, 0.01)
    assert found[5] == (pytest.approx(0.5 * 0.1 / 0.7), 1, "both"), "a weak proposal takes nothing away"
    confirm(found, 9, 0.8)
    assert found[9] == (0.8, -1, "context") and found[6][0] == pytest.approx(0.9 * 0.2)


def test_heads_that_hear_the_path_guess_only_along_their_own():
    heads = HeadGuesses(SHAPE, TOKENS, LOGPROB, independent=False)
    assert set(heads.children(1, 1)) == {20, 21} and set(heads.children(2, 1)) == {22}
    assert heads.children(-1, 1) == {} and heads.children(3, 2) == {}


def test_independent_heads_guess_the_same_after_any_path():
    heads = HeadGuesses(SHAPE, TOKENS, LOGPROB, independent=True)
    assert set(heads.children(-1, 1)) == set(heads.children(2, 1)) == {20, 21}
    assert heads.children(-1, 2) == {}


def test_a_tree_mixes_all_who_guess():
    text = [30, 31, 1, 10, 40, 9, 30, 31, 1]
    counted = corpus.count([np.array([1, 11, 50, 51])] * 4)
    heads = HeadGuesses(SHAPE, TOKENS, LOGPROB, independent=False)
    sources = Sources(text, heads, counted, chain=[10, 40, 9], length=3, rates=[0.5] * 17)
    found = paths(grow(1, sources, FLAT, True))
    assert found[(10,)] == "both" and found[(10, 40)] == "context" and found[(10, 40, 9)] == "context"
    assert (
        found[(11,)] == "both" and found[(11, 50)] in ("corpus", "both") and found[(11, 50, 51)] == "corpus"
    )
    assert found[(10, 20)] == "heads"


def test_a_chain_is_followed_only_along_itself():
    sources = Sources([1, 2], chain=[5, 6, 7], length=1, rates=[0.9] * 17)
    assert list(paths(grow(2, sources, FLAT, False))) == [(5,), (5, 6), (5, 6, 7)]


def test_a_chain_is_trusted_by_the_match_that_it_makes_longer_up_to_the_longest():
    rates = [0.05 * length for length in range(LONGEST + 1)]
    for length, after_one in ((3, rates[4]), (LONGEST, rates[LONGEST])):
        sources = Sources([1, 2], chain=[5, 6, 7], length=length, rates=rates)
        assert sources.children((5,), -1, on_chain=True)[6] == (after_one, -1, "context")


def test_trees_end_at_the_floor_the_depth_and_the_rows_whose_cost_is_known():
    counted = corpus.count([np.array([7] * 40)])
    deep = grow(7, Sources([7], None, counted), FLAT, False)
    assert deep.tree.max_depth == DEEPEST
    assert grow(7, Sources([7], None, counted), StepCost((1.0,) * 4), False).tree.size == 4
    unlikely = HeadGuesses(Tree.from_paths([(0,)]), [1, 5], [0.0, float(np.log(FLOOR / 2))], False)
    dear = StepCost(tuple(1.0 + 0.05 * row for row in range(64)))
    assert grow(1, Sources([1], unlikely), dear, True).tree.size == 1


def test_unlikely_guesses_are_checked_where_rows_cost_next_to_nothing():
    guesses = HeadGuesses(Tree.from_paths([(0,), (1,)]), [1, 5, 6], [0.0, *np.log([0.5, FLOOR / 2])], False)
    sizes = [
        grow(
            1, Sources([1], guesses), StepCost(tuple(1.0 + slope * row for row in range(64))), True
        ).tree.size
        for slope in (0.0, 0.001, 0.02)
    ]
    assert sizes == [3, 3, 2]


def test_rows_come_in_the_order_of_trees():
    rng = np.random.default_rng(0)
    counted = corpus.count([rng.integers(0, 6, 300)])
    for token in range(6):
        draft = grow(token, Sources([token], None, counted), FLAT, False)
        again = Tree.from_parents(draft.tree.parents)
        assert again.choices == draft.tree.choices and len(set(paths(draft))) == draft.tree.size - 1


class Watched(Sources):
    """Counts the nodes whose children are looked up."""

    looked = 0

    def children(self, *asked):
        Watched.looked += 1
        return super().children(*asked)


def test_growing_ends_early_only_where_no_later_guess_would_pay():
    rng, counted = np.random.default_rng(0), corpus.count([np.random.default_rng(1).integers(0, 8, 600)])
    sooner = 0
    for _ in range(60):
        seconds = tuple(1.0 + np.cumsum(rng.choice([0.0, 0.02, 0.1, 0.4], 40)))
        text, rates = rng.integers(0, 8, 6).tolist(), np.sort(rng.random(LONGEST + 1)).tolist()
        sources = Watched(text, None, counted, rng.integers(0, 8, 5).tolist(), 2, rates)
        drafts, looked = [], []
        for never in (False, True):
            cost, Watched.looked = StepCost(seconds, 0.05), 0
            if never:
                cost.__dict__["least_increase"] = (-1.0,) * cost.rows
            draft = grow(text[-1], sources, cost, True)
            drafts.append((draft.tree.choices, draft.tokens, draft.logprob, draft.source))
            looked.append(Watched.looked)
        assert drafts[0] == drafts[1]
        sooner += looked[0] < looked[1]
    assert sooner > 30
