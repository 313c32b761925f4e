"""What a step of so many rows costs, relative to a plain one."""

import pytest

from medusa_core.cost import StepCost


def test_overhead_is_a_step_and_its_draft_over_a_plain_step():
    machine = StepCost((0.010, 0.011, 0.015), draft_seconds=0.002)
    assert machine.rows == 3
    assert machine.overhead(1, drafted=False) == 1.0
    assert machine.overhead(3) == pytest.approx(1.7)
    assert machine.overhead(3, drafted=False) == pytest.approx(1.5)
