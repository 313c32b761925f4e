"""Prospects: what trees promise, and measurements that cannot be read get words."""

import json

import numpy as np
import pytest

from medusa_core import prospects
from medusa_core.cost import StepCost
from medusa_core.path_shares import PathShares
from medusa_core.prospects import COUNTED, PRODUCT, Measured, Prospects, ProspectsError
from medusa_core.tree import Tree, TreeError

ACCURACY = np.array([[0.5, 0.2, 0.1], [0.4, 0.1, 0.05]])
COST = StepCost((0.01, 0.011, 0.012, 0.02, 0.04), 0.001)
SHARES = PathShares({(0,): 0.5, (0, 0): 0.3, (1,): 0.2, (0, 1): 0.1})
MEASURED = Measured(ACCURACY, COST, SHARES)
FILE = {
    "accuracy": ACCURACY.tolist(),
    "step_seconds": list(COST.step_seconds),
    "draft_seconds": COST.draft_seconds,
    "shares": [[list(path), share] for path, share in SHARES.share.items()],
}


def test_a_tree_is_judged_by_its_paths_and_its_rows():
    shape = Tree.from_paths([(0,), (0, 0), (1,)])
    outlook = Prospects(MEASURED, COUNTED).judge(shape)
    assert outlook.tokens_per_step == pytest.approx(2.0)  # 1 + .5 + .3 + .2
    assert outlook.overhead == pytest.approx(2.1)  # (20 + 1) / 10 ms
    assert outlook.speedup == pytest.approx(2.0 / 2.1)
    assert Prospects(MEASURED).judge(shape).tokens_per_step == pytest.approx(1.9)  # .5 * .4 instead of .3


def test_the_root_alone_is_plain_decoding():
    outlook = Prospects(MEASURED).judge(Tree.from_paths([]))
    assert (outlook.tokens_per_step, outlook.overhead, outlook.speedup) == (1, 1, 1)


@pytest.mark.parametrize("rule", [PRODUCT, COUNTED])
def test_the_curve_holds_the_best_trees_and_its_top_is_the_fastest(rule):
    found = Prospects(MEASURED, rule)
    assert found.most == 4  # rows that were timed
    for nodes, outlook in enumerate(found.curve):
        judged = found.judge(found.best(nodes))
        assert judged.tokens_per_step == pytest.approx(outlook.tokens_per_step)
        assert judged.overhead == outlook.overhead
    assert found.curve[found.fastest].speedup == max(outlook.speedup for outlook in found.curve)


def test_where_many_rows_were_timed_a_tree_may_hold_every_path_of_the_guesses():
    assert Prospects(Measured(ACCURACY, StepCost((0.01,) * 64))).most == 3 + 3 * 3


def test_counted_paths_choose_as_the_shares_themselves_do():
    counted = Prospects(MEASURED, COUNTED)
    assert counted.best(counted.fastest).choices == SHARES.choose(COST).choices


def test_a_path_that_was_not_counted_brings_nothing():
    values = Prospects(MEASURED, COUNTED).values(Tree.from_paths([(0,), (2,)]))
    assert values.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([[0], [0, 0], [0, 0, 0]], r"path \[0, 0, 0\] is 3 deep, but there are 2 heads"),
        ([[3]], r"path \[3\]: rank 3 is beyond the 3 guesses of a head"),
        ([[0], [1], [2], [0, 0], [0, 1]], "6 rows with the root, but steps were timed up to 5 rows"),
    ],
)
def test_trees_that_were_not_measured_are_refused_by_path(paths, message):
    with pytest.raises(TreeError, match=message):
        Prospects(MEASURED).judge(Tree.from_paths(paths))


def test_without_counted_paths_only_accuracies_can_be_asked():
    bare = Measured(ACCURACY, COST)
    assert bare.rules == [PRODUCT]
    with pytest.raises(ProspectsError, match="cannot be valued by 'counted"):
        Prospects(bare, COUNTED)


def test_a_result_file_gives_what_was_measured(tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps(FILE))
    found = prospects.load(file)
    assert np.array_equal(found.accuracy, ACCURACY) and found.cost == COST and found.shares == SHARES


BROKEN = {
    "no JSON": ("{", "expected a JSON object"),
    "a list": ("[1, 2]", "expected a JSON object"),
    "no times": ({**FILE, "step_seconds": []}, "step_seconds must be positive"),
    "a negative time": ({**FILE, "step_seconds": [0.01, -1]}, "step_seconds must be positive"),
    "a time that is no number": ({**FILE, "step_seconds": ["fast"]}, "expected a JSON object"),
    "an endless draft": ({**FILE, "draft_seconds": float("inf")}, "draft_seconds 0 or more"),
    "accuracy above one": ({**FILE, "accuracy": [[1.5]]}, "accuracy must hold numbers from 0 to 1"),
    "accuracy that is not measured": ({**FILE, "accuracy": [[float("nan")]]}, "numbers from 0 to 1"),
    "accuracy of one head": ({**FILE, "accuracy": [0.5]}, r"accuracy must be \(heads, ranks\)"),
    "ragged accuracy": ({**FILE, "accuracy": [[0.5, 0.1], [0.5]]}, "expected a JSON object"),
    "a missing key": ({key: FILE[key] for key in FILE if key != "shares"}, "key 'shares' is not there"),
    "a share above one": ({**FILE, "shares": [[[0], 1.5]]}, r"shares: \[0\] has 1.5"),
    "shares that rise": (
        {**FILE, "shares": [[[0], 0.1], [[1], 0.2]]},
        r"shares: \[1\] has 0.2, expected 0 to 0.1",
    ),
    "a share without its parent": (
        {**FILE, "shares": [[[0, 0], 0.1]]},
        r"shares: path \[0, 0\] has no parent",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_result_file_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "broken.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ProspectsError, match=message) as error:
        prospects.load(file)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ProspectsError, match="nowhere.json: cannot be read"):
        prospects.load(tmp_path / "nowhere.json")
