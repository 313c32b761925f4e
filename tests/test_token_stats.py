"""Token statistics against counts made by hand."""

import numpy as np
import pytest

from medusa_core.token_stats import coverage, frequencies, loop_period


def test_frequencies_count_every_answer():
    answers = [np.array([1, 1, 4]), np.array([4, 0], np.int32)]
    assert frequencies(answers, 6).tolist() == [1, 2, 0, 0, 2, 0]
    assert frequencies([], 3).tolist() == [0, 0, 0]


def test_coverage_ranks_by_one_count_and_measures_on_the_other():
    chosen_by = np.array([5, 1, 9, 1])  # order: 2, 0, then 1 before 3
    counted_on = np.array([10, 20, 30, 40])
    assert coverage(chosen_by, counted_on, [1, 2, 3, 4]).tolist() == [0.3, 0.4, 0.6, 1.0]


@pytest.mark.parametrize("size", [0, 5])
def test_a_draft_vocabulary_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match=r"1 \.\. 4"):
        coverage(np.ones(4), np.ones(4), [size])


@pytest.mark.parametrize(
    ("ids", "period"),
    [
        ([7, 8, 9] + [1, 2] * 8, 2),
        ([1, 2] * 7, 0),  # 14 tokens: too short to call it a loop
        ([5] * 16, 1),
        ([5] * 15, 0),
        (list(range(6)) * 4, 6),
        (list(range(6)) * 3, 0),  # three times is emphasis
        ([1, 2] * 8 + [3], 0),  # it got out
        ([0, 2, 4, 6, 8] * 4 + [0, 2], 5),  # cut in the middle of a round
        (list(range(40)), 0),
        ([], 0),
    ],
)
def test_a_loop_is_a_stretch_repeated_to_the_end(ids, period):
    assert loop_period(ids) == period


def test_loops_longer_than_asked_for_are_not_looked_for():
    ids = list(range(10)) * 5
    assert loop_period(ids) == 10
    assert loop_period(ids, longest=9) == 0
