"""How fast this machine reads memory, the roofline of decoding one token a step, and how far apart its cores are."""

from __future__ import annotations

import numpy as np

from medusa_core import runtime
from medusa_core.kernels.ops import FLAGS, room

runtime.start()
import jittor as jt

TURNS = 20_000
MEBIBYTES = 512  # more than a processor's caches hold


class Reader:
    """A buffer of ones, `mebibytes` large, on large pages, that all threads read."""

    def __init__(self, mebibytes: int = MEBIBYTES):
        self.bytes = mebibytes << 20
        self._buffer = room((self.bytes // 4,), np.float32)
        self._buffer.data[...] = 1

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


def measure() -> dict[str, float]:
    """Bytes that the memory gives a second, and `exchange_seconds`, by name; nothing where a GPU does the work."""
    if jt.flags.use_cuda:
        return {}
    rates, _ = Reader().read(8)
    return {"memory_bytes_per_second": float(np.median(rates)), "exchange_seconds": exchange_seconds()}


def exchange_seconds() -> float:
    """Time of a cache line from the first thread's core to the second's, about 30 ns between neighbours.

    On processors of several core complexes it can be six times as long, and a hypervisor may move cores between them.
    """
    seconds = jt.empty((1,))
    with jt.flag_scope(compile_options=FLAGS), jt.no_grad():
        jt.code(
            [],
            [seconds],
            data={"turns": TURNS},
            cpu_header='#include "bandwidth.h"\n',
            cpu_src='out0_p[0] = medusa::exchange((long)data["turns"]);',
        )
    return float(seconds.numpy()[0])
