"""Losses of draft heads: cross-entropy to the tokens that came, and to the base model's own distribution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medusa_core import runtime

runtime.start()
import jittor as jt

NO_TARGET = -100  # the sequence ends before this head's token
OUTSIDE = -1  # the token is not in the draft vocabulary: no loss, and a miss in every accuracy
RANKS = 10  # ranks whose accuracy is reported

_HEADER = f'#include "{Path(__file__).parent / "kernels" / "cross_entropy.h"}"'


@dataclass(frozen=True)
class HeadLoss:
    """What one batch gave: the scalar to minimise, and each head's loss and target rank at every position."""

    loss: jt.Var
    rows: jt.Var  # (K, N) loss of each row, 0 where there is none
    rank: jt.Var  # (K, N) int32 logits above the target's; the vocabulary size where there is no loss
    targets: np.ndarray  # (K, N)

    def sums(self) -> dict[str, np.ndarray]:
        """Return sums over the positions, each (K,) float64: loss, learned, targets, and hits (K, RANKS).

        `learned` counts the rows with a loss, `targets` also those outside the draft vocabulary;
        hits[k, r] counts the targets that head k ranked r-th.
        """
        rank = self.rank.numpy()
        learned = self.targets >= 0
        return {
            "loss": self.rows.numpy().sum(axis=1, dtype=np.float64),
            "learned": learned.sum(axis=1).astype(np.float64),
            "targets": (self.targets != NO_TARGET).sum(axis=1).astype(np.float64),
            "hits": np.stack([((rank == r) & learned).sum(axis=1) for r in range(RANKS)], axis=1).astype(
                np.float64
            ),
        }


def medusa1_loss(
    logits, targets, decay=0.8, counts=None, teacher_logits=None, teacher_row=None, teacher_weight=0.0
):
    """Sum over heads k = 1..K of decay^k times the head's mean cross-entropy (Medusa paper, equation 1).

    logits (K, N, v) float32; targets (K, N) int32 draft-vocabulary indices, NO_TARGET or OUTSIDE.
    counts (K,): rows that each head's mean is over, this batch's by default. Give a step's totals when the
    step is split into micro-batches: their losses and gradients then add up to those of the whole.
    teacher_logits (m, v), teacher_row (K, N) int32: the base's logits, and for each target the row that
    predicts it; teacher_weight w mixes (1 - w) CE(target) + w CE(softmax(teacher_logits)).
    Returns HeadLoss.
    """
    heads, positions, v = logits.shape
    targets = np.ascontiguousarray(targets, np.int32)
    if targets.shape != (heads, positions):
        raise ValueError(
            f"targets have shape {targets.shape}, expected {(heads, positions)} for logits {logits.shape}"
        )
    if targets.max(initial=-1) >= v:
        raise ValueError(
            f"target {targets.max()} is outside the {v} logits: map tokens to draft-vocabulary indices"
        )
    if teacher_weight and teacher_logits is None:
        raise ValueError(f"teacher_weight is {teacher_weight} but no teacher_logits were given")
    weights = row_weights(targets, decay, counts)
    teacher = softmax(teacher_logits) if teacher_weight else None
    row = None if teacher_row is None else np.ascontiguousarray(teacher_row, np.int32).reshape(-1)
    rows, rank = cross_entropy(logits.reshape((-1, v)), targets.reshape(-1), teacher, row, teacher_weight)
    loss = (rows * jt.array(weights.reshape(-1))).sum()
    return HeadLoss(loss, rows.reshape((heads, positions)), rank.reshape((heads, positions)), targets)


def head_weights(heads: int, decay: float) -> np.ndarray:
    """Return decay^k for k = 1..heads."""
    return decay ** np.arange(1, heads + 1, dtype=np.float64)


def row_weights(targets: np.ndarray, decay: float, counts=None) -> np.ndarray:
    """Return (K, N) float32 what each row's loss counts: decay^k / counts[k], 0 where the target is negative.

    counts (K,) as in `medusa1_loss`.
    """
    counts = learned_counts(targets) if counts is None else np.asarray(counts)
    weights = head_weights(len(targets), decay)[:, None] / np.maximum(counts, 1)[:, None]
    return np.where(targets >= 0, weights, 0.0).astype(np.float32)


def learned_counts(targets: np.ndarray) -> np.ndarray:
    """Return (K,) how many targets (K, N) each head learns from."""
    return (np.asarray(targets) >= 0).sum(axis=1)


def cross_entropy(logits, targets, teacher=None, teacher_row=None, teacher_weight=0.0):
    """Return each row's loss (R,) float32 and target's rank (R,) int32; 0 and v where the target is negative.

    logits (R, v); targets (R,) int32; teacher (m, v) probabilities; teacher_row (R,) int32 row of `teacher`.
    Equal logits rank by index, so rank 0 is argmax.
    """
    if teacher is None:
        teacher, teacher_row, teacher_weight = jt.zeros((1, 1)), np.zeros(1, np.int32), 0.0
    implementation = _cross_entropy_plain if jt.flags.use_cuda else _cross_entropy_fused
    return implementation(logits, jt.array(targets), teacher, jt.array(teacher_row), teacher_weight)


def smooth_l1(predicted, wanted):
    """Return (...) the mean over the last dimension of x^2 / 2, or |x| - 1/2 beyond 1; both arguments (..., d)."""
    distance = (predicted - wanted).abs()
    return jt.ternary(distance < 1, 0.5 * distance * distance, distance - 0.5).mean(-1)


def softmax(logits):
    """Return the softmax of each row of (m, v), outside the gradient."""
    if jt.flags.use_cuda:
        return jt.nn.softmax(logits, dim=1).stop_grad()
    source = "medusa::softmax_rows(in0_p, out0_p, in0_shape0, in0_shape1);"
    return jt.code(logits.shape, "float32", [logits], cpu_header=_HEADER, cpu_src=source).stop_grad()


def _cross_entropy_fused(logits, targets, teacher, teacher_row, teacher_weight):
    """One pass over the logits forward, one backward, rows in parallel: Jittor's own loops are serial."""
    forward = """medusa::cross_entropy_forward(in0_p, in1_p, in2_p, in3_p, data["w"], out0_p, out1_p, out2_p,
                                              in0_shape0, in0_shape1);"""
    backward = """medusa::cross_entropy_backward(in0_p, in1_p, in2_p, in3_p, data["w"], pout1_p, dout_p,
                                                out0_p, in0_shape0, in0_shape1);"""
    rows = (logits.shape[0],)
    loss, norm, rank = jt.code(
        [rows, rows, rows],
        ["float32", "float32", "int32"],
        [logits, targets, teacher, teacher_row],
        cpu_header=_HEADER,
        cpu_src=forward,
        cpu_grad_src=[backward, "", "", ""],
        data={"w": teacher_weight},
    )
    norm.stop_grad()
    return loss, rank.stop_grad()


def _cross_entropy_plain(logits, targets, teacher, teacher_row, teacher_weight):
    """The same in Jittor's own operators: what CUDA runs, and what the tests compare the kernel with."""
    v = logits.shape[1]
    learned = targets >= 0
    index = jt.arange(v).reshape((1, v))
    target = jt.maximum(targets, 0).reshape((-1, 1))
    top = logits.max(1, keepdims=True).detach()
    norm = (logits - top).exp().sum(1).log() + top.reshape((-1,))
    wanted = (logits * (index == target)).sum(1)
    value = wanted.detach().reshape((-1, 1))
    rank = ((logits > value) | ((logits == value) & (index < target))).int32().sum(1)
    if teacher_weight:
        expected = (logits * teacher[teacher_row]).sum(1)
        wanted = (1 - teacher_weight) * wanted + teacher_weight * expected
    return (norm - wanted) * learned, jt.ternary(learned, rank, jt.full_like(rank, v)).stop_grad()
