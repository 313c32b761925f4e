"""Cross-entropy of heads: the fused kernel and its plain twin against NumPy in float64."""

import numpy as np
import pytest

from medusa_core import losses
from medusa_core.losses import NO_TARGET, OUTSIDE

jt = losses.jt
ROWS, V = 37, 101
IMPLEMENTATIONS = [losses._cross_entropy_fused, losses._cross_entropy_plain]


def reference(logits, targets, q=None, q_row=None, w=0.0):
    """Loss and rank of each row and d(sum of g * loss)/d(logits), row by row in float64."""
    z = logits.astype(np.float64)
    loss, rank, gradient = np.zeros(len(z)), np.full(len(z), z.shape[1]), np.zeros_like(z)
    for r, t in enumerate(targets):
        if t < 0:
            continue
        p = np.exp(z[r] - z[r].max())
        p /= p.sum()
        goal = np.zeros(z.shape[1])
        goal[t] = 1 - w
        if w:
            goal += w * q[q_row[r]]
        loss[r] = -(goal * np.log(p)).sum()
        rank[r] = list(np.argsort(-z[r], kind="stable")).index(t)
        gradient[r] = p - goal
    return loss, rank, gradient


def problem(seed=0):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((ROWS, V)) * 4).astype(np.float32)
    logits[3] = np.round(logits[3])  # ties
    targets = rng.integers(0, V, ROWS).astype(np.int32)
    targets[[5, 20]] = NO_TARGET
    targets[11] = OUTSIDE
    q = np.exp(rng.standard_normal((8, V)))
    q = (q / q.sum(1, keepdims=True)).astype(np.float32)
    return logits, targets, q, rng.integers(0, 8, ROWS).astype(np.int32), rng.random(ROWS).astype(np.float32)


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cross_entropy_and_gradient_match_float64(implementation, weight):
    logits, targets, q, q_row, g = problem()
    z = jt.array(logits)
    loss, rank = implementation(z, jt.array(targets), jt.array(q), jt.array(q_row), weight)
    gradient = jt.grad((loss * jt.array(g)).sum(), z)
    want_loss, want_rank, want_gradient = reference(logits, targets, q, q_row, weight)
    np.testing.assert_allclose(loss.numpy(), want_loss, atol=2e-6, rtol=2e-6)
    np.testing.assert_array_equal(rank.numpy(), want_rank)
    np.testing.assert_allclose(gradient.numpy(), want_gradient * g[:, None], atol=1e-6)


def test_gradient_matches_finite_differences_of_the_loss():
    logits, targets, q, q_row, _ = problem(1)
    z = jt.array(logits)
    loss, _ = losses.cross_entropy(z, targets, jt.array(q), q_row, 0.5)
    gradient = jt.grad(loss.sum(), z).numpy().astype(np.float64)
    direction = np.random.default_rng(2).standard_normal(logits.shape)
    step = 1e-5
    up = reference(logits + step * direction, targets, q, q_row, 0.5)[0].sum()
    down = reference(logits - step * direction, targets, q, q_row, 0.5)[0].sum()
    assert (gradient * direction).sum() == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], np.float32)
    loss, _ = losses.cross_entropy(jt.array(logits), np.array([1, 2], np.int32))
    np.testing.assert_allclose(loss.numpy(), [2e4, np.log(3)], rtol=1e-4)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_logit_that_is_no_number_reaches_the_loss(poison):
    logits = np.zeros((1, V), np.float32)
    logits[0, 7] = poison  # fast-math must not swallow it
    loss, _ = losses.cross_entropy(jt.array(logits), np.array([3], np.int32))
    assert not np.isfinite(loss.numpy()).any()


def test_teacher_softmax_matches_float64():
    logits = problem()[0]
    want = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    np.testing.assert_allclose(losses.softmax(jt.array(logits)).numpy(), want, atol=1e-6)


def heads_problem():
    rng = np.random.default_rng(3)
    targets = rng.integers(0, V, (3, 10)).astype(np.int32)
    targets[0, 8:] = NO_TARGET
    targets[1, [0, 4]] = OUTSIDE
    return (rng.standard_normal((3, 10, V)) * 2).astype(np.float32), targets


def test_medusa1_loss_is_the_decayed_sum_of_each_heads_mean():
    logits, targets = heads_problem()
    result = losses.medusa1_loss(jt.array(logits), targets, decay=0.8)
    means = [reference(z, t)[0].sum() / (t >= 0).sum() for z, t in zip(logits, targets)]
    assert result.loss.item() == pytest.approx(0.8 * means[0] + 0.64 * means[1] + 0.512 * means[2], rel=1e-6)
    np.testing.assert_allclose(result.sums()["loss"] / [8, 8, 10], means, rtol=1e-6)


def test_targets_outside_the_draft_vocabulary_are_misses_but_not_lessons():
    logits, targets = heads_problem()
    logits[1, 1, targets[1, 1]] = 100  # one certain hit
    sums = losses.medusa1_loss(jt.array(logits), targets).sums()
    assert sums["learned"].tolist() == [8, 8, 10]
    assert sums["targets"].tolist() == [8, 10, 10]
    order = np.argsort(-logits, axis=-1, kind="stable")
    hits = [[sum(order[k, n, r] == targets[k, n] for n in range(10)) for r in range(10)] for k in range(3)]
    assert sums["hits"].tolist() == hits
    assert sums["hits"][1, 0] >= 1


def test_micro_batches_with_the_steps_counts_add_up_to_the_whole():
    logits, targets = heads_problem()

    def loss_and_gradient(part, counts):
        z = jt.array(logits[:, part])
        loss = losses.medusa1_loss(z, targets[:, part], counts=counts).loss
        return loss.item(), jt.grad(loss, z).numpy()

    counts = losses.learned_counts(targets)
    whole, gradient = loss_and_gradient(slice(0, 10), None)
    parts = [loss_and_gradient(part, counts) for part in (slice(0, 3), slice(3, 10))]
    assert whole == pytest.approx(parts[0][0] + parts[1][0], rel=1e-6)
    np.testing.assert_allclose(np.concatenate([parts[0][1], parts[1][1]], axis=1), gradient, rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"targets": np.zeros((2, 10), np.int32)}, r"\(2, 10\), expected \(3, 10\)"),
        ({"targets": np.full((3, 10), V, np.int32)}, "outside the 101 logits"),
        ({"teacher_weight": 0.5}, "no teacher_logits"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    logits, targets = heads_problem()
    with pytest.raises(ValueError, match=message):
        losses.medusa1_loss(jt.array(logits), **{"targets": targets, **change})
