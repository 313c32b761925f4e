"""How fast this machine reads memory: divided by a model's bytes, the roofline of decoding one token a step."""

from __future__ import annotations

import numpy as np

from medusa_core import runtime
from medusa_core.kernels.ops import FLAGS, place

runtime.start()
import jittor as jt

MEBIBYTES = 512  # more than a processor's caches hold


class Reader:
    """A buffer of ones, `mebibytes` large, on large pages, that all threads read."""

    def __init__(self, mebibytes: int = MEBIBYTES):
        self.bytes = mebibytes << 20
        self._buffer = place(np.ones(self.bytes // 4, np.float32))
        jt.gc()  # the copy that `place` read from

    def read(self, passes: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the buffer `passes` times; returns bytes per second and the sum of the floats of each, (passes,)."""
        seconds, sums = jt.empty((passes,)), jt.empty((passes,))
        with jt.flag_scope(compile_options=FLAGS), jt.no_grad():
            jt.code(
                [self._buffer],
                [seconds, sums],
                cpu_header='#include "bandwidth.h"\n',
                cpu_src="medusa::read_passes(in0_p, in0_shape0 / 16, out0_shape0, out0_p, out1_p);",
            )
        return self.bytes / seconds.numpy(), sums.numpy()
