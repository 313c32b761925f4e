"""Mixture-of-experts heads: equations against NumPy, routing that learns, files, and the kernel that drafts."""

from pathlib import Path

import numpy as np
import pytest
from fake_base import FakeBase

from medusa_core import heads, tree
from medusa_core.config import ConfigError, HeadsConfig
from medusa_core.heads.moe import MoeHeads, jt
from medusa_core.hidden import Batch

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "moe.npz")
K, D, V, E, N = 3, 16, 40, 4, 12


def made(active=1, seed=1, output="shared", **more):
    """Heads with random parameters, and those parameters."""
    rng = np.random.default_rng(seed)
    config = HeadsConfig(D, V, K, kind="moe", output=output, experts=E, active_experts=active, **more)
    model = MoeHeads(config, rng.standard_normal((V, D)).astype(np.float32))
    values = {
        name: rng.standard_normal(shape).astype(np.float32) * 0.3
        for name, shape in MoeHeads.trunk_shapes(config).items()
    }
    if output == "own":
        values["lm_head"] = rng.standard_normal((K, V, D)).astype(np.float32)
    model.load_tensors(values)
    return model, values


def numpy_trunks(values, hidden, active):
    """o = h + sum of G_i SiLU(W_i h + b_i) over the chosen experts, position by position, in float64."""
    out = np.empty((K, len(hidden), D))
    for k in range(K):
        for n, h in enumerate(hidden.astype(np.float64)):
            scores = values["router"][k].astype(np.float64) @ h
            chosen = np.argsort(-scores, kind="stable")[:active]
            among = scores if active == 1 else scores[chosen]
            gates = np.exp(scores[chosen]) / np.exp(among).sum()
            out[k, n] = h
            for gate, i in zip(gates, chosen):
                x = values["weight"][k, i] @ h + values["bias"][k, i]
                out[k, n] += gate * x / (1 + np.exp(-x))
    return out


def batch(seed=2):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, V, (K + 1, N)).astype(np.int32)
    tokens[1:, -2:] = -100  # the text has ended
    hidden = rng.standard_normal((N, D)).astype(np.float32)
    return Batch(hidden, tokens, hidden, np.zeros((K, N), np.int32))


@pytest.mark.parametrize("active", [1, 2])
def test_trunks_follow_the_equations(active):
    model, values = made(active)
    hidden = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)
    got = model.trunks(jt.array(hidden)).numpy()
    np.testing.assert_allclose(got, numpy_trunks(values, hidden, active), atol=2e-5)


@pytest.mark.parametrize(
    "active, output, teacher, balance, z",
    [
        (1, "draft", 0.0, 0.0, 0.0),
        (1, "shared", 0.3, 0.5, 0.25),
        (2, "shared", 0.0, 0.0, 0.0),
        (2, "draft", 0.4, 0.5, 0.25),
    ],
)
def test_loss_and_gradients_match_torch(active, output, teacher, balance, z):
    ids = FIXTURE["draft_ids"] if output == "draft" else None
    lm_head = FIXTURE["lm_head"] if ids is None else FIXTURE["lm_head"][ids]
    shape = {"draft_vocab_size": None if ids is None else len(ids), "experts": E, "active_experts": active}
    model = MoeHeads(HeadsConfig(24, V, K, kind="moe", output=output, **shape), lm_head, ids)
    model.load_tensors({name: FIXTURE[name] for name in model.state_dict()})
    given = Batch(*(FIXTURE[name] for name in ("hidden", "tokens", "teacher_hidden", "teacher_row")))
    result = model.loss(given, None, 0.8, teacher, balance_weight=balance, z_weight=z)
    case = f"{active}-{output}-{teacher}-{balance}-{z}"
    assert result.loss.item() == pytest.approx(float(FIXTURE[f"{case}/loss"]), rel=1e-5)
    sums = result.sums()
    np.testing.assert_allclose(sums["loss"] / sums["learned"], FIXTURE[f"{case}/head_loss"], rtol=1e-5)
    parameters = model.state_dict()
    for name, gradient in zip(parameters, jt.grad(result.loss, list(parameters.values()), False)):
        want = FIXTURE[f"{case}/grad/{name}"]
        np.testing.assert_allclose(
            gradient.numpy(), want, atol=1e-4 * np.abs(want).max(), rtol=0, err_msg=name
        )


@pytest.mark.parametrize("output", ["shared", "own"])
@pytest.mark.parametrize("active", [1, 2])
def test_the_kernel_drafts_what_the_plain_version_drafts(active, output):
    model, _ = made(active, output=output)
    shape = tree.dense([3, 2, 2])
    for seed in range(5):
        hidden = np.random.default_rng(seed).standard_normal(D).astype(np.float32)
        tokens, logprob = model.draft(hidden, 7, shape)
        logits = model.head_logits(jt.array(hidden)).astype(np.float64)  # (K, V)
        plain = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert tokens[0] == 7 and logprob[0] == 0
        for node in range(1, shape.size):
            row = plain[shape.depth[node] - 1]
            assert logprob[node] == pytest.approx(
                row[tokens[node]], abs=0.1
            )  # drafts are rounded to bfloat16
            assert row[tokens[node]] >= np.sort(row)[-1 - shape.rank[node]] - 0.1


def test_router_losses_are_switchs_balance_and_st_moes_z():
    model, _ = made(active=2)
    routing = np.random.default_rng(4).standard_normal((K, N, E)).astype(np.float32)
    counted = np.arange(N) < 9
    balance, z = (value.item() for value in model.router_losses(jt.array(routing), counted))
    used = routing[:, counted].astype(np.float64)
    probability = np.exp(used) / np.exp(used).sum(axis=2, keepdims=True)
    chosen = (np.argsort(np.argsort(-used, axis=2), axis=2) < 2) / 2
    assert balance == pytest.approx((E * (chosen.mean(1) * probability.mean(1)).sum(1)).mean(), rel=1e-5)
    assert z == pytest.approx((np.log(np.exp(used).sum(axis=2)) ** 2).mean(), rel=1e-5)


def test_a_router_that_does_not_care_is_in_balance():
    model, _ = made()
    even = jt.array(np.zeros((K, N, E), np.float32))
    # Ties fall on the first expert, but every expert has the same probability.
    assert model.router_losses(even, np.ones(N, bool))[0].item() == pytest.approx(1.0)
    assert model.router_losses(even, np.ones(N, bool))[1].item() == pytest.approx(np.log(E) ** 2)


def test_losses_add_up_and_padding_does_not_count():
    model, _ = made()
    parts = batch()
    plain = model.loss(parts, None, 0.8, 0.0).loss.item()
    balance, z = model.router_losses(
        model.routing(jt.array(parts.hidden)), model.targets(parts).max(axis=0) >= 0
    )
    whole = model.loss(parts, None, 0.8, 0.0, balance_weight=0.5, z_weight=0.25).loss.item()
    assert whole == pytest.approx(plain + 0.5 * balance.item() + 0.25 * z.item(), rel=1e-5)
    moved = batch()
    moved.hidden[-2:] = 9.0
    again = model.loss(moved, None, 0.8, 0.0, balance_weight=0.5, z_weight=0.25).loss.item()
    assert again == pytest.approx(whole, rel=1e-5)


def test_the_parts_of_an_update_count_the_router_losses_once():
    model, _ = made()
    part = batch()
    own = (model.targets(part) >= 0).sum(axis=1)
    weights = {"balance_weight": 0.5, "z_weight": 0.25}
    whole = model.loss(part, own, 0.8, 0.0, **weights).loss.item()
    third = model.loss(part, 3 * own, 0.8, 0.0, **weights).loss.item()
    assert 3 * third == pytest.approx(whole, rel=1e-5)


def gradients(model, **weights):
    parameters = model.state_dict()
    loss = model.loss(batch(), None, 0.8, 0.0, **weights).loss
    return dict(zip(parameters, (g.numpy() for g in jt.grad(loss, list(parameters.values()), False))))


def test_every_parameter_learns_from_the_first_update():
    config = HeadsConfig(D, V, K, kind="moe", output="shared", experts=E, active_experts=2)
    model = MoeHeads(config, np.random.default_rng(0).standard_normal((V, D)).astype(np.float32))
    for name, gradient in gradients(model).items():
        largest = np.abs(gradient).reshape(K, E, -1).max(axis=2)
        assert (largest > 1e-6).mean() > 0.7, (
            f"{name}: {largest}"
        )  # an expert that no position chose learns later


def test_with_experts_that_are_all_zero_the_router_learns_nothing():
    model, values = made(active=2)
    model.load_tensors({name: np.zeros_like(value) for name, value in values.items()})
    assert np.abs(gradients(model)["router"]).max() == 0.0


def test_load_and_entropy_describe_the_routing():
    model, values = made()
    share, entropy = model.load(np.random.default_rng(5).standard_normal((64, D)).astype(np.float32))
    assert share.shape == (K, E) and share.sum(axis=1) == pytest.approx(1.0)
    assert (entropy > 0).all() and (entropy < np.log(E)).all()
    model.load_tensors({**values, "router": np.zeros_like(values["router"])})
    share, entropy = model.load(np.ones((4, D), np.float32))
    assert share.tolist() == [[1, 0, 0, 0]] * K and entropy == pytest.approx(np.log(E))


def test_heads_are_saved_and_read_back(tmp_path):
    base = FakeBase(tmp_path / "base")
    config = HeadsConfig(
        base.config.hidden_size,
        base.config.vocab_size,
        2,
        kind="moe",
        output="shared",
        experts=3,
        active_experts=1,
    )
    model = heads.create(config, base)
    heads.save(tmp_path / "heads", model)
    again = heads.load(tmp_path / "heads", base)
    assert again.config == config
    for name, value in model.tensors().items():
        assert np.array_equal(again.tensors()[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": None}, "experts and active_experts are needed"),
        ({"active_experts": 5}, "active_experts 5 must be 1 to the 4 experts"),
        ({"active_experts": 0}, "active_experts 0 must be"),
        ({"num_layers": 2}, "num_layers 1, not 2"),
        ({"kind": "medusa"}, "the kind is 'medusa'"),
    ],
)
def test_shapes_that_contradict_themselves_are_refused(change, message):
    good = {"kind": "moe", "output": "shared", "experts": 4, "active_experts": 1}
    with pytest.raises(ConfigError, match=message):
        HeadsConfig(D, V, K, **{**good, **change})
