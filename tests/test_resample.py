"""How far a speed-up moves with the questions: resampling them, both sides of a quotient alike."""

import numpy as np
import pytest

from medusa_core import resample


def answers(seconds, tokens=100):
    return [{"tokens": tokens, "seconds": each} for each in seconds]


def test_questions_that_are_all_sped_up_alike_leave_no_doubt():
    plain = answers([1.0, 5.0, 2.0, 9.0])
    twice = answers([0.5, 2.5, 1.0, 4.5])
    assert resample.interval(twice, plain) == pytest.approx((2.0, 2.0))
    assert resample.difference(twice, plain, plain, plain) == pytest.approx((1.0, 1.0))


def test_the_interval_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    plain, seconds = answers(np.ones(400)), rng.uniform(0.5, 1.0, 400)
    low, high = resample.interval(answers(seconds), plain)
    middle = 1 / seconds.mean()
    half = 1.96 * seconds.std() / np.sqrt(400) * middle**2  # the delta method
    assert low == pytest.approx(middle - half, abs=0.15 * half)
    assert high == pytest.approx(middle + half, abs=0.15 * half)


def test_what_two_ways_share_does_not_widen_their_difference():
    rng = np.random.default_rng(2)
    plain, easy = answers(np.ones(50)), rng.uniform(0.3, 1.0, 50)
    low, high = resample.difference(answers(0.9 * easy), plain, answers(easy), plain)
    alone = resample.interval(answers(easy), plain)
    assert 0 < low < high and high - low < 0.3 * (alone[1] - alone[0])


def test_the_same_answers_give_the_same_interval():
    plain, drafted = answers([1.0, 2.0, 3.0]), answers([0.5, 1.9, 1.0])
    assert resample.interval(drafted, plain) == resample.interval(drafted, plain)


def test_answers_to_other_questions_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\] answers cannot be compared"):
        resample.interval(answers([1.0, 1.0]), answers([1.0, 1.0, 1.0]))
