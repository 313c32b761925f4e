"""AdamW that counts updates, the global norm of gradients, and the learning-rate schedule."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medusa_core import runtime

runtime.start()
import jittor as jt

from medusa_core.kernels.ops import FLAGS

_HEADER = f'#include "{Path(__file__).parent / "kernels" / "adamw.h"}"'


def learning_rate(step: int, total: int, peak: float, warmup: int, final_ratio: float = 0.0) -> float:
    """Learning rate of update `step` = 0 .. total - 1: linear over `warmup` updates, then half a cosine."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def global_norm(gradients: dict) -> float:
    """Euclidean norm of all gradients together.

    Rows are added in float32 and their sums in float64: one float32 sum over an LM head's gradient would stop growing.
    """
    squares = [(g * g).sum(-1) for g in gradients.values()]
    jt.sync(squares)
    return math.sqrt(sum(float(square.numpy().sum(dtype=np.float64)) for square in squares))


class AdamW:
    """AdamW (Loshchilov and Hutter, algorithm 2) over named float32 Vars, with decoupled weight decay.

    rates: what the learning rate of some parameters, by name, is multiplied by; 1 for the others.
    Jittor's own counts backward passes, not updates, which skews the bias correction under accumulation.
    """

    def __init__(
        self, parameters: dict, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, rates=None
    ):
        self.parameters, self.rates = parameters, rates or {}
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.updates = 0
        self.m = {name: jt.zeros(p.shape).stop_grad() for name, p in parameters.items()}
        self.v = {name: jt.zeros(p.shape).stop_grad() for name, p in parameters.items()}

    def step(self, gradients: dict, lr: float, scale: float = 1.0) -> None:
        """Update every parameter from its gradient times `scale` (what clipping asks for)."""
        self.updates += 1
        update = _update_plain if jt.flags.use_cuda else _update_in_place
        with jt.no_grad():
            for name, p in self.parameters.items():
                data = self._data(lr * self.rates.get(name, 1.0), scale)
                update(p, self.m[name], self.v[name], gradients[name], data)
        for p in self.parameters.values():
            p.start_grad()
        jt.sync([*self.parameters.values(), *self.m.values(), *self.v.values()])

    def _data(self, lr: float, scale: float) -> dict[str, float]:
        beta1, beta2 = self.betas
        return {
            "scale": scale,
            "beta1": beta1,
            "beta2": beta2,
            "step": lr / (1 - beta1**self.updates),
            "correction": 1 / (1 - beta2**self.updates),
            "eps": self.eps,
            "shrink": lr * self.weight_decay,
        }

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the moments as m/NAME and v/NAME."""
        moments = {"m": self.m, "v": self.v}
        return {f"{kind}/{name}": x.numpy() for kind, group in moments.items() for name, x in group.items()}

    def load_tensors(self, tensors: dict[str, np.ndarray], updates: int) -> None:
        """Continue from `tensors` of an optimiser that had made `updates` updates."""
        for kind, group in {"m": self.m, "v": self.v}.items():
            for name, value in group.items():
                value.assign(jt.array(tensors[f"{kind}/{name}"]).stop_grad())
        self.updates = updates


def _update_in_place(p, m, v, g, data) -> None:
    names = ", ".join(f'data["{name}"]' for name in data)
    source = f"medusa::adamw_update(out0_p, out1_p, out2_p, in0_p, in0->num, {names});"
    with jt.flag_scope(compile_options=FLAGS):  # fast-math's square root of a subnormal number is no number
        jt.code([g], [p, m, v], cpu_header=_HEADER, cpu_src=source, data=data)


def _update_plain(p, m, v, g, data) -> None:
    grad = g * data["scale"]
    m.assign(data["beta1"] * m + (1 - data["beta1"]) * grad)
    v.assign(data["beta2"] * v + (1 - data["beta2"]) * grad * grad)
    denominator = (v * data["correction"]).sqrt() + data["eps"]
    p.assign(p * (1 - data["shrink"]) - data["step"] * m / denominator)
