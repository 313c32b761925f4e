"""K linear layers of one size as one operator: Jittor has no batched matrix product of its own on the CPU."""

from __future__ import annotations

from pathlib import Path

from medusa_core import runtime

runtime.start()
import jittor as jt

_HEADER = f'#include "{Path(__file__).with_name("grouped_linear.h")}"'


def grouped_linear(x, weight):
    """Return y[k] = x[k] weight[k]^T, (K, N, m); x (K, N, d), or (1, N, d) shared; weight (K, m, d)."""
    if jt.flags.use_cuda or not jt.compile_extern.mkl_ops:
        return grouped_linear_plain(x, weight)
    groups, m, d = weight.shape
    source = "medusa::{}({}, {}, out0_p, in1_shape0, in0_shape0, in0_shape1, in1_shape1, in1_shape2);"
    return jt.code(
        (groups, x.shape[1], m),
        "float32",
        [x, weight],
        cpu_header=_HEADER,
        cpu_src=source.format("grouped_forward", "in0_p", "in1_p"),
        cpu_grad_src=[
            source.format("grouped_backward_input", "dout_p", "in1_p"),
            source.format("grouped_backward_weight", "dout_p", "in0_p"),
        ],
    )


def grouped_linear_plain(x, weight):
    """The same in Jittor's own operators: for CUDA, for machines without oneDNN, and as the tests' oracle."""
    shared = x.shape[0] == 1
    return jt.stack([jt.nn.linear(x[0 if shared else k], weight[k]) for k in range(weight.shape[0])])
