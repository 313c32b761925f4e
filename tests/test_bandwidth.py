"""The bandwidth op reads all of its buffer, every pass, and says how long each took."""

import numpy as np

from medusa_core.bandwidth import Reader, exchange_seconds, jt
from medusa_core.kernels.ops import FLAGS


def test_every_pass_reads_every_float_and_is_timed():
    rates, sums = Reader(mebibytes=1).read(passes=3)
    assert sums.tolist() == [2**18] * 3
    assert rates.shape == (3,) and (rates > 0).all() and np.isfinite(rates).all()


def test_lines_that_the_threads_cannot_share_evenly_are_read_once():
    for lines in (1, 8, 37, 129):
        numbers = jt.array(np.arange(16 * lines, dtype=np.float32))
        with jt.flag_scope(compile_options=FLAGS):
            total = jt.code(
                (1,),
                "float32",
                [numbers],
                cpu_header='#include "bandwidth.h"\n',
                cpu_src="out0_p[0] = medusa::read_once(in0_p, in0_shape0 / 16);",
            )
        assert total.item() == numbers.numpy().sum(), lines


def test_an_exchange_between_two_threads_is_timed():
    assert 0 < exchange_seconds() < np.inf
