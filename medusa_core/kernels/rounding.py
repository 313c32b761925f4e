"""Rounding to bfloat16 on the CPU, where Jittor's own cast cuts the lower bits off instead."""

from __future__ import annotations

from pathlib import Path

from medusa_core import runtime

runtime.start()
import jittor as jt

_HEADER = f'#include "{Path(__file__).with_name("simd.h")}"'


class RoundBFloat16(jt.Function):
    """x as the kernels multiply it with bfloat16 weights: rounded to nearest, ties to even, kept as float32."""

    def execute(self, x):
        source = """for (int64_t i = 0; i < in0->num; ++i) {
                        const uint32_t u = medusa::bits_bf16(in0_p[i]);
                        memcpy(out0_p + i, &u, 4);
                    }"""
        return jt.code(x.shape, x.dtype, [x], cpu_header=_HEADER, cpu_src=source)

    def grad(self, dout):
        """The gradient as if nothing had been rounded."""
        return dout
