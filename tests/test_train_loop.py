"""One update and its entry in the history; what is not finite stops a training, and the message names it."""

import math

import numpy as np
import pytest

from medusa_core.losses import HeadLoss
from medusa_core.optim import AdamW
from medusa_core.train_config import TrainConfig, TrainError
from medusa_core.train_loop import averages, check_finite, jt, update


class Root:
    """A model of one parameter whose loss is its square root: at 0 a number, but without a finite slope."""

    LOSS_SETTINGS = ("balance_weight",)

    def __init__(self, value: float):
        self.parameter, self.settings = jt.array(np.array([value], np.float32)), []

    def targets(self, batch):
        return np.zeros((1, 1), np.int32)

    def loss(self, batch, counts, decay, teacher_weight, **settings):
        self.settings.append(settings)
        rows, rank = self.parameter.sqrt().reshape((1, 1)), jt.zeros((1, 1), "int32")
        return HeadLoss(rows.sum(), rows, rank, self.targets(batch))


def updated(model: Root, step: int = 1, **settings) -> dict:
    optimizer = AdamW({"parameter": model.parameter})
    return update(model, optimizer, [None], 0.1, TrainConfig(kind="moe", **settings), step)


def test_a_gradient_that_is_no_number_stops_before_it_moves_a_weight():
    model = Root(0.0)
    with pytest.raises(TrainError, match="^step 5: the gradient's norm is .* while every loss is finite; "):
        updated(model, step=5)
    assert model.parameter.item() == 0.0


def test_a_loss_is_given_the_settings_that_it_names():
    model = Root(1.0)
    updated(model, balance_weight=0.3, z_weight=0.2)
    assert model.settings == [{"balance_weight": 0.3}]


def test_an_entry_of_the_history_averages_the_norms_of_its_updates():
    sums = {"loss": [1.0], "learned": [1], "targets": [1], "hits": [[1, 0, 0]]}
    entry = averages([{**sums, "grad_norm": norm} for norm in (1.0, 3.0)], decay=0.8)
    assert entry["grad_norm"] == 2.0


@pytest.mark.parametrize(
    ("sums", "before", "named"),
    [
        ([[1.0, math.nan, math.inf]], (), "the loss of head 2"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, -math.inf]], (), "the loss of head 3"),
        ([[1.0, math.nan, 3.0]], ("the base's loss",), "the loss of head 1"),
        ([[math.inf, math.nan, 3.0]], ("the base's loss",), "the base's loss"),
    ],
)
def test_the_first_loss_that_is_no_number_is_named(sums, before, named):
    with pytest.raises(TrainError, match=f"^step 7: {named} is not finite; "):
        check_finite([{"loss": loss} for loss in sums], "step 7", before)


def test_finite_losses_pass():
    check_finite([{"loss": [1.0, 2.0]}, {"loss": [0.0, 1e30]}], "step 7", ("the base's loss",))
