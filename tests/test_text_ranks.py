"""Ranks along texts: walking them gives the steps that decoding takes, for every tree."""

import numpy as np
import pytest
from fake_base import FakeBase as TrainBase
from fake_base import token_set
from fake_decoding import FakeBase

from medusa_core import decode, tree
from medusa_core.text_ranks import TextRanks, measure
from medusa_core.tree import Tree, TreeError

MISS = 99


def test_a_text_is_walked_as_worked_out_by_hand():
    ranks = np.array([[0, 1], [1, 0], [0, 0], [2, 0], [0, MISS], [MISS, MISS]])
    shape = Tree.from_paths([(0,), (1,), (0, 1)])
    # Place 0 accepts (0, 1) and goes on at 3, which accepts nothing; 4 accepts (0,) and ends the text.
    assert TextRanks([ranks]).steps(shape) == [(6, 3)]
    assert TextRanks([ranks, ranks[:2]]).steps(shape) == [(6, 3), (2, 1)]
    assert TextRanks([ranks, ranks[:2]]).tokens_per_step(shape) == pytest.approx(2.0)
    assert TextRanks([ranks]).tokens_per_step(Tree.from_paths([])) == 1.0


def test_accuracy_leaves_out_what_a_text_is_too_short_for():
    ranks = np.array([[0, 1], [1, 0], [0, MISS]])
    np.testing.assert_allclose(TextRanks([ranks, ranks[2:]]).accuracy(2), [[3 / 4, 1 / 4], [1 / 2, 1 / 2]])


def test_halves_share_no_text_and_lose_none():
    texts = [np.full((size, 1), size) for size in (1, 2, 3)]
    first, second = TextRanks(texts).halves()
    assert [len(text) for text in first.texts] == [1, 3] and [len(text) for text in second.texts] == [2]
    assert TextRanks(texts).positions == 6


def test_a_tree_deeper_than_the_heads_is_refused():
    with pytest.raises(TreeError, match="2 deep but there are 1 heads"):
        TextRanks([np.zeros((3, 1), int)]).steps(tree.chain(2))


@pytest.mark.parametrize("shape", [tree.chain(1), tree.chain(3), tree.dense([3, 2]), tree.dense([2, 2, 2])])
def test_walking_takes_the_steps_that_decoding_takes(shape):
    base = FakeBase()
    texts, counted = [], []
    for prompt in ([20, 31, 42], [50, 7, 9, 33], [60]):
        drafter = TrueRankDrafter(base, 3)
        text = [t for step in decode.plain(base, prompt, 40) for t in step.tokens]
        steps = list(decode.medusa(base, drafter, shape, prompt, 40))[1:]
        assert [t for step in steps for t in step.tokens] == text[1:]
        texts.append(
            np.array([drafter.ranks(prompt + text, len(prompt) + p, 3) for p in range(len(text) - 1)])
        )
        counted.append((len(text) - 1, len(steps)))
    assert TextRanks(texts).steps(shape) == counted
    assert sum(tokens for tokens, _ in counted) > sum(steps for _, steps in counted)


class TrueRankDrafter:
    """Guesses by the last token alone: any fixed lists do, as long as ranks can be looked up in them."""

    def __init__(self, base, heads: int):
        from types import SimpleNamespace

        self.base, self.config = base, SimpleNamespace(num_heads=heads)

    def lists(self, token: int) -> np.ndarray:
        """(K, V): token ids by guessed order."""
        state, rows = self.base.embedding[token].copy(), []
        for _ in range(self.config.num_heads):
            order = np.argsort(-(self.base.head @ state + self.base.bias), kind="stable")
            rows.append(order)
            state = 0.5 * state + self.base.embedding[order[0]]
        return np.array(rows)

    def draft(self, hidden, token, shape):
        lists = self.lists(int(token))
        tokens = np.full(shape.size, token)
        tokens[1:] = lists[shape.depth[1:] - 1, shape.rank[1:]]
        return tokens, np.zeros(shape.size, np.float32)

    def ranks(self, text, place: int, heads: int) -> list[int]:
        """Ranks of the tokens after text[place]."""
        lists, coming = self.lists(text[place]), text[place + 1 : place + 1 + heads]
        found = [int(np.flatnonzero(row == token)[0]) for row, token in zip(lists, coming)]
        return found + [MISS] * (heads - len(found))


def test_ranks_are_measured_for_every_place_that_something_follows(tmp_path):
    from medusa_core import heads, hidden
    from medusa_core.config import HeadsConfig

    base = TrainBase(tmp_path / "base")
    tokens = token_set(9).select("train")
    states = hidden.compute(base, tokens, root=tmp_path)
    drafter = heads.create(HeadsConfig(16, 50, 2, output="shared"), base)
    found = measure(drafter, states)
    assert [len(text) for text in found.texts] == [len(answer) - 1 for answer in tokens.answer_ids]
    first, answer = found.texts[0], tokens.answer_ids[0]
    logits = (
        np.asarray(states.states[0], np.float32) @ base.embedding.T
    )  # untrained heads are the base's LM head
    assert first[0].tolist() == [(logits > logits[answer[k]]).sum() for k in (1, 2)]
    assert first[-1, 1] >= 50
