"""The joint loss: its definition, what it reaches, how it is evaluated and told."""

import numpy as np
import pytest
from tiny_model import folder_of
from train2_tiny import DATA, config_of, log_softmax

from medusa_core import llama, train2, windows
from medusa_core.lora import Adapters, LoraConfig
from medusa_core.losses import NO_TARGET
from medusa_core.train2 import Joint

jt = train2.jt


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return llama.load(folder_of(tmp_path_factory.mktemp("base") / "model"), "float32", "plain")


@pytest.fixture
def joint(base):
    """Function that makes a Joint of random adapters and heads, and a batch of 3 windows."""

    def make(seed=0, scale=0.1, **changes):
        config = config_of(base.folder, **changes)
        adapters = Adapters(base.config, LoraConfig(config.rank, config.alpha))
        rng = np.random.default_rng(seed)
        drafter = train2.train.untrained(config, base, DATA)
        base.adapt(adapters)
        model = Joint(base, adapters, drafter, config)
        shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
        if scale:
            model.load_tensors({name: scale * rng.standard_normal(shape) for name, shape in shapes.items()})
        laid = windows.cut(DATA, config.block)
        return model, laid.batch(np.arange(3), config.num_heads, 3)

    yield make
    base.adapt(None)


@pytest.mark.parametrize("distill", [True, False])
def test_the_loss_is_its_definition(joint, distill):
    model, batch = joint(distill=distill, heads_weight=0.3)
    model.heads_scale = 0.7
    states = model._states(batch)
    adapted = log_softmax(model.base.logits(states).numpy())
    with model.adapters.off():
        own = log_softmax(model.base.logits(model._states(batch)).numpy())
    row = np.flatnonzero(batch.tokens[0] != NO_TARGET)
    if distill:
        language = (np.exp(own[row]) * (own[row] - adapted[row])).sum(-1).mean()
    else:
        language = -adapted[row, batch.tokens[0, row]].mean()
    guesses = log_softmax(model.heads(states).numpy())  # (K, N, v)
    targets = model.heads.targets(batch)
    means = [-g[t >= 0, t[t >= 0]].mean() for g, t in zip(guesses, targets)]
    counts = (model.targets(batch) >= 0).sum(1)
    result = model.loss(batch, counts, 0.8, 0.0)
    assert language > 0.01
    assert result.loss.item() == pytest.approx(
        language + 0.3 * 0.7 * (0.8 * means[0] + 0.64 * means[1]), abs=1e-5
    )
    sums = result.sums()
    assert sums["loss"][int(distill)] / len(row) == pytest.approx(language, abs=1e-5)
    assert sums["learned"].tolist() == counts.tolist()


def test_the_heads_loss_reaches_the_adapters_and_the_base_stays(joint):
    model, batch = joint(scale=0)
    before = {name: model.base.weight(name).numpy() for name in ("lm_head.weight", "model.norm.weight")}
    counts = (model.targets(batch) >= 0).sum(1)
    norms = {}
    for model.heads_scale in (0.0, 1.0):
        parameters = model.state_dict()
        gradients = jt.grad(model.loss(batch, counts, 0.8, 0.0).loss, list(parameters.values()))
        norms[model.heads_scale] = {name: np.abs(g.numpy()).max() for name, g in zip(parameters, gradients)}
    # The base already says what its teacher says: what is left is rounding.
    assert max(norms[0.0].values()) < 1e-3 * max(norms[1.0].values())
    for name, norm in norms[1.0].items():
        assert (norm > 1e-6) == (not name.endswith("lora_A.weight")), (
            name
        )  # B is zero, so A cannot matter yet
    for name, value in before.items():
        assert np.array_equal(model.base.weight(name).numpy(), value)


def test_the_settings_of_the_heads_loss_reach_it(joint):
    model, batch = joint(kind="lstm")
    counts = (model.targets(batch) >= 0).sum(1)
    without, more = (
        model.loss(batch, counts, 0.8, 0.0, feature_weight=weight).loss.item() for weight in (0.0, 1.0)
    )
    assert more - without > 1e-3  # more than rounding


def test_an_evaluation_asks_for_the_tokens_that_came_whoever_taught(base, joint):
    model, _ = joint()
    laid = windows.cut(DATA.select("held-out"), 16)
    data_alone, taught = (
        train2.evaluate(model, laid, config_of(base.folder, teacher_weight=weight)) for weight in (0.0, 0.5)
    )
    assert taught == data_alone


def test_an_entry_of_the_history_tells_the_base_apart_from_the_heads():
    # Rows: the base's cross-entropy, its divergence, one head; 4 targets each, hits at ranks 0 and 1.
    hits = [[3, 1], [3, 1], [1, 2]]
    sums = {"loss": [8.0, 2.0, 4.0], "learned": [4] * 3, "targets": [4] * 3, "hits": hits}
    entry = train2.averages([sums], decay=0.8)
    assert (entry["lm_loss"], entry["lm_top1"], entry["kl"]) == (8 / 4, 3 / 4, 2 / 4)
    assert (entry["head_loss"], entry["top1"]) == ([4 / 4], [1 / 4])
