"""Losses that are no numbers stop a training, and the message names the first of them."""

import math

import pytest

from medusa_core.train_config import TrainError
from medusa_core.train_loop import check_finite


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
