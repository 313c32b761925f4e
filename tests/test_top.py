"""The highest values of each row are those that sorting the whole row would put first."""

import numpy as np
import pytest

from medusa_core.top import highest


@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_the_highest_come_in_the_order_of_a_stable_sort_also_where_values_are_equal(k):
    rng = np.random.default_rng(k)
    for values in (rng.standard_normal((5, 40)), rng.integers(0, 4, (5, 40)), np.zeros((2, 40))):
        values = values.astype(np.float32)
        values[0, 3] = -np.inf
        assert np.array_equal(highest(values, k), np.argsort(-values, axis=1, kind="stable")[:, :k])
