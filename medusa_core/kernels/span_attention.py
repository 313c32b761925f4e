"""Attention through the whole model while it learns: fused on the CPU, in Jittor's own operators elsewhere.

Jittor's matrix products of more than two dimensions are plain loops on the CPU, and its attention would keep
several (heads, T, T) arrays for the backward pass. This operator keeps one number a row and computes the rest anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medusa_core import runtime
from medusa_core.kernels.walk import check_sight, walks

runtime.start()
import jittor as jt

MASKED = -1e30  # finite: Jittor compiles with finite-math flags
_HEADER = f'#include "{Path(__file__).with_name("span_attention.h")}"'
_SHAPE = "{in0_shape0, in0_shape1, in1_shape1, in0_shape2, in1_shape2, in0_shape3, in3_p, in4_p}"


def attention(mask: np.ndarray):
    """Return the function of q (B, T, heads, size), k and v (B, S, kv_heads, size) that attends under `mask` (B, T, S).

    Its result is (B, T, heads, size). The fused operator serves masks in which each query sees one run of keys:
    not those of trees, nor of padding on the right, where a padded query sees the text and then itself.
    """
    check_sight(mask)
    if not jt.flags.use_cuda and jt.compile_extern.mkl_ops:
        start, end, count, _ = walks(mask.reshape(-1, mask.shape[-1]))
        if not count.any() and (end > start).all():
            spans = [jt.array(edge.reshape(mask.shape[:2])) for edge in (start, end)]
            return lambda q, k, v: SpanAttention.apply(q, k, v, *spans)
    bias = jt.array(np.where(mask, 0.0, MASKED).astype(np.float32)[:, None])  # (B, 1, T, S)
    return lambda q, k, v: attention_plain(q, k, v, bias)


def attention_plain(q, k, v, bias):
    """Attention in stock operators; bias (B, 1, T, S) is added to the scores."""
    batch, tokens, heads, size = q.shape
    q, k, v = (t.permute(0, 2, 1, 3) for t in (q, k, v))  # (B, heads, T or S, size)
    groups = heads // k.shape[1]
    k, v = (t.repeat_interleave(groups, 1) if groups > 1 else t for t in (k, v))
    scores = jt.matmul(q, k.permute(0, 1, 3, 2)) / np.sqrt(size) + bias  # (B, heads, T, S)
    # Not jt.nn.softmax: on a GPU its source holds the length of the row, and every decoded token would compile anew.
    weight = jt.exp(scores - scores.max(dim=-1, keepdims=True))
    weight = weight / weight.sum(dim=-1, keepdims=True)
    return jt.matmul(weight, v).permute(0, 2, 1, 3)


class SpanAttention(jt.Function):
    """The fused operator; one backward pass gives all three gradients."""

    def execute(self, q, k, v, start, end):
        """q (B, T, heads, size); k, v (B, S, kv_heads, size); start, end (B, T) int32: query sees [start, end)."""
        batch, tokens, heads, _ = q.shape
        source = f"medusa::Spans s = {_SHAPE}; medusa::span_forward(s, in0_p, in1_p, in2_p, out0_p, out1_p);"
        out, norm = jt.code(
            [q.shape, (batch, heads, tokens)],
            ["float32", "float32"],
            [q, k, v, start, end],
            cpu_header=_HEADER,
            cpu_src=source,
        )
        self.saved = q, k, v, start, end, out, norm
        return out

    def grad(self, dout):
        """Gradients of q, k and v from that of the result."""
        q, k, v = self.saved[:3]
        source = f"""medusa::Spans s = {_SHAPE};
                     medusa::span_backward(s, in0_p, in1_p, in2_p, in5_p, in6_p, in7_p, out0_p, out1_p, out2_p);"""
        shapes = [q.shape, k.shape, v.shape]
        inputs = [*self.saved, dout]
        gradients = jt.code(shapes, ["float32"] * 3, inputs, cpu_header=_HEADER, cpu_src=source)
        return *gradients, None, None
