"""Mixture-of-experts heads: each head chooses some of its experts for each hidden state (Switch, Mixtral).

o = h + sum over the chosen experts i of G_i SiLU(W_i h + b_i), with a router h W_g per head. One expert of E: G is its
softmax probability among all (Switch, 2101.03961); more: the softmax among the chosen ones (Mixtral, 2401.04088).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from medusa_core import runtime
from medusa_core.config import HeadsConfig
from medusa_core.heads.medusa import MedusaHeads, packed_lm_heads
from medusa_core.losses import learned_counts

runtime.start()
import jittor as jt

from medusa_core.kernels.grouped_linear import grouped_linear
from medusa_core.kernels.ops import Kernels, place
from medusa_core.kernels.pack import pack

# At the start: equal experts would leave the router without a gradient, equal routes all but the first experts.
BIAS_SCALE, ROUTER_SCALE = 0.1, 0.02
CLOSED = -1e9


class MoeHeads(MedusaHeads):
    """K heads of E experts each: router (K, E, d), weight (K, E, d, d), bias (K, E, d).

    Weights start at zero, biases and routers small and random, so that untrained heads are close to the base's own
    logits, every expert is different, and every parameter learns from the first update.
    """

    LOSS_SETTINGS = ("balance_weight", "z_weight")

    def initial_trunks(self) -> dict:
        """The parameters of the trunks before training, by name."""
        rng, initial = np.random.default_rng(0), super().initial_trunks()
        for name, scale in (("bias", BIAS_SCALE), ("router", ROUTER_SCALE)):
            initial[name] = jt.array((scale * rng.standard_normal(initial[name].shape)).astype(np.float32))
        return initial

    def trunks(self, hidden):
        """What each head's LM head reads, (K, N, d), of hidden states (N, d)."""
        return self._mix(hidden, self.routing(hidden))

    def routing(self, hidden):
        """The router's logits (K, N, E) of hidden states (N, d)."""
        heads, experts, d = self.router.shape
        flat = jt.nn.linear(hidden, self.router.reshape((heads * experts, d)))
        return flat.reshape((-1, heads, experts)).transpose((1, 0, 2))

    def chosen(self, routing):
        """1.0 for the active_experts highest router logits (K, N, E) of each position, else 0.0."""
        left, mask = routing.detach(), jt.zeros(routing.shape)  # stop_grad would mark routing itself
        for _ in range(self.config.active_experts):
            best = jt.nn.one_hot(left.argmax(dim=2)[0], routing.shape[2]).float32()
            mask, left = mask + best, left + CLOSED * best
        return mask.stop_grad()

    def gates(self, routing, chosen):
        """How much each expert counts, (K, N, E): 0 for those that were not chosen."""
        if self.config.active_experts == 1:
            return jt.nn.softmax(routing, dim=2) * chosen
        return jt.nn.softmax(routing + CLOSED * (1 - chosen), dim=2)

    def _mix(self, hidden, routing):
        positions, d = hidden.shape
        heads, experts = self.config.num_heads, self.config.experts
        x = hidden.reshape((1, positions, d))
        # All experts for all positions: fixed shapes, at the price of the work that gates of 0 throw away.
        inner = grouped_linear(x, self.weight.reshape((heads * experts, d, d)))
        inner = inner.reshape((heads, experts, positions, d)) + self.bias.reshape((heads, experts, 1, d))
        gate = (
            self.gates(routing, self.chosen(routing))
            .transpose((0, 2, 1))
            .reshape((heads, experts, positions, 1))
        )
        return x + (gate * jt.nn.silu(inner)).sum(1)

    def loss(self, batch, counts, decay: float, teacher_weight: float, balance_weight=0.0, z_weight=0.0):
        """Medusa-1 loss, and what keeps experts in use: balance_weight * balance + z_weight * z of each head's router.

        balance = E sum_i F_i P_i (Switch, equations 4 to 6): F_i the share of the choices that fell on expert i, P_i
        its mean probability, so that 1 is perfect balance; z = mean of logsumexp(router logits)^2 (ST-MoE, 2202.08906).
        Means are over the positions that have a target in any head; heads are averaged. A part of an update weighs
        by its share of the targets, and balances its own positions, as Switch's devices do. Returns HeadLoss.
        """
        result = super().loss(batch, counts, decay, teacher_weight)
        if not (balance_weight or z_weight):
            return result
        targets = self.targets(batch)
        balance, z = self.router_losses(self.routing(jt.array(batch.hidden)), targets.max(axis=0) >= 0)
        part = 1.0 if counts is None else float(learned_counts(targets).sum() / max(np.sum(counts), 1))
        return dataclasses.replace(
            result, loss=result.loss + part * balance_weight * balance + part * z_weight * z
        )

    def router_losses(self, routing, counted: np.ndarray):
        """Balance and z loss of router logits (K, N, E) over the positions `counted` (N,) bool."""
        share = jt.array((counted / max(counted.sum(), 1)).astype(np.float32)).reshape((1, -1, 1))
        chosen = (self.chosen(routing) * share).sum(1) / self.config.active_experts  # (K, E)
        probability = (jt.nn.softmax(routing, dim=2) * share).sum(1)
        balance = self.config.experts * (chosen * probability).sum(1).mean()
        top = routing.max(dim=2, keepdims=True).stop_grad()
        norm = (routing - top).exp().sum(2).log() + top[:, :, 0]  # (K, N)
        return balance, (norm * norm * share[:, :, 0]).sum(1).mean()

    def load(self, hidden) -> tuple[np.ndarray, np.ndarray]:
        """Share (K, E) of the choices that fall on each expert over hidden states (N, d), and the mean entropy (K,)
        in nats of the router's distribution.
        """
        with jt.no_grad():
            routing = self.routing(jt.array(hidden))
            chosen = self.chosen(routing).numpy().mean(axis=1) / self.config.active_experts
            probability = jt.nn.softmax(routing, dim=2).numpy()
        return chosen, -(probability * np.log(probability + 1e-30)).sum(axis=2).mean(axis=1)

    def pack(self):
        """The copy that drafts on the CPU."""
        return PackedExperts(self)

    @staticmethod
    def trunk_shapes(config: HeadsConfig) -> dict[str, tuple[int, ...]]:
        """Return name and shape of the trunks' parameters."""
        each, d = (config.num_heads, config.experts), config.hidden_size
        return {"router": (*each, d), "weight": (*each, d, d), "bias": (*each, d)}


class PackedExperts:
    """A bfloat16 copy of the heads for the CPU kernel, which reads only the chosen experts."""

    def __init__(self, heads: MoeHeads):
        experts = [[pack(w, "bfloat16") for w in head] for head in heads.weight.numpy()]
        self._weight = place(np.array(experts))
        self._bias, self._router = jt.array(heads.bias.numpy()), jt.array(heads.router.numpy())
        self._lm_head = packed_lm_heads(heads)
        self._config, self._kernels = heads.config, Kernels("bfloat16")

    def top(self, hidden, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices and log-probabilities (K, k) of each head's best tokens after hidden (d,)."""
        active, vocabulary = self._config.active_experts, self._config.output_size
        with jt.no_grad():
            ids, values = self._kernels.draft_experts(
                hidden, self._router, self._weight, self._bias, self._lm_head, active, vocabulary, k
            )
            return ids.numpy(), values.numpy()
