"""Which parameters hear the loss: the gradients that heads receive in their first updates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medusa_core import runtime

runtime.start()
import jittor as jt

from medusa_core.hidden import Batch
from medusa_core.optim import AdamW


def largest_gradients(
    model,
    batches: Iterable[Batch],
    learning_rate: float = 1e-3,
    teacher_weight: float = 0.0,
    **weights: float,
) -> dict[str, float]:
    """Make an AdamW update for each batch and return each parameter's largest |gradient| over all of them.

    A parameter whose gradient is 0 at every update has not moved. weights: what else the heads' loss takes, by the
    names of `LOSS_SETTINGS`.
    """
    optimizer = AdamW(dict(model.state_dict()))
    parameters = optimizer.parameters
    largest = dict.fromkeys(parameters, 0.0)
    for batch in batches:
        loss = model.loss(batch, None, 0.8, teacher_weight, **weights).loss
        found = dict(zip(parameters, jt.grad(loss, list(parameters.values()), False)))
        for name, gradient in found.items():
            largest[name] = max(largest[name], float(np.abs(gradient.numpy()).max()))
        optimizer.step(found, learning_rate)
    return largest
