"""Recurrent heads: against torch's recorded results, initial values, training, files, drafting."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import train_tiny
from fake_base import FakeBase, token_set
from tiny_model import tiny

from medusa_core import checkpoint, heads, train, tree
from medusa_core.config import RECURRENT_KINDS, ConfigError, HeadsConfig
from medusa_core.heads.recurrent import PackedCell
from medusa_core.hidden import Batch
from medusa_core.losses import NO_TARGET
from medusa_core.optim import AdamW
from medusa_core.train_config import TrainError

jt = train.jt
FIXTURE = np.load(Path(__file__).parent / "fixtures" / "recurrent.npz")
K, D, R, V = 3, 32, 16, 40
CASES = [
    ("gru", "draft", 0.0, 0.0),
    ("gru", "shared", 0.3, 0.5),
    ("gated", "draft", 0.3, 0.0),
    ("redrafter", "draft", 0.3, 0.0),
    ("lstm", "shared", 0.0, 0.0),
    ("lstm", "draft", 0.3, 0.7),
]
BATCH = Batch(FIXTURE["hidden"], FIXTURE["tokens"], FIXTURE["teacher_hidden"], FIXTURE["teacher_row"])


def untrained(kind: str, output: str = "draft"):
    """Heads on the fixture's LM head and embedding, as they start."""
    draft_ids = FIXTURE["draft_ids"] if output == "draft" else None
    size = 25 if output == "draft" else None
    config = HeadsConfig(D, V, K, kind=kind, output=output, draft_vocab_size=size, state_size=R)
    lm_head = FIXTURE["lm_head"] if draft_ids is None else FIXTURE["lm_head"][draft_ids]
    embedding = FIXTURE["embedding"]
    return heads.kind(kind)(config, lm_head, draft_ids, embedding_rows=lambda ids: embedding[ids])


def random(kind: str, output: str = "draft"):
    """The same with the fixture's parameters."""
    model = untrained(kind, output)
    model.load_tensors({name: FIXTURE[name.replace("cell.", f"{kind}/")] for name in model.state_dict()})
    return model


def gradients(model, loss) -> dict[str, np.ndarray]:
    parameters = model.state_dict()
    return {name: g.numpy() for name, g in zip(parameters, jt.grad(loss, list(parameters.values())))}


# ---------------------------------------------------------------- loss


@pytest.mark.parametrize("kind, output, teacher, feature", CASES)
def test_loss_and_gradients_match_torch(kind, output, teacher, feature):
    model = random(kind, output)
    result = model.loss(BATCH, None, 0.8, teacher, feature)
    case = f"{kind}-{output}-{teacher}-{feature}"
    assert result.loss.item() == pytest.approx(float(FIXTURE[f"{case}/loss"]), rel=1e-5)
    sums = result.sums()
    np.testing.assert_allclose(sums["loss"] / sums["learned"], FIXTURE[f"{case}/head_loss"], rtol=1e-5)
    wanted = {name for name in FIXTURE.files if name.startswith(f"{case}/grad/")}
    assert len(wanted) == len(model.state_dict())
    for name, gradient in gradients(model, result.loss).items():
        want = FIXTURE[f"{case}/grad/{name.removeprefix('cell.')}"]
        np.testing.assert_allclose(gradient, want, atol=1e-4 * np.abs(want).max(), rtol=0, err_msg=name)


@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_positions_without_a_target_enter_no_term_of_the_loss(kind):
    tokens = BATCH.tokens.copy()
    tokens[:, 8:] = NO_TARGET  # the last four rows become padding
    padded = dataclasses.replace(BATCH, tokens=tokens)
    hidden, states = BATCH.hidden.copy(), BATCH.teacher_hidden.copy()
    hidden[8:], states[BATCH.teacher_row[:, :8].max() + 1 :] = 99, -99
    other = dataclasses.replace(padded, hidden=hidden, teacher_hidden=states)
    model = random(kind)
    one, two = (model.loss(batch, None, 0.8, 0.3, 0.5).loss for batch in (padded, other))
    assert one.item() == two.item()
    for name, gradient in gradients(model, one).items():
        np.testing.assert_allclose(gradients(model, two)[name], gradient, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_micro_batches_with_the_steps_counts_add_up_to_the_whole(kind):
    model = random(kind)
    counts = (model.targets(BATCH) >= 0).sum(axis=1)
    whole = model.loss(BATCH, None, 0.8, 0.3, 0.5).loss
    parts = []
    for part in (slice(0, 5), slice(5, 12)):
        rows = BATCH.hidden[part], BATCH.tokens[:, part], BATCH.teacher_hidden, BATCH.teacher_row[:, part]
        parts.append(model.loss(Batch(*rows), counts, 0.8, 0.3, 0.5).loss)
    assert whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    added = [gradients(model, part) for part in parts]
    for name, gradient in gradients(model, whole).items():
        np.testing.assert_allclose(added[0][name] + added[1][name], gradient, atol=1e-5, err_msg=name)


# ---------------------------------------------------------------- initial values


@pytest.mark.parametrize("kind", ["gru", "redrafter", "lstm"])
def test_untrained_heads_give_the_bases_own_logits(kind):
    model = untrained(kind)
    hidden, embeddings = jt.array(BATCH.hidden), jt.array(model.embed(BATCH.tokens[:-1]))
    assert np.array_equal(model.outputs(hidden, embeddings).numpy(), np.stack([BATCH.hidden] * K))
    own = model.base_logits(hidden).numpy()
    np.testing.assert_allclose(model(hidden, embeddings).numpy(), np.stack([own] * K), atol=1e-5)


def test_untrained_gated_heads_are_near_the_bases_own_choices():
    model = untrained("gated")
    hidden = jt.array(BATCH.hidden)
    outputs = model.outputs(hidden, jt.array(model.embed(BATCH.tokens[:-1]))).numpy()
    for k, output in enumerate(outputs, 1):
        left = (1 - 1 / (1 + np.exp(2))) ** k  # what a gate at -2 leaves of the base's state
        assert np.abs(output - left * BATCH.hidden).max() < 0.15 * np.abs(BATCH.hidden).max()


def test_gated_heads_learn_with_every_parameter_from_the_start():
    model = untrained("gated")
    for name, gradient in gradients(model, model.loss(BATCH, None, 0.8, 0.0).loss).items():
        assert (gradient != 0).mean() > 0.9, name


def test_a_network_of_two_zero_layers_never_receives_a_gradient():
    """What the gated heads of the reproduction that this study starts from do: only the last bias moves."""
    model = untrained("gated")
    zero = {f"cell.{name}" for name in ("inner", "inner_bias", "outer")}
    model.load_tensors({name: v.numpy() * (name not in zero) for name, v in model.state_dict().items()})
    optimizer = AdamW(dict(model.state_dict()))
    for _ in range(5):
        loss = model.loss(BATCH, None, 0.8, 0.0).loss
        found = dict(zip(optimizer.parameters, jt.grad(loss, list(optimizer.parameters.values()))))
        assert all((found[name].numpy() == 0).all() for name in zero)
        optimizer.step(found, 1e-2)
    tensors = model.tensors()
    assert all((tensors[name] == 0).all() for name in zero)
    assert all(np.abs(tensors[f"cell.{name}"]).max() > 1e-3 for name in ("outer_bias", "token", "gate"))


# ---------------------------------------------------------------- training


@pytest.fixture
def base(tmp_path):
    return FakeBase(tmp_path / "base")


@pytest.fixture
def fitted(base, tmp_path, monkeypatch):
    """Function that trains heads of a kind on a tiny base and returns (history, heads)."""
    monkeypatch.setattr(train.runtime, "ARTIFACTS", tmp_path)

    def run(kind, **changes):
        config = train_tiny.config(tmp_path / kind, kind=kind, **{"epochs": 8.0, **changes})
        history = train.train(config, base, token_set(60))
        return history, heads.load(tmp_path / kind / "heads", base)

    return run


@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_the_training_loop_lowers_the_loss_of_every_depth(fitted, kind):
    history, model = fitted(kind, feature_weight=0.1 if kind == "lstm" else 0.0)
    first, last = history["held_out"][0], history["held_out"][-1]
    assert all(after < 0.9 * before for before, after in zip(first["head_loss"], last["head_loss"]))
    assert model.config.kind == kind and model.config.state_size == 16  # half of 16, as of multiples of 16


def test_hearing_the_guessed_token_helps_where_a_token_decides_the_next(fitted):
    alone, hearing = (fitted(kind)[0]["held_out"][-1]["head_loss"] for kind in ("medusa", "gru"))
    assert hearing[1] < alone[1] - 0.2


def test_a_feature_weight_that_a_kind_would_ignore_is_refused(fitted):
    with pytest.raises(TrainError, match="feature_weight must be 0: the loss of heads of kind 'medusa'"):
        fitted("medusa", feature_weight=1.0)


# ---------------------------------------------------------------- settings and files


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"state_size": None}, "state_size is needed with kinds gru, .*; the kind is 'gru'"),
        ({"kind": "medusa"}, "state_size is needed with kinds .*, and only there; the kind is 'medusa'"),
        ({"state_size": 24}, "state_size 24 must be a multiple of 16"),
        ({"output": "own"}, 'need output "shared" or "draft" and num_layers 1, not \'own\' and 1'),
        ({"num_layers": 2}, "not 'shared' and 2"),
    ],
)
def test_settings_that_no_recurrent_heads_can_have_are_refused(changes, message):
    settings = {"kind": "gru", "output": "shared", "state_size": R, **changes}
    with pytest.raises(ConfigError, match=message):
        HeadsConfig(D, V, K, **settings)


def test_a_config_file_from_before_there_was_a_state_size_still_loads(tmp_path):
    raw = HeadsConfig(D, V, K, output="shared").to_dict()
    del raw["state_size"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert heads.read_config(tmp_path) == HeadsConfig(D, V, K, output="shared")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], r"config\.json: holds a list, expected a JSON object"),
        ({"kind": "medusa", "hidden_size": 16}, r"config\.json: keys vocab_size are missing"),
        ({"hidden": 16}, r"config\.json: unknown keys hidden; expected"),
    ],
)
def test_a_config_file_that_is_none_is_named_with_its_keys(tmp_path, raw, message):
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=message):
        heads.read_config(tmp_path)


def saved(base, folder, kind):
    """Heads with random parameters in a folder."""
    ids = np.array([2, 3, 5, 7, 11, 40], np.int32)
    size, vocabulary = base.config.hidden_size, base.config.vocab_size
    config = HeadsConfig(size, vocabulary, K, kind=kind, draft_vocab_size=6, state_size=R)
    model, rng = heads.create(config, base, ids), np.random.default_rng(5)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_tensors({name: rng.standard_normal(tuple(shape)) * 0.3 for name, shape in shapes.items()})
    heads.save(folder, model)
    return model


@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_saved_heads_come_back_with_the_same_bits(base, tmp_path, kind):
    model = saved(base, tmp_path / "h", kind)
    loaded = heads.load(tmp_path / "h", base)
    assert loaded.config == model.config
    for name, value in model.tensors().items():
        assert np.array_equal(loaded.tensors()[name], value), name
    shape = tree.dense([3, 2, 2])
    drafts = [m.draft(base.states(np.arange(9))[-1], 30, shape) for m in (model, loaded)]
    assert all(np.array_equal(one, two) for one, two in zip(*drafts))


def test_a_tensor_that_is_missing_or_misshapen_is_refused_by_name(base, tmp_path):
    saved(base, tmp_path / "h", "lstm")
    path = tmp_path / "h" / heads.WEIGHTS_FILE
    tensors, header = checkpoint.load(path)
    del tensors["cell.recurrent"]
    tensors["cell.bias"] = np.zeros(3, np.float32)
    checkpoint.save(path, tensors, header)
    with pytest.raises(checkpoint.CheckpointError) as error:
        heads.load(tmp_path / "h", base)
    message = str(error.value)
    assert str(path) in message and "missing cell.recurrent" in message
    assert "cell.bias has shape (3,), expected (64,)" in message


def test_parameters_are_counted_by_kind():
    model = untrained("lstm")
    assert heads.parameters(model.config) == sum(value.numel() for value in model.state_dict().values())
    counts = {"medusa": heads.parameters(HeadsConfig(576, 49152, draft_vocab_size=8192))}
    for kind in RECURRENT_KINDS:
        settings = {"kind": kind, "draft_vocab_size": 8192, "state_size": 288}
        counts[kind] = heads.parameters(HeadsConfig(576, 49152, **settings))
    assert counts == {
        "medusa": 1_329_408,
        "gru": 1_328_544,
        "gated": 996_768,
        "redrafter": 747_360,
        "lstm": 1_162_656,
    }


@pytest.mark.parametrize("tied", [True, False])
def test_both_base_models_give_their_embedding(tied):
    from medusa_core.kernels.model import KernelModel
    from medusa_core.llama import Llama

    config, weights = tiny(tie_word_embeddings=tied)
    ids = np.array([159, 0, 17, 17])
    for model in (
        KernelModel(config, weights),
        KernelModel(config, weights, "float32"),
        Llama(config, weights),
    ):
        assert np.array_equal(model.embedding_rows(ids), weights["model.embed_tokens.weight"][ids])


# ---------------------------------------------------------------- drafting

SHAPE = tree.Tree.from_paths(
    [(0,), (2,), (5,), (0, 0), (0, 1), (0, 3), (2, 0), (5, 1), (0, 1, 0), (0, 1, 4), (2, 0, 1), (5, 1, 0)]
)
TOKEN = 17


def teacher_forced(model, hidden, path_tokens) -> np.ndarray:
    """Log-probabilities (v,) of the token after `path_tokens`, by the pass that training makes."""
    tokens = np.full((K, 1), NO_TARGET, np.int32)
    tokens[: len(path_tokens), 0] = path_tokens
    logits = model(jt.array(hidden[None]), jt.array(model.embed(tokens))).numpy()[len(path_tokens) - 1, 0]
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


@pytest.mark.parametrize("output", ["draft", "shared"])
@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_a_draft_follows_the_teacher_forced_logits_node_by_node(kind, output):
    model, hidden = random(kind, output), FIXTURE["hidden"][4]
    tokens, logprob = model.draft_plain(jt.array(hidden), TOKEN, SHAPE)
    assert tokens.dtype == np.int32 and tokens[0] == TOKEN and logprob[0] == 0
    for node in range(1, SHAPE.size):
        above = tokens[list(SHAPE.path_to(node)[:-1])]
        expected = teacher_forced(model, hidden, above)
        index = np.argsort(-expected, kind="stable")[SHAPE.rank[node]]
        assert tokens[node] == model.to_tokens(np.arange(len(expected)))[index]
        assert logprob[node] == pytest.approx(expected[index], abs=1e-5)


@pytest.mark.parametrize("isa", [None, 1])
@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_the_kernel_drafts_what_the_plain_version_does(kind, isa):
    for output, shape in (("draft", SHAPE), ("shared", tree.chain(3)), ("draft", tree.dense([2, 5, 3]))):
        model, hidden = random(kind, output), jt.array(FIXTURE["hidden"][4])
        packed = PackedCell(model, "float32", isa)
        tokens, logprob = packed.draft(hidden, model.embed(np.array([TOKEN])), TOKEN, shape)
        want_tokens, want_logprob = model.draft_plain(hidden, TOKEN, shape)
        assert tokens.dtype == np.int32 and np.array_equal(tokens, want_tokens)
        np.testing.assert_allclose(logprob, want_logprob, atol=2e-5)


@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_rounded_drafts_differ_only_where_the_choice_was_close(kind):
    model = random(kind)
    for hidden in FIXTURE["hidden"]:
        tokens, logprob = model.draft(hidden, TOKEN, SHAPE)
        for node in range(1, SHAPE.size):  # each node, given what was drafted above it
            expected = teacher_forced(model, hidden, tokens[list(SHAPE.path_to(node)[:-1])])
            own = expected[list(FIXTURE["draft_ids"]).index(tokens[node])]
            assert logprob[node] == pytest.approx(own, abs=0.4)
            assert own == pytest.approx(-np.sort(-expected)[SHAPE.rank[node]], abs=0.4)


def test_drafts_use_the_weights_of_the_last_update():
    model, hidden = random("gru"), FIXTURE["hidden"][4]
    before = model.draft(hidden, TOKEN, SHAPE)[1]
    loss = model.loss(BATCH, None, 0.8, 0.0).loss
    optimizer = AdamW(dict(model.state_dict()))
    optimizer.step(dict(zip(optimizer.parameters, jt.grad(loss, list(optimizer.parameters.values())))), 0.1)
    after = model.draft(hidden, TOKEN, SHAPE)[1]
    assert np.abs(after - before).max() > 0.1
    fresh = random("gru")
    fresh.load_tensors(model.tensors())
    assert np.array_equal(after, fresh.draft(hidden, TOKEN, SHAPE)[1])


def test_a_tree_deeper_than_trained_or_wider_than_the_vocabulary_is_an_error():
    model = random("gru")
    with pytest.raises(tree.TreeError, match="4 deep but there are 3 heads"):
        model.draft(np.zeros(D, np.float32), 0, tree.chain(4))
    with pytest.raises(ValueError, match="ranks 26 tokens but the heads know 25"):
        model.draft(np.zeros(D, np.float32), 0, tree.dense([26]))
