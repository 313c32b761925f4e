"""Figures of the tree search say what the data say."""

import numpy as np
import pytest

from medusa_core import plots
from medusa_core.cost import Rounds, StepCost
from medusa_core.path_shares import PathShares

COST = StepCost(tuple(0.01 * (1 + 0.02 * n + 0.01 * max(0, n - 6) ** 2) for n in range(16)), 0.001)
SHARES = PathShares({(0,): 0.4, (1,): 0.2, (0, 0): 0.15, (2,): 0.1, (3,): 0.05})


def test_step_cost_draws_the_step_with_and_without_the_draft():
    draft, step, single = plots.fig_step_cost(COST).data
    assert list(step.x) == list(range(1, 17)) and step.y[0] == 1.0
    assert draft.y[0] == 1.0 and draft.y[3] == pytest.approx(step.y[3] + 0.1, abs=1e-3)
    assert list(single.y) == list(single.x)


def test_each_round_stands_at_the_speed_of_its_plain_step_and_above_what_the_processor_allows():
    rounds = Rounds((1, 4, 16), np.array([[1.0, 1.5, 4.0], [2.0, 2.0, 6.0]]), np.array([0.5, 0.0]))
    four, floor, sixteen, _ = plots.fig_balance(rounds, read=4_000_000_000, sizes=(4, 16)).data
    assert list(four.x) == [4.0, 2.0] and list(four.y) == [2.0, 1.0]  # GB/s; the first round's draft counts
    assert list(sixteen.y) == [4.5, 3.0]
    row = np.median([2.5, 4.0]) / 12  # seconds
    assert floor.y[-1] == pytest.approx(max(1.0, 4 * row / (4.0 / floor.x[-1])), abs=1e-3)
    assert floor.y[0] == 1.0


def test_the_star_stands_on_the_largest_speed_up():
    tokens, speedup, star = plots.fig_choice(SHARES, COST).data
    best = int(np.argmax(speedup.y))
    assert star.x[0] == speedup.x[best] and star.y[0] == pytest.approx(speedup.y[best], abs=1e-4)
    assert f"{star.x[0]} rows" in star.name
    assert tokens.y[0] == 1.0 and tokens.y[-1] == pytest.approx(1.9)


def test_context_rates_are_bars_by_length_of_match():
    (bars,) = plots.fig_context_rates([0.0, 0.2, 0.5, 0.9]).data
    assert list(bars.x) == ["1", "2", "3+"] and list(bars.y) == [0.2, 0.5, 0.9]


def test_a_profile_stacks_every_part_of_every_step():
    profiles = {"plain": {"draft": 0.0, "qkv": 0.002}, "8 rows": {"draft": 0.001, "qkv": 0.003}}
    draft, qkv = plots.fig_step_profile(profiles).data
    assert list(draft.y) == ["plain", "8 rows"] and list(draft.x) == [0.0, 1.0]
    assert qkv.name == "qkv" and list(qkv.x) == [2.0, 3.0]


def test_predictions_are_points_beside_the_diagonal():
    rows = [
        {"name": "a", "speedup": 1.2, "predicted_speedup": 1.3},
        {"name": "b", "speedup": 0.5, "predicted_speedup": 0.6},
    ]
    figure = plots.fig_predicted(rows)
    points = {trace.name: (trace.x[0], trace.y[0]) for trace in figure.data if trace.name}
    assert points == {"a": (1.3, 1.2), "b": (0.6, 0.5)}
    assert len(figure.data) == 5 and "speed-up" in figure.layout.title.text
