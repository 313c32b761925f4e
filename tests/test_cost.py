"""What a step of so many rows costs, relative to a plain one."""

import numpy as np
import pytest

from medusa_core.cost import Rounds, StepCost, never_falling


def test_overhead_is_a_step_and_its_draft_over_a_plain_step():
    machine = StepCost((0.010, 0.011, 0.015), draft_seconds=0.002)
    assert machine.rows == 3
    assert machine.overhead(1, drafted=False) == 1.0
    assert machine.overhead(3) == pytest.approx(1.7)
    assert machine.overhead(3, drafted=False) == pytest.approx(1.5)


ROUNDS = Rounds(
    (1, 2, 4), np.array([[2.0, 3.0, 4.0], [4.0, 4.0, 8.0], [3.0, 5.0, 9.0]]), np.array([1.0, 2.0, 3.0])
)


def test_the_cost_is_the_mean_of_the_rounds_and_a_line_between_sizes():
    assert ROUNDS.cost() == StepCost((3.0, 4.0, 5.5, 7.0), draft_seconds=2.0)


def test_a_round_in_which_the_machine_stood_still_does_not_count():
    seconds, drafts = np.tile([1.0, 2.0], (10, 1)), np.full(10, 0.5)
    seconds[3], drafts[7] = [90.0, 3.0], 40.0
    assert Rounds((1, 2), seconds, drafts).cost() == StepCost((1.0, 2.0), draft_seconds=0.5)


def test_what_is_saved_is_read_again():
    again = Rounds.of(ROUNDS.saved())
    assert again.rows == ROUNDS.rows and again.cost() == ROUNDS.cost()


def test_a_step_is_compared_with_the_plain_step_of_its_own_round():
    assert ROUNDS.overheads(drafted=False).tolist()[:2] == [[1.0, 1.5, 2.0], [1.0, 1.0, 2.0]]
    assert ROUNDS.overheads().tolist()[:2] == [[1.0, 2.0, 2.5], [1.0, 1.5, 2.5]]


def test_a_row_costs_what_lies_between_the_two_largest_sizes():
    assert ROUNDS.seconds_of_a_row() == 2.0  # 0.5, 2 and 2 in the three rounds


def test_one_slow_moment_does_not_raise_what_comes_after_it():
    assert never_falling([1.0, 5.0, 2.0, 2.0, 4.0]) == [1.0, 3.0, 3.0, 3.0, 4.0]
    assert never_falling([3.0, 2.0, 1.0]) == [2.0, 2.0, 2.0]
    assert never_falling([1.0, 1.5, 2.0]) == [1.0, 1.5, 2.0]
