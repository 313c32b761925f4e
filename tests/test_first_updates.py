"""Which parameters the loss reaches, and what a draft reads."""

import numpy as np
import pytest
from fake_base import FakeBase

from medusa_core import heads
from medusa_core.config import HeadsConfig
from medusa_core.draft_traffic import draft_megabytes
from medusa_core.first_updates import largest_gradients
from medusa_core.hidden import Batch

SHAPE = {"hidden_size": 64, "vocab_size": 500, "num_heads": 3, "output": "draft", "draft_vocab_size": 100}


@pytest.fixture
def model(tmp_path):
    base = FakeBase(tmp_path / "base")
    config = HeadsConfig(
        base.config.hidden_size, base.config.vocab_size, 2, kind="gated", output="shared", state_size=16
    )
    return heads.create(config, base)


@pytest.fixture
def batches(model):
    rng = np.random.default_rng(3)
    made = []
    for _ in range(3):
        tokens = rng.integers(0, model.config.vocab_size, (3, 8)).astype(np.int32)
        hidden = rng.standard_normal((8, model.config.hidden_size)).astype(np.float32)
        made.append(Batch(hidden, tokens, hidden, np.zeros((2, 8), np.int32)))
    return made


def test_every_parameter_has_a_gradient_and_moves(model, batches):
    before = model.tensors()
    found = largest_gradients(model, batches)
    assert list(found) == list(before) and min(found.values()) > 0
    assert all(not np.array_equal(before[name], value) for name, value in model.tensors().items())


def test_what_starts_at_zero_on_both_sides_has_none_and_stays(model, batches):
    zero = {"cell.inner", "cell.inner_bias", "cell.outer"}
    model.load_tensors({name: value * (name not in zero) for name, value in model.tensors().items()})
    found = largest_gradients(model, batches)
    assert {name for name, size in found.items() if size == 0} == zero
    assert all((model.tensors()[name] == 0).all() for name in zero)


@pytest.mark.parametrize(
    ("kind", "more", "numbers"),
    [
        ("medusa", {}, 3 * (64 * 64 + 64) + 100 * 64),
        ("moe", {"experts": 4, "active_experts": 1}, 3 * 4 * 64 + 3 * (64 * 64 + 64) + 100 * 64),
        ("moe", {"experts": 4, "active_experts": 2}, 3 * 4 * 64 + 6 * (64 * 64 + 64) + 100 * 64),
        (
            "redrafter",
            {"state_size": 32},
            64 * 64 + 64 + 2 * (32 * 64 + 32 * 32 + 32 + 64 * 32) + 2 * 100 * 64,
        ),
    ],
)
def test_a_draft_two_deep_reads_what_it_multiplies_by(kind, more, numbers):
    config = HeadsConfig(**SHAPE, kind=kind, **more)
    assert draft_megabytes(config, 2) == pytest.approx(2 * numbers / 1e6)


def test_heads_with_an_lm_head_each_read_each():
    config = HeadsConfig(64, 500, 3, kind="medusa", output="own")
    assert draft_megabytes(config, 1) == pytest.approx(2 * 3 * (64 * 64 + 64 + 500 * 64) / 1e6)


def test_of_a_mixture_only_the_chosen_experts_are_read_and_every_lm_head():
    config = HeadsConfig(64, 500, 3, kind="moe", output="own", experts=4, active_experts=1)
    numbers = 3 * (4 * 64 + 64 * 64 + 64 + 500 * 64)  # router, an expert, an LM head
    assert draft_megabytes(config, 1) == pytest.approx(2 * numbers / 1e6)
