"""Step cost: measured for every number of rows, never falling, and divided by a plain step."""

import numpy as np
import pytest
from fake_decoding import FakeBase, FakeDrafter

from medusa_core import cost
from medusa_core.cost import StepCost
from medusa_core.tree import Tree, chain


def test_overhead_is_a_step_and_its_draft_over_a_plain_step():
    machine = StepCost((0.010, 0.011, 0.015), draft_seconds=0.002)
    assert machine.rows == 3
    assert machine.overhead(1, drafted=False) == 1.0
    assert machine.overhead(3) == pytest.approx(1.7)
    assert machine.overhead(3, drafted=False) == pytest.approx(1.5)


def test_every_number_of_rows_gets_a_time_that_never_falls():
    base = FakeBase()
    trees = {
        1: chain(0),
        2: chain(1),
        4: chain(3),
        7: Tree.from_paths([(0,), (1,), (2,), (0, 0), (0, 1), (1, 0)]),
    }
    measured = cost.measure(base, FakeDrafter(base), trees, past=20, repeats=2, burst=0.01)
    assert measured.rows == 7 and measured.draft_seconds > 0
    assert min(measured.step_seconds) > 0 and (np.diff(measured.step_seconds) >= 0).all()
    # rows between two that were measured lie on the line between them
    two, three, four = measured.step_seconds[1:4]
    assert three == pytest.approx((two + four) / 2)


def test_without_a_drafter_nothing_is_drafted():
    measured = cost.measure(FakeBase(), None, {1: chain(0), 2: chain(1)}, past=8, repeats=1, burst=0.01)
    assert measured.draft_seconds == 0.0
