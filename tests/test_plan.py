"""Plans: heads and context share a step's rows by expected acceptance, and a plan's file is checked."""

import json
import math
from itertools import combinations

import numpy as np
import pytest

from medusa_core import plan as plans
from medusa_core.cost import StepCost
from medusa_core.grow import DEEPEST
from medusa_core.heads.context import LONGEST, ContextIndex
from medusa_core.path_shares import PathShares
from medusa_core.plan import Plan, PlanError
from medusa_core.tree import Tree, dense

FLAT = StepCost((1.0,) * 64)
SHARES = PathShares({(0,): 0.5, (0, 0): 0.25, (1,): 0.125})
RATES = (0.0, *(0.5 + 0.4 * min(length, 8) / 8 for length in range(1, LONGEST + 1)))


class Heads:
    """Guesses given tokens with given probabilities."""

    INDEPENDENT = False

    def __init__(self, tokens, probability):
        self.tokens, self.probability = tokens, probability

    def draft(self, hidden, token, tree):
        tokens = np.array([token, *self.tokens], np.int32)
        return tokens, np.log(np.array([1.0, *self.probability], np.float32))


def rows(draft):
    """Each node as (path of tokens, source)."""
    found = [()]
    for node, parent in enumerate(draft.tree.parents[1:], start=1):
        found.append((*found[parent], draft.tokens[node]))
    return list(zip(found, draft.source))


def test_heads_alone_are_taken_by_the_product_of_their_probabilities():
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 1), (1, 0)])
    heads = Heads([10, 11, 20, 21, 22], [0.6, 0.3, 0.7, 0.2, 0.9])
    cost = StepCost((1.0, 1.0, 1.0, 1.0, 9.0, 9.0))
    draft = Plan(cost, tree).draft(heads, None, ContextIndex([1, 2]))
    assert rows(draft) == [((), "root"), ((10,), "heads"), ((11,), "heads"), ((10, 20), "heads")]
    assert np.exp(draft.logprob).tolist() == pytest.approx([1, 0.6, 0.3, 0.7])
    assert draft.tree.choices == ((0,), (1,), (0, 0))


def test_the_number_of_rows_is_the_one_with_the_most_tokens_a_second():
    rng = np.random.default_rng(0)
    tree = dense([3, 2])
    for _ in range(20):
        probability = rng.random(tree.size - 1)
        seconds = tuple(np.cumsum(rng.random(tree.size)) + 1.0)
        cost = StepCost(seconds, draft_seconds=0.2)
        draft = Plan(cost, tree).draft(Heads(range(30, 29 + tree.size), probability), None, ContextIndex([1]))
        value = np.ones(tree.size)
        for node in range(1, tree.size):
            value[node] = value[tree.parents[node]] * probability[node - 1]
        best = max(
            (1 + sum(value[list(chosen)])) / (seconds[count] + 0.2)
            for count in range(tree.size)
            for chosen in combinations(range(1, tree.size), count)
            if all(tree.parents[node] in (0, *chosen) for node in chosen)
        )
        # logprob of a node is conditional on its parent, so the values can be worked out again from the draft
        again = [1.0]
        for node in range(1, draft.tree.size):
            again.append(again[draft.tree.parents[node]] * math.exp(draft.logprob[node]))
        assert sum(again) / (seconds[draft.tree.size - 1] + 0.2) == pytest.approx(best)


def test_the_context_alone_is_a_chain_as_long_as_its_rates_carry():
    text = ContextIndex([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2])
    draft = Plan(FLAT, Tree.from_paths([]), RATES).draft(None, None, text)
    assert list(draft.tokens) == [2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert draft.tree.max_depth == DEEPEST and set(draft.source[1:]) == {"context"}
    dear = StepCost(tuple(1.0 + 0.6 * n for n in range(64)))
    assert Plan(dear, Tree.from_paths([]), RATES).draft(None, None, text).tree.size < 4


def test_a_guess_that_heads_and_context_share_is_one_row():
    text = ContextIndex([1, 2, 10, 20, 5, 1, 2])
    heads = Heads([10, 11, 21], [0.4, 0.3, 0.5])
    draft = Plan(FLAT, Tree.from_paths([(0,), (1,), (0, 0)]), (0.0, *(0.45,) * LONGEST)).draft(
        heads, None, text
    )
    found = dict(rows(draft))
    assert found[(10,)] == "both" and found[(11,)] == "heads" and found[(10, 20)] == "context"
    assert found[(10, 21)] == "heads" and len(found) == draft.tree.size


def test_where_the_context_is_trusted_other_guesses_are_worth_less():
    heads = Heads([11], [0.5])
    cost = StepCost((1.0, 1.0, 1.45, *(99.0,) * 20))
    plan = Plan(cost, Tree.from_paths([(0,)]), (0.0, *(0.9,) * LONGEST))
    alone = Plan(cost, plan.tree).draft(heads, None, ContextIndex([1, 2, 10, 1, 2]))
    assert rows(alone)[1:] == [((11,), "heads")]
    beside = plan.draft(heads, None, ContextIndex([1, 2, 10, 1, 2]))
    assert rows(beside)[1:] == [((10,), "context")], (
        "0.9 + 0.81 and 0.9 + 0.05 are not worth 1.45 times the time"
    )


def test_heads_are_not_asked_where_the_text_is_sure():
    cost = StepCost((1.0,) * 64, draft_seconds=0.5)
    sure, unsure = (Plan(cost, Tree.from_paths([(0,)]), (0.0, *(rate,) * LONGEST)) for rate in (0.6, 0.4))
    text = ContextIndex([1, 2, 10, 1, 2])
    assert set(sure.draft(Heads([11], [0.9]), None, text).source[1:]) == {"context"}
    assert "heads" in unsure.draft(Heads([11], [0.9]), None, text).source


def test_heads_that_were_not_asked_cost_no_time():
    # 1.9 tokens in 1.5 seconds are more a second than 2.71 in 2.4, and would be fewer with 100 for a draft.
    cost = StepCost((1.0, 1.5, 2.4), draft_seconds=100.0)
    sure = Plan(cost, Tree.from_paths([(0,)]), (0.0, *(0.9,) * LONGEST))
    assert sure.draft(Heads([11], [0.9]), None, ContextIndex([1, 2, 10, 1, 2])).tree.size == 2


def test_a_plan_survives_its_file(tmp_path):
    plan = Plan(
        StepCost((0.01, 0.012), 0.001), Tree.from_paths([(0,), (0, 0)]), RATES, data="artifacts/x.parquet"
    )
    plans.save(tmp_path / "plan.json", plan, SHARES, model="x")
    back = plans.load(tmp_path / "plan.json")
    assert back.cost == plan.cost and back.tree.choices == plan.tree.choices
    assert back.rates == pytest.approx(plan.rates) and back.data == plan.data
    assert plans.read_shares(tmp_path / "plan.json") == SHARES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_seconds": []}, "step_seconds must be positive"),
        ({"step_seconds": [0.1, 0.0]}, "step_seconds must be positive"),
        ({"step_seconds": [0.1, float("nan")]}, "step_seconds must be positive"),
        ({"draft_seconds": -1}, "draft_seconds 0 or more"),
        ({"draft_seconds": float("nan")}, "draft_seconds 0 or more"),
        ({"rates": [0.0, 0.5]}, "rates must be 17 numbers"),
        ({"rates": [2.0] * 17}, "from 0 to 1"),
        ({"choices": [[0, 0]]}, r"key choices: path \[0, 0\] has no parent"),
        ({"choices": None}, "expected numbers, or lists of them, under step_seconds"),
        ({"data": 3}, "data must be the name of a file, not 3"),
    ],
)
def test_a_broken_plan_is_refused_by_file_and_key(tmp_path, change, message):
    path = tmp_path / "plan.json"
    plans.save(path, Plan(FLAT, Tree.from_paths([(0,)]), RATES), SHARES)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PlanError, match=message) as error:
        plans.load(path)
    assert str(error.value).startswith(str(path))
    for broken in ("{", "[]"):
        path.write_text(broken)
        with pytest.raises(PlanError, match=r"plan\.json: expected a JSON object"):
            plans.load(path)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (None, "expected pairs of a path and how often it is right, as chapter 08 writes them"),
        ([[[0], "often"]], "expected pairs"),
        ([[[0, 0], 0.5]], r"path \[0, 0\] has no parent"),
        ([[[0], 0.2], [[1], 0.4]], "the largest first"),
        ([[[0], 1.5]], "from 0 to 1"),
        ([], "from 0 to 1"),
    ],
)
def test_broken_shares_are_refused_by_file_and_key(tmp_path, shares, message):
    path = tmp_path / "plan.json"
    plans.save(path, Plan(FLAT, Tree.from_paths([(0,)]), RATES), SHARES)
    path.write_text(json.dumps({**json.loads(path.read_text()), "shares": shares}))
    with pytest.raises(PlanError, match=rf"plan\.json: key shares: .*{message}"):
        plans.read_shares(path)


def test_heads_are_not_asked_for_a_tree_without_guesses():
    plan = Plan(FLAT, Tree.from_paths([]))
    draft = plan.draft(Heads([], []), None, ContextIndex([1, 2]))
    assert draft.tokens == [2]
