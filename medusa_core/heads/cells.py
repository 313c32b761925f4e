"""Cells of recurrent drafters: one step each, from a state and the next token's embedding to a new state.

A cell has `state_from(hidden)`, `step(state, embedding)` and `output(hidden, state)`; the output is what the LM
head reads. In all equations h (n, d) is the base's hidden state, e_k (n, d) the embedding of the token k places
on, at unit scale; s_k (n, r) the state. A state is a tuple of Vars with a row for each node.
"""

from __future__ import annotations

import numpy as np

from medusa_core import runtime

runtime.start()
import jittor as jt
from jittor.nn import linear, silu

EPS = 1e-5  # of the root mean square


def tanh(x):
    """Hyperbolic tangent; the gradient of Jittor's own, 1 / cosh^2, is no number beyond 44."""
    return 2 * jt.sigmoid(2 * x) - 1


class Cell(jt.Module):
    """Parameters under the names of `shapes`: vectors and what ZERO names at zero, other matrices random.

    A matrix (m, n) starts uniform within 1 / sqrt(n), the same at every start.
    """

    ZERO: tuple[str, ...] = ()

    def __init__(self, hidden_size: int, state_size: int):
        rng = np.random.default_rng(0)
        for name, shape in self.shapes(hidden_size, state_size).items():
            limit = 0.0 if len(shape) == 1 or name in self.ZERO else shape[1] ** -0.5
            setattr(self, name, jt.array(rng.uniform(-limit, limit, shape).astype(np.float32)))

    @staticmethod
    def shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every parameter, in the order of the CPU kernel (recurrent_heads.h)."""
        raise NotImplementedError


class ResidualCell(Cell):
    """Cells whose output is h + SiLU(W [h; s_k] + b), W = [out_hidden, out_state] and b from zero.

    So untrained heads give the base's own logits. A state is (s_k, the part of W [h; s_k] + b that h gives).
    """

    ZERO = ("out_hidden", "out_state")

    @staticmethod
    def output_shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        """Return the last of `shapes`."""
        return {"out_hidden": (d, d), "out_state": (d, r), "out_bias": (d,)}

    def output(self, hidden, state):
        """What the LM head reads, (n, d)."""
        s, from_hidden = state
        return hidden + silu(from_hidden + linear(s, self.out_state))


class GruCell(ResidualCell):
    """Gated recurrent unit (Cho et al., 2014) on x_k = W_e e_k, with s_0 = W_h h.

    z, q = sigmoid(W x_k + U s_{k-1} + b); c = tanh(W_c x_k + U_c (q * s_{k-1}) + b_c); s_k = (1 - z) * s_{k-1} + z * c.
    """

    @staticmethod
    def shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        return {
            "start": (r, d),  # W_h
            "embed": (r, d),  # W_e
            "input": (3 * r, r),  # W of z, of q, W_c
            "recurrent": (2 * r, r),  # U of z, of q
            "candidate": (r, r),  # U_c
            "bias": (3 * r,),
            **ResidualCell.output_shapes(d, r),
        }

    def state_from(self, hidden):
        return linear(hidden, self.start), linear(hidden, self.out_hidden, self.out_bias)

    def step(self, state, embedding):
        s, from_hidden = state
        r = s.shape[1]
        pre = linear(linear(embedding, self.embed), self.input, self.bias)  # (n, 3 r)
        gates = jt.sigmoid(pre[:, : 2 * r] + linear(s, self.recurrent))
        z, q = gates[:, :r], gates[:, r:]
        c = tanh(pre[:, 2 * r :] + linear(q * s, self.candidate))
        return (1 - z) * s + z * c, from_hidden


class ReDrafterCell(ResidualCell):
    """The cell of ReDrafter (2403.09919), without gates: s_k = SiLU(W e_k + U s_{k-1} + b), s_0 = 0."""

    @staticmethod
    def shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        return {"input": (r, d), "recurrent": (r, r), "bias": (r,), **ResidualCell.output_shapes(d, r)}

    def state_from(self, hidden):
        zero = jt.zeros((hidden.shape[0], self.bias.shape[0]))
        return zero, linear(hidden, self.out_hidden, self.out_bias)

    def step(self, state, embedding):
        s, from_hidden = state
        return silu(linear(embedding, self.input, self.bias) + linear(s, self.recurrent)), from_hidden


class GatedCell(Cell):
    """A hidden state that a gate moves towards a network's: a = s_{k-1} + P e_k, s_0 = h,

    z = sigmoid(G a + g); s_k = (1 - z) * a + z * (W_2 SiLU(W_1 a + b_1) + b_2). The output is s_k. P and G start
    at zero and g at -2, so the first outputs are near h; W_1 and W_2 start random, since from zero neither would
    ever receive a gradient.
    """

    ZERO = ("token", "gate")
    GATE_BIAS = -2.0

    def __init__(self, hidden_size: int, state_size: int):
        super().__init__(hidden_size, state_size)
        self.gate_bias = jt.full((hidden_size,), self.GATE_BIAS)

    @staticmethod
    def shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        return {
            "token": (d, d),  # P
            "gate": (d, d),  # G
            "gate_bias": (d,),
            "inner": (r, d),  # W_1
            "inner_bias": (r,),
            "outer": (d, r),  # W_2
            "outer_bias": (d,),
        }

    def state_from(self, hidden):
        return (hidden,)

    def step(self, state, embedding):
        a = state[0] + linear(embedding, self.token)
        z = jt.sigmoid(linear(a, self.gate, self.gate_bias))
        inner = silu(linear(a, self.inner, self.inner_bias))
        return ((1 - z) * a + z * linear(inner, self.outer, self.outer_bias),)

    def output(self, hidden, state):
        return state[0]


class LstmCell(Cell):
    """LSTM that predicts the base's next hidden state f_k from e_k and its own last prediction, f_0 = h:

    u = W_u [e_k; f_{k-1} / rms(f_{k-1})] + b_u; (i, f, o, g) = W u + U m_{k-1} + b, forget bias from 1;
    c_k = sigmoid(f) * c_{k-1} + sigmoid(i) * tanh(g); m_k = sigmoid(o) * tanh(c_k), both from 0;
    f_k = f_{k-1} + W_f m_k, W_f from zero. The output is f_k. After EAGLE (2401.15077) in what it predicts,
    and EAGLE-3 (2503.01840) in training on its own predictions.
    """

    ZERO = ("feature",)

    def __init__(self, hidden_size: int, state_size: int):
        super().__init__(hidden_size, state_size)
        forget = np.repeat(np.array([0, 1, 0, 0], np.float32), state_size)
        self.bias = jt.array(forget)

    @staticmethod
    def shapes(d: int, r: int) -> dict[str, tuple[int, ...]]:
        return {
            "embed": (r, 2 * d),  # W_u
            "embed_bias": (r,),
            "input": (4 * r, r),  # W of i, f, o, g
            "recurrent": (4 * r, r),  # U
            "bias": (4 * r,),
            "feature": (d, r),  # W_f
        }

    def state_from(self, hidden):
        zero = jt.zeros((hidden.shape[0], self.feature.shape[1]))
        return zero, zero, hidden

    def step(self, state, embedding):
        m, c, feature = state
        r = m.shape[1]
        scale = jt.rsqrt((feature * feature).mean(1, keepdims=True) + EPS)
        u = linear(jt.concat([embedding, feature * scale], 1), self.embed, self.embed_bias)
        pre = linear(u, self.input, self.bias) + linear(m, self.recurrent)  # (n, 4 r)
        gates = jt.sigmoid(pre[:, : 3 * r])
        i, f, o = gates[:, :r], gates[:, r : 2 * r], gates[:, 2 * r :]
        c = f * c + i * tanh(pre[:, 3 * r :])
        m = o * tanh(c)
        return m, c, feature + linear(m, self.feature)

    def output(self, hidden, state):
        return state[2]


CELLS = {"gru": GruCell, "gated": GatedCell, "redrafter": ReDrafterCell, "lstm": LstmCell}
