"""Medusa heads: against torch's recorded results, files and names, drafting."""

from pathlib import Path

import numpy as np
import pytest
from fake_base import FakeBase

from medusa_core import checkpoint, heads, tree
from medusa_core.checkpoint import CheckpointError
from medusa_core.config import HeadsConfig
from medusa_core.hidden import Batch
from medusa_core.losses import NO_TARGET, OUTSIDE
from medusa_core.optim import AdamW

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "heads.npz")
K, D, V = 3, 16, 40


def torch_case(output: str, layers: int):
    """Heads with the fixture's weights, and its batch."""
    draft_ids = FIXTURE["draft_ids"] if output == "draft" else None
    config = HeadsConfig(D, V, K, layers, output=output, draft_vocab_size=25 if output == "draft" else None)
    lm_head = FIXTURE["lm_head"] if draft_ids is None else FIXTURE["lm_head"][draft_ids]
    model = heads.kind("medusa")(config, lm_head, draft_ids)
    weights = {
        f"{kind}{layer}": FIXTURE[f"{kind}{layer}"] for layer in range(layers) for kind in ("weight", "bias")
    }
    model.load_tensors({**weights, "lm_head": FIXTURE["own"]})
    targets = FIXTURE["targets"]
    tokens = np.concatenate([np.zeros_like(targets[:1]), targets])
    return model, Batch(FIXTURE["hidden"], tokens, FIXTURE["teacher_hidden"], FIXTURE["teacher_row"])


@pytest.mark.parametrize(
    "output, layers, weight",
    [("own", 1, 0.0), ("shared", 1, 0.5), ("draft", 1, 0.0), ("draft", 2, 0.5), ("own", 2, 0.3)],
)
def test_loss_and_gradients_match_torch(output, layers, weight):
    model, batch = torch_case(output, layers)
    result = model.loss(batch, None, 0.8, weight)
    want = {
        name.split("/", 1)[1]: FIXTURE[name]
        for name in FIXTURE.files
        if name.startswith(f"{output}-{layers}-{weight}/")
    }
    parameters = model.state_dict()
    gradients = heads_gradients(result.loss, parameters)
    assert set(parameters) == {
        name[5:].replace("own", "lm_head") for name in want if name.startswith("grad/")
    }
    assert result.loss.item() == pytest.approx(float(want["loss"]), abs=1e-5)
    sums = result.sums()
    np.testing.assert_allclose(sums["loss"] / sums["learned"], want["head_loss"], atol=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            gradient, want["grad/" + name.replace("lm_head", "own")], atol=1e-5, err_msg=name
        )


def heads_gradients(loss, parameters):
    import jittor as jt

    return {name: g.numpy() for name, g in zip(parameters, jt.grad(loss, list(parameters.values())))}


def numpy_logits(model, hidden: np.ndarray) -> np.ndarray:
    """Logits (K, N, v) by the definition, in float64."""
    weights = {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}
    logits = []
    for k in range(model.config.num_heads):
        x = hidden.astype(np.float64)
        for layer in range(model.config.num_layers):
            z = x @ weights[f"weight{layer}"][k].T + weights[f"bias{layer}"][k]
            x = x + z / (1 + np.exp(-z))
        logits.append(x @ (weights["lm_head"][k] if "lm_head" in weights else model._lm_head.numpy()).T)
    return np.stack(logits)


@pytest.mark.parametrize("output, layers", [("own", 2), ("draft", 1)])
def test_logits_match_float64(output, layers):
    model, batch = torch_case(output, layers)
    np.testing.assert_allclose(
        model(jt_array(batch.hidden)).numpy(), numpy_logits(model, batch.hidden), atol=1e-4
    )


def jt_array(array):
    import jittor as jt

    return jt.array(array)


@pytest.mark.parametrize("shared", [True, False])
def test_grouped_linear_and_its_gradients_equal_the_plain_twin(shared):
    from medusa_core.kernels.grouped_linear import grouped_linear, grouped_linear_plain, jt

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1 if shared else K, 7, 5)), rng.standard_normal((K, 9, 5))]
    y_weight = rng.standard_normal((K, 7, 9)).astype(np.float32)
    results = []
    for linear in (grouped_linear, grouped_linear_plain):
        inputs = [jt.array(array.astype(np.float32)) for array in arrays]
        y = linear(*inputs)
        results.append([v.numpy() for v in (y, *jt.grad((y * jt.array(y_weight)).sum(), inputs))])
    for fast, plain in zip(*results):
        np.testing.assert_allclose(fast, plain, atol=1e-5)


@pytest.fixture
def base(tmp_path):
    return FakeBase(tmp_path / "base")


def config(base, **changes):
    c = base.config
    return HeadsConfig(c.hidden_size, c.vocab_size, **{"num_heads": K, "output": "shared", **changes})


@pytest.mark.parametrize("output", ["own", "shared", "draft"])
def test_untrained_heads_give_the_bases_own_logits(base, output):
    ids = np.array([2, 3, 5, 7, 11, 40], np.int32) if output == "draft" else None
    changes = {"output": output, "num_layers": 2, "draft_vocab_size": 6 if output == "draft" else None}
    model = heads.create(config(base, **changes), base, ids)
    hidden = base.states(np.arange(20))
    own = model.base_logits(jt_array(hidden)).numpy()
    # A library's product of three times as many rows may add in another order.
    np.testing.assert_allclose(model(jt_array(hidden)).numpy(), np.stack([own] * K), rtol=1e-5, atol=1e-5)


def test_only_heads_are_parameters(base):
    names = {
        output: set(heads.create(config(base, output=output), base).state_dict())
        for output in ("own", "shared")
    }
    assert names == {"own": {"weight0", "bias0", "lm_head"}, "shared": {"weight0", "bias0"}}


def test_tokens_map_to_the_draft_vocabulary(base):
    ids = np.array([4, 9, 30], np.int32)
    model = heads.create(config(base, output="draft", draft_vocab_size=3), base, ids)
    assert model.to_draft(np.array([9, 4, 5, NO_TARGET, 30])).tolist() == [1, 0, OUTSIDE, NO_TARGET, 2]


def trained(base, folder, **changes):
    """Heads with random weights, saved."""
    rng = np.random.default_rng(5)
    settings = {"output": "draft", "draft_vocab_size": 6, **changes}
    ids = np.array([2, 3, 5, 7, 11, 40], np.int32) if settings["output"] == "draft" else None
    model = heads.create(config(base, **settings), base, ids)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_tensors({name: rng.standard_normal(tuple(shape)) * 0.3 for name, shape in shapes.items()})
    heads.save(folder, model, {"note": "random"})
    return model


@pytest.mark.parametrize("output", ["own", "draft"])
def test_saved_heads_come_back_with_the_same_bits(base, tmp_path, output):
    model = trained(base, tmp_path / "h", output=output, draft_vocab_size=6 if output == "draft" else None)
    loaded = heads.load(tmp_path / "h", base)
    assert loaded.config == model.config
    for name, value in model.tensors().items():
        assert np.array_equal(loaded.tensors()[name], value), name
    hidden = jt_array(base.states(np.arange(10)))
    assert np.array_equal(loaded(hidden).numpy(), model(hidden).numpy())


def test_the_frozen_lm_head_is_not_in_the_file(base, tmp_path):
    trained(base, tmp_path / "h")
    tensors, header = checkpoint.load(tmp_path / "h" / heads.WEIGHTS_FILE)
    assert {name: array.shape for name, array in tensors.items()} == {
        "weight0": (K, D, D),
        "bias0": (K, D),
        "draft_ids": (6,),
    }
    assert tensors["draft_ids"].dtype == np.int32
    assert header == {"note": "random"}


def rewrite(folder, **changes):
    path = folder / heads.WEIGHTS_FILE
    tensors, header = checkpoint.load(path)
    tensors |= changes
    checkpoint.save(path, {name: array for name, array in tensors.items() if array is not None}, header)
    return path


def test_a_tensor_of_another_shape_is_refused_by_name(base, tmp_path):
    trained(base, tmp_path / "h")
    path = rewrite(tmp_path / "h", bias0=np.zeros((K, D + 1), np.float32))
    with pytest.raises(CheckpointError) as error:
        heads.load(tmp_path / "h", base)
    assert str(path) in str(error.value)
    assert f"bias0 has shape {(K, D + 1)}, expected {(K, D)}" in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weight0": None}, "missing weight0"),
        ({"draft_ids": None}, "missing draft_ids"),
        ({"weight1": np.zeros(3, np.float32)}, "unexpected weight1"),
        ({"draft_ids": np.array([2, 3, 5, 7, 11, 50], np.int32)}, "heads.safetensors: draft_ids must be 6"),
        ({"draft_ids": np.array([2, 3, 5, 7, 40, 11], np.int32)}, "ascending"),
    ],
)
def test_missing_and_unknown_tensors_are_refused_by_name(base, tmp_path, changes, message):
    trained(base, tmp_path / "h")
    rewrite(tmp_path / "h", **changes)
    with pytest.raises(ValueError, match=message):
        heads.load(tmp_path / "h", base)


def test_heads_of_another_base_are_refused(base, tmp_path):
    trained(base, tmp_path / "h")
    with pytest.raises(heads.HeadsError, match="vocab_size 50.*this base has 60"):
        heads.load(tmp_path / "h", FakeBase(tmp_path / "other", vocabulary=60))


def test_names_are_found_and_an_unknown_one_lists_them(base, tmp_path, monkeypatch):
    monkeypatch.setattr(heads.runtime, "ARTIFACTS", tmp_path)
    assert heads.available() == []
    for name in ("second", "first"):
        trained(base, tmp_path / "heads" / name)
    assert heads.available() == ["first", "second"]
    assert heads.load("first", base).config.num_heads == K
    with pytest.raises(heads.HeadsError, match="'third'.*first, second"):
        heads.load("third", base)


def test_an_unknown_kind_lists_the_kinds(base):
    with pytest.raises(heads.HeadsError, match="'oracle' are unknown: expected one of .*medusa"):
        heads.create(config(base, kind="oracle"), base)


def test_draft_fills_a_tree_by_depth_and_rank(base, tmp_path):
    model = trained(base, tmp_path / "h")
    shape = tree.Tree.from_paths([(0,), (2,), (0, 0), (0, 1), (2, 0), (0, 1, 4)])
    hidden = base.states(np.array([4, 8]))[1]
    logits = numpy_logits(model, hidden[None])[:, 0]
    ids = np.array([2, 3, 5, 7, 11, 40])
    logprob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    order = np.argsort(-logits, axis=1)
    for given in (hidden, jt_array(hidden)):
        tokens, values = model.draft(given, 17, shape)
        assert tokens.tolist() == [17] + [ids[order[len(path) - 1, path[-1]]] for path in shape.choices]
        want = [0.0] + [logprob[len(path) - 1, order[len(path) - 1, path[-1]]] for path in shape.choices]
        np.testing.assert_allclose(values, want, atol=2e-2)  # drafts come from a bfloat16 copy


def test_a_draft_follows_the_weights_that_were_loaded_last(base, tmp_path):
    model = trained(base, tmp_path / "h", output="shared", draft_vocab_size=None)
    untrained, shape = heads.create(config(base), base), tree.dense([3, 2])
    _, before = model.draft(np.ones(D, np.float32), 7, shape)
    model.load_tensors(untrained.tensors())
    _, after = model.draft(np.ones(D, np.float32), 7, shape)
    assert not np.array_equal(after, before)
    assert np.array_equal(after, untrained.draft(np.ones(D, np.float32), 7, shape)[1])


def test_a_draft_follows_the_weights_that_an_update_changed():
    model, batch = torch_case("shared", 1)
    shape = tree.dense([3, 2])
    _, before = model.draft(batch.hidden[0], 7, shape)
    parameters = dict(model.state_dict())
    gradients = heads_gradients(model.loss(batch, None, 0.8, 0.0).loss, parameters)
    AdamW(parameters).step({name: jt_array(gradient) for name, gradient in gradients.items()}, lr=0.1)
    _, after = model.draft(batch.hidden[0], 7, shape)
    assert np.abs(after - before).max() > 0.1


def test_a_tree_deeper_than_the_heads_or_wider_than_their_vocabulary_is_an_error(base, tmp_path):
    model = trained(base, tmp_path / "h")
    with pytest.raises(tree.TreeError, match="4 deep but there are 3 heads"):
        model.draft(np.zeros(D, np.float32), 0, tree.chain(4))
    with pytest.raises(ValueError, match="ranks 7 tokens but the heads know 6"):
        model.draft(np.zeros(D, np.float32), 0, tree.dense([7]))


def test_equal_logits_are_drafted_in_the_order_of_their_ids(base):
    model = heads.create(config(base), base)
    tokens, _ = model.draft(np.zeros(D, np.float32), 9, tree.dense([4]))  # every logit is 0
    assert tokens.tolist() == [9, 0, 1, 2, 3]
