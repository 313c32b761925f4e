"""Steps are timed for every number of rows, and a larger one never counts as cheaper."""

import numpy as np
import pytest
from fake_decoding import FakeBase, FakeDrafter

from medusa_core import meter
from medusa_core.tree import Tree, chain


def test_every_number_of_rows_gets_a_time_that_never_falls():
    base = FakeBase()
    trees = {
        1: chain(0),
        2: chain(1),
        4: chain(3),
        7: Tree.from_paths([(0,), (1,), (2,), (0, 0), (0, 1), (1, 0)]),
    }
    measured = meter.measure(base, FakeDrafter(base), trees, past=20, rounds=2, burst=0.01).cost()
    assert measured.rows == 7 and measured.draft_seconds > 0
    assert min(measured.step_seconds) > 0 and (np.diff(measured.step_seconds) >= 0).all()
    # rows between two that were measured lie on the line between them
    two, three, four = measured.step_seconds[1:4]
    assert three == pytest.approx((two + four) / 2)


def test_one_head_gets_a_tree_of_every_size_too():
    for heads in (1, 4):
        assert [tree.size for tree in meter.any_trees(heads, (1, 2, 64)).values()] == [1, 2, 64]


def test_the_text_before_the_steps_is_of_the_models_tokens():
    base = FakeBase()
    ids = meter.filler(base, 250)
    assert len(ids) == 250 and ids.min() > 0 and ids.max() < base.config.vocab_size < 250
    meter.Meter(base, FakeDrafter(base), {1: chain(0)}, past=190)


def test_without_a_drafter_nothing_is_drafted():
    measured = meter.measure(FakeBase(), None, {1: chain(0), 2: chain(1)}, past=8, rounds=1, burst=0.01)
    assert measured.drafts.tolist() == [0.0]


def test_first_steps_of_every_size_go_by_before_the_clock_starts():
    drafted = []

    class Counting(FakeDrafter):
        def draft(self, hidden, token, tree):
            drafted.append(tree.size)
            return super().draft(hidden, token, tree)

    meter.Meter(FakeBase(), Counting(FakeBase()), {1: chain(0), 2: chain(1), 3: chain(2)}, past=8)
    assert drafted == [2] * meter.UNTIMED + [3] * meter.UNTIMED


def test_every_round_keeps_its_steps_and_its_draft(monkeypatch):
    own = meter.Meter(FakeBase(), FakeDrafter(FakeBase()), {1: chain(0), 3: chain(2)}, past=8)
    first = {1: (0.0, 2.0), 3: (1.0, 4.0)}  # seconds of draft and step, by rows
    second = {1: (0.0, 4.0), 3: (3.0, 8.0)}
    for clock in (first, second):
        monkeypatch.setattr(own, "_step", lambda tree, n, clock=clock: clock[n])
        own.round(burst=0.0)
    rounds = own.rounds()
    assert rounds.rows == (1, 3) and rounds.seconds.tolist() == [[2.0, 4.0], [4.0, 8.0]]
    assert rounds.drafts.tolist() == [1.0, 3.0]
