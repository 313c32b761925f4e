"""Settings of a joint training of base and heads (Medusa-2), on top of those that every training has."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medusa_core.train_config import TrainError, Training, option

RECIPES = ("two-stage", "ramp", "direct")


@dataclass(frozen=True)
class Train2Config(Training):
    """What decides the weights of heads and adapters, and where they go; `block` is the length of a window.

    recipe: "two-stage" goes on from heads trained alone; "ramp" lets the heads' loss grow from nothing
    (Medusa paper, 2.2.2); "direct" does neither, and is what the other two are compared with.
    """

    out: str = option("artifacts/runs/heads/medusa2", "folder of the trained heads and adapters")
    run: str = option("artifacts/runs/train/medusa2", "folder of checkpoints and history.json")
    batch_positions: int = option(1024, "positions of one update, prompts included")
    micro_batches: int = option(2, "parts an update is computed in, to save memory")
    block: int = option(256, "length of a window: longer texts are cut, shorter ones share it")
    learning_rate: float = option(5e-4, "highest learning rate of the adapters")
    recipe: str = option("two-stage", f"one of {', '.join(RECIPES)}")
    heads: str = option("medusa1", "trained heads to go on from, with recipe two-stage: a name or folder")
    heads_weight: float = option(0.2, "weight of the heads' loss beside the base's (lambda_0)")
    heads_rate: float = option(4.0, "learning rate of the heads / that of the adapters")
    distill: bool = option(
        True, "the base learns its own distribution from before; else the tokens of the data"
    )
    rank: int = option(16, "rank of the adapters")
    alpha: float = option(16.0, "strength of the adapters: they are scaled by alpha / rank")
    adapt_lm_head: bool = option(False, 'the LM head has an adapter, too; needs output "own"')

    def __post_init__(self):
        super().__post_init__()
        if self.recipe not in RECIPES:
            raise TrainError(f"recipe {self.recipe!r} is unknown: expected one of {', '.join(RECIPES)}")
        for name in ("heads_weight", "heads_rate", "rank", "alpha"):
            if getattr(self, name) <= 0:
                raise TrainError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.adapt_lm_head and self.output != "own":
            raise TrainError(
                f"adapt_lm_head changes the LM head that output {self.output!r} shares with the heads: "
                'use output "own"'
            )


def heads_scale(recipe: str, step: int, total: int) -> float:
    """What the heads' loss is multiplied by at update `step` = 0 .. total - 1: 1, or a quarter of a sine wave."""
    return math.sin(math.pi / 2 * step / total) if recipe == "ramp" else 1.0
