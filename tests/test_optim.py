"""The optimiser against float64, what it leaves behind, the norm of gradients, the schedule."""

import math

import numpy as np
import pytest

from medusa_core import optim
from medusa_core.optim import AdamW, learning_rate

jt = optim.jt


def numpy_adamw(p, gradients, rates, decay, scale=1.0, beta1=0.9, beta2=0.999, eps=1e-8):
    """Loshchilov and Hutter, algorithm 2, in float64."""
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates), 1):
        g = g.astype(np.float64) * scale
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        p = p - lr * decay * p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p


@pytest.mark.parametrize("size", [1.0, 1e-6])  # beside the smaller gradients, eps is not negligible
@pytest.mark.parametrize("plain", [False, True])
def test_adamw_matches_float64(plain, size, monkeypatch):
    if plain:
        monkeypatch.setattr(optim, "_update_in_place", optim._update_plain)
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 8)).astype(np.float32)
    gradients = (size * rng.standard_normal((5, 3, 8))).astype(np.float32)
    rates = [1e-3, 2e-3, 3e-3, 2e-3, 1e-3]
    p = jt.array(start)
    optimizer = AdamW({"p": p}, weight_decay=0.1)
    for g, lr in zip(gradients, rates):
        optimizer.step({"p": jt.array(g)}, lr, scale=0.5)
    np.testing.assert_allclose(
        p.numpy(), numpy_adamw(start, gradients, rates, 0.1, scale=0.5), rtol=2e-6, atol=1e-7
    )


def test_updated_parameters_stay_trainable_and_keep_no_history():
    p = jt.array(np.ones((4, 4), np.float32))
    optimizer = AdamW({"p": p})
    counts = []
    for _ in range(6):
        optimizer.step({"p": jt.grad((p * p).sum(), p)}, 0.01)
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_ops"])
    assert not p.is_stop_grad()
    assert counts[-1] <= counts[1]


def test_learning_rate_rises_linearly_and_falls_along_a_cosine():
    rates = [learning_rate(step, total=110, peak=2.0, warmup=10, final_ratio=0.1) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way
    assert rates[109] == pytest.approx(2.0 * (0.1 + 0.45 * (1 + math.cos(math.pi * 0.99))))


def test_a_second_moment_below_the_smallest_normal_number_moves_nothing_to_nan():
    for size in (8, 24, 64):
        p = jt.array(np.full(size, 0.5, np.float32))
        AdamW({"p": p}).step({"p": jt.array(np.full(size, 1e-20, np.float32))}, lr=0.1)
        assert np.isfinite(p.numpy()).all() and (p.numpy() <= 0.5).all()


def test_the_norm_of_a_large_gradient_loses_nothing():
    gradient = jt.full((4, 49152, 64), 1e-3)
    assert optim.global_norm({"lm_head": gradient}) == pytest.approx(
        1e-3 * math.sqrt(4 * 49152 * 64), rel=1e-5
    )


def test_a_group_of_parameters_learns_at_its_own_rate():
    parameters = {name: jt.array(np.ones(4, np.float32)) for name in ("slow", "fast")}
    optimizer = AdamW(parameters, weight_decay=0.5, rates={"fast": 4.0})
    optimizer.step({name: jt.array(np.ones(4, np.float32)) for name in parameters}, 0.01)
    moved = {name: 1 - p.numpy() for name, p in parameters.items()}
    np.testing.assert_allclose(moved["slow"], 0.01 + 0.005, rtol=1e-4)
    np.testing.assert_allclose(moved["fast"], 4 * moved["slow"], rtol=1e-4)
