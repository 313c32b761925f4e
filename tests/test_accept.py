"""Acceptance: path oracles for greedy, a table worked by hand for typical, and distributions for exact."""

from itertools import pairwise, product

import numpy as np
import pytest
from random_trees import random_tree

from medusa_core import accept
from medusa_core.tree import Tree, chain, dense

# ---------------------------------------------------------------------------------------------- greedy


def longest_confirmed_path(tree, tokens, best):
    """Oracle: try every row of the path table, stopping at its padding."""
    winner = []
    for row in tree.paths.tolist():
        confirmed = [0]
        for parent, node in pairwise(row):
            if node < 0 or tokens[node] != best[parent]:
                break
            confirmed.append(node)
        winner = max(winner, confirmed, key=len)
    return winner


def test_greedy_accepts_the_longest_confirmed_path_of_random_trees():
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(300):
        tree = random_tree(int(rng.integers(0, 25)), depth=5, width=3, rng=rng)
        tokens = rng.integers(0, 3, tree.size)
        model = {}  # the base's argmax is a function of the text so far
        texts = [tuple(tokens[list(tree.path_to(node))]) for node in range(tree.size)]
        best = np.array([model.setdefault(text, rng.integers(0, 3)) for text in texts])
        verdict = accept.greedy(tree, tokens, best)
        expected = longest_confirmed_path(tree, tokens, best)
        assert tokens[list(verdict.path)].tolist() == tokens[expected].tolist()
        assert verdict.path == tree.path_to(verdict.path[-1])
        assert verdict.next_token == best[verdict.path[-1]]
        lengths.add(len(verdict.path))
    assert lengths >= {1, 2, 3, 4}


def test_greedy_says_why_for_every_node():
    tree = Tree.from_paths([(0,), (1,), (2,), (0, 0), (1, 0), (0, 0, 0)])  # rows 1 2 3 | 4 5 | 6
    tokens = [9, 5, 7, 5, 6, 8, 1]
    best = [5, 6, 0, 0, 2, 0, 0]
    verdict = accept.greedy(tree, tokens, best)
    assert verdict.path == (0, 1, 4) and verdict.next_token == 2
    assert verdict.reason == (
        "root",
        "accepted",
        "rejected",
        "shorter path",  # the same token as row 1, without its children
        "accepted",
        "parent rejected",
        "rejected",
    )
    assert verdict.accepted.tolist() == [True, True, False, True, True, False, False]
    assert verdict.probability.tolist() == [1, 1, 0, 1, 1, 0, 0]


def test_equal_siblings_give_one_path():
    verdict = accept.greedy(Tree.from_paths([(0,), (1,)]), [9, 5, 5], [5, 0, 0])
    assert verdict.path == (0, 1) and verdict.reason == ("root", "accepted", "same tokens")


def test_padded_path_cells_are_never_accepted():
    # The leaf [1] pads its row of the path table with -1. Reading row -1 as "the last node" would compare the
    # pad token 0 with best[4] = 0 and accept it.
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])
    assert (tree.paths == -1).any()
    verdict = accept.greedy(tree, [9, 5, 7, 5, 5], [7, 0, 0, 0, 0])
    assert verdict.path == (0, 2) and verdict.next_token == 0


def test_empty_slots_are_never_accepted():
    tree, tokens = dense([2, 1]), [3, -1, 0, -1, -1]
    logits = np.zeros((5, 4), dtype=np.float32)
    logits[:, -1] = 5.0  # the token that index -1 would read
    greedy = accept.greedy(tree, tokens, logits.argmax(axis=1))
    typical = accept.typical(tree, tokens, logits, temperature=1.0)
    exact = accept.exact(tree, tokens, logits, temperature=1.0, rng=np.random.default_rng(0))
    for verdict in (greedy, typical, exact):
        assert verdict.path == (0,) and verdict.next_token == 3
        assert [verdict.reason[i] for i in (1, 3, 4)] == ["empty"] * 3


def test_root_alone_produces_the_bonus_token():
    logits = np.array([[0.0, 3.0, 1.0]], dtype=np.float32)
    assert accept.greedy(chain(0), [4], [1]).next_token == 1
    assert accept.typical(chain(0), [4], logits, 1.0).next_token == 1
    assert accept.exact(chain(0), [4], logits, 1e-3, np.random.default_rng(0)).next_token == 1


# --------------------------------------------------------------------------------------------- typical
#
# Tree rows: 0 root | 1 [0], 2 [1], 3 [2] | 4 [0, 0], 5 [1, 0] | 6 [1, 0, 0].  Probabilities after each row:
#   A = (1/2, 1/4, 1/8, 1/16, 1/16)   H = (1/2 + 2/4 + 3/8 + 4/16 + 4/16) ln 2 = 15/8 ln 2
#                                     delta e^-H = 0.3 * 2^-1.875 = 0.081792  < 0.09
#   B = (1/4, 1/4, 1/4, 1/4, 0)       H = 2 ln 2,  delta e^-H = 0.3 / 4 = 0.075 < 0.09
#   C = (1, 0, 0, 0, 0)               H = 0,       delta e^-H = 0.3     > 0.09, so 0.09
A = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16])
B = np.array([1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])
C = np.array([1.0, 0, 0, 0, 0])
TABLE_TREE = Tree.from_paths([(0,), (1,), (2,), (0, 0), (1, 0), (1, 0, 0)])
BAR_A = 0.3 * 2.0**-1.875


def logits_of(*rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows)).astype(np.float32)


def test_typical_acceptance_matches_the_hand_table():
    tokens = [0, 1, 2, 3, 4, 3, 1]
    verdict = accept.typical(TABLE_TREE, tokens, logits_of(A, C, B, A, A, C, A), temperature=1.0)
    table = [
        # row  p      threshold  accepted  reason
        (0, 1.0, 0.0, True, "root"),
        (1, 1 / 4, BAR_A, True, "shorter path"),
        (2, 1 / 8, BAR_A, True, "accepted"),
        (3, 1 / 16, BAR_A, False, "rejected"),  # 0.0625 < 0.0818
        (4, 0.0, 0.09, False, "rejected"),  # token 4 under C
        (5, 1 / 4, 0.075, True, "accepted"),  # token 3 under B
        (6, 0.0, 0.09, False, "rejected"),  # token 1 under C
    ]
    for row, p, threshold, accepted, reason in table:
        assert verdict.probability[row] == pytest.approx(p, rel=1e-5)
        assert verdict.threshold[row] == pytest.approx(threshold, rel=1e-5)
        assert (verdict.accepted[row], verdict.reason[row]) == (accepted, reason)
    assert verdict.path == (0, 2, 5)
    assert verdict.next_token == 0  # the argmax of C, the row after node 5


def test_typical_temperature_sharpens_before_the_test():
    # At T = 1/2 probabilities are squared: A becomes (64, 16, 4, 1, 1) / 86, so H = ln 86 - 456/86 ln 2 = 0.779
    # and delta e^-H = 0.138 > 0.09. Token 2 has 4/86 = 0.0465 and falls.
    verdict = accept.typical(
        TABLE_TREE, [0, 1, 2, 3, 4, 3, 1], logits_of(A, C, B, A, A, C, A), temperature=0.5
    )
    assert verdict.probability[1:4] == pytest.approx([16 / 86, 4 / 86, 1 / 86], rel=1e-5)
    assert verdict.threshold[1:4] == pytest.approx([0.09] * 3)
    assert verdict.path == (0, 1) and verdict.reason[2:4] == ("rejected", "rejected")
    assert verdict.reason[5:] == ("parent rejected", "parent rejected")
    assert np.isnan(verdict.probability[5:]).all() and np.isnan(verdict.threshold[5:]).all()


def test_typical_takes_the_likelier_of_equally_long_paths():
    # Paths [0] and [1] both pass and both go one deeper: 1/8 * 1/4 = 1/32 against 1/4 * 1/4 = 1/16.
    tree = Tree.from_paths([(0,), (1,), (0, 0), (1, 0)])
    verdict = accept.typical(tree, [0, 2, 1, 0, 0], logits_of(A, B, B, A, C), temperature=1.0)
    assert verdict.path == (0, 2, 4)
    assert verdict.reason == ("root", "less likely path", "accepted", "less likely path", "accepted")


def test_typical_prefers_length_to_likelihood():
    tree = Tree.from_paths([(0,), (1,), (1, 0)])
    verdict = accept.typical(
        tree, [0, 0, 2, 0], logits_of(A, A, B, A), temperature=1.0
    )  # 1/2 against 1/8 * 1/4
    assert verdict.path == (0, 2, 3) and verdict.reason[1] == "shorter path"


def test_typical_threshold_is_strict_and_follows_epsilon_and_delta():
    uniform = logits_of(*[[1 / 4] * 4] * 2)
    assert accept.typical(chain(1), [0, 1], uniform, 1.0, epsilon=0.25, delta=1.0).path == (
        0,
    )  # p = bar = 1/4
    assert accept.typical(chain(1), [0, 1], uniform, 1.0, epsilon=0.24, delta=1.0).path == (0, 1)
    assert accept.typical(chain(1), [0, 1], uniform, 1.0, epsilon=0.9, delta=0.9).path == (0, 1)  # 0.9 / 4


def test_what_is_read_of_the_logits_decides_as_the_logits_do():
    rng = np.random.default_rng(1)
    lengths = set()
    for _ in range(200):
        tree = random_tree(int(rng.integers(0, 20)), depth=4, width=3, rng=rng)
        tokens = rng.integers(-1, 4, tree.size)
        logits = rng.normal(size=(tree.size, 4)).astype(np.float32)
        temperature, epsilon, delta = rng.uniform(0.3, 2), *rng.uniform(0, 0.6, 2)
        probability, entropy = accept.read_logits(tree, tokens, logits, temperature)
        again = accept.typical_again(
            tree, tokens, probability, entropy, logits.argmax(axis=1), epsilon, delta
        )
        direct = accept.typical(tree, tokens, logits, temperature, epsilon, delta)
        assert (again.path, again.next_token, again.reason) == (direct.path, direct.next_token, direct.reason)
        np.testing.assert_array_equal(again.probability, direct.probability)
        np.testing.assert_array_equal(again.threshold, direct.threshold)
        assert set(direct.reason) <= set(accept.REASONS)
        lengths.add(len(direct.path))
    assert lengths >= {1, 2, 3, 4}


# ----------------------------------------------------------------------------------------------- exact

VOCAB = 6
CRITICAL = 57.342  # chi-square with 35 degrees of freedom exceeds this with probability 0.01
DRAWS = 20_000
TEMPERATURE = 0.8
LOGITS = np.random.default_rng(7).normal(scale=1.2, size=(VOCAB, VOCAB, VOCAB)).astype(np.float32)


def next_distribution(before, last):
    """The tiny model: a distribution that depends on the last two tokens, in float64."""
    weights = np.exp(LOGITS[before, last].astype(np.float64) / TEMPERATURE)
    return weights / weights.sum()


def pair_probabilities(before, last):
    first = next_distribution(before, last)
    return np.array([first[a] * next_distribution(last, a)[b] for a, b in product(range(VOCAB), repeat=2)])


def node_logits(tree, tokens, before):
    """Logits (n, VOCAB) of the tiny model after each node of a filled tree."""
    last_but_one = [before] + [tokens[parent] for parent in tree.parents[1:]]
    return LOGITS[last_but_one, tokens]


def decode(tree, drafts, before, last, count, step):
    """`count` tokens by repeated tree steps; `step` is an acceptance of (tree, tokens, logits)."""
    text = [before, last]
    while len(text) < count + 2:
        tokens = [text[-1], *drafts]
        verdict = step(tree, tokens, node_logits(tree, tokens, text[-2]))
        text += [tokens[node] for node in verdict.path[1:]] + [verdict.next_token]
    return text[2 : count + 2]


def exact_step(seed):
    rng = np.random.default_rng(seed)
    return lambda tree, tokens, logits: accept.exact(tree, tokens, logits, TEMPERATURE, rng)


def chi_square(observed, expected):
    return float(((observed - expected) ** 2 / expected).sum())


def pair_counts(pairs):
    return np.bincount([a * VOCAB + b for a, b in pairs], minlength=VOCAB**2)


CHAIN = (chain(2), [2, 4])
BRANCHING = (dense([3, 2]), [2, 2, 5, 4, 0, 4, 1, 3, 3])  # rows 1 and 2 both hold 2, rows 8 and 9 both hold 3


@pytest.mark.parametrize(("tree", "drafts"), [CHAIN, BRANCHING], ids=["chain", "branching with duplicates"])
def test_exact_sampling_draws_pairs_as_plain_sampling_does(tree, drafts):
    step = exact_step(seed=11)
    drafted = pair_counts([decode(tree, drafts, 1, 3, 2, step) for _ in range(DRAWS)])
    expected = pair_probabilities(1, 3) * DRAWS
    assert expected.min() > 5  # the chi-square approximation holds
    assert chi_square(drafted, expected) < CRITICAL

    step = exact_step(seed=12)
    plain = pair_counts([decode(chain(0), [], 1, 3, 2, step) for _ in range(DRAWS)])
    pooled = (plain + drafted) / 2
    assert chi_square(plain, pooled) + chi_square(drafted, pooled) < CRITICAL


def sample(row, temperature, rng):
    """A token drawn after logits (V,): plain sampling is exact acceptance with a tree that is only its root."""
    return accept.exact(chain(0), [0], row[None], temperature, rng).next_token


def test_the_chi_square_test_would_notice_a_biased_acceptance():
    # Typical acceptance is not lossless: the same test must refuse it after a tenth of the draws.
    rng = np.random.default_rng(11)
    tree, drafts = BRANCHING

    def step(tree, tokens, logits):
        verdict = accept.typical(tree, tokens, logits, TEMPERATURE)
        sampled = sample(logits[verdict.path[-1]], TEMPERATURE, rng)
        return accept.Verdict(**{**vars(verdict), "next_token": sampled})

    counts = pair_counts([decode(tree, drafts, 1, 3, 2, step) for _ in range(DRAWS // 10)])
    assert chi_square(counts, pair_probabilities(1, 3) * (DRAWS // 10)) > CRITICAL


def test_exact_sampling_gives_the_plain_text_of_the_same_seed():
    shapes = np.random.default_rng(0)
    for seed in range(40):
        tree = random_tree(int(shapes.integers(1, 20)), depth=4, width=4, rng=shapes)
        drafts = shapes.integers(0, VOCAB, tree.size - 1).tolist()
        plain = decode(chain(0), [], 0, 1, 25, exact_step(seed))
        drafted = decode(tree, drafts, 0, 1, 25, exact_step(seed))
        assert drafted == plain


def test_exact_follows_whichever_duplicate_goes_deeper():
    tree = Tree.from_paths([(0,), (1,), (1, 0)])  # rows 1 and 2 hold the same token; only row 2 has a child
    sure = np.full((4, 5), -np.inf, dtype=np.float32)
    sure[[0, 1, 2, 3], [4, 2, 2, 3]] = 0.0
    verdict = accept.exact(tree, [0, 4, 4, 2], sure, 1.0, np.random.default_rng(0))
    assert verdict.path == (0, 2, 3) and verdict.next_token == 3
    assert verdict.reason == ("root", "shorter path", "accepted", "accepted")
    assert np.isnan(verdict.threshold).all()


def test_a_draw_follows_the_distribution_and_never_draws_the_impossible():
    logits = logits_of([0, 1 / 2, 0, 1 / 4, 1 / 4, 0])[0]
    rng = np.random.default_rng(5)
    counts = np.bincount([sample(logits, 1.0, rng) for _ in range(4000)], minlength=6)
    assert counts[[0, 2, 5]].tolist() == [0, 0, 0]
    assert (
        chi_square(counts[[1, 3, 4]], np.array([2000, 1000, 1000])) < 9.210
    )  # 2 degrees of freedom, p = 0.01


def test_a_draw_takes_the_last_possible_token_when_the_uniform_rounds_up():
    class AlmostOne:
        def random(self):
            return 1.0

    assert sample(logits_of([1 / 2, 1 / 2, 0, 0])[0], 1.0, AlmostOne()) == 1


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_temperature_without_a_distribution_points_to_greedy(temperature):
    logits = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="use greedy acceptance"):
        accept.typical(chain(1), [0, 1], logits, temperature)
    with pytest.raises(ValueError, match="use greedy acceptance"):
        accept.exact(chain(1), [0, 1], logits, temperature, np.random.default_rng(0))


def test_shapes_that_do_not_fit_the_tree_are_refused():
    with pytest.raises(ValueError, match="tokens has 3 entries, but the tree has 2 nodes"):
        accept.greedy(chain(1), [0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match=r"logits must be \(2, vocabulary\)"):
        accept.typical(chain(1), [0, 1], np.zeros((3, 4)), 1.0)


def test_broken_logits_are_refused():
    with pytest.raises(ValueError, match="no finite maximum"):
        accept.exact(chain(1), [0, 1], np.full((2, 4), np.nan), 1.0, np.random.default_rng(0))
