"""A step's parts: the kernels' own stages, and what lies outside them."""

import numpy as np
from tiny_model import tiny

from medusa_core import masks, step_profile
from medusa_core.kernels.model import KernelModel
from medusa_core.kernels.ops import STAGES
from medusa_core.llama import Llama
from medusa_core.tree import dense


def test_a_forward_says_what_each_stage_took_and_gives_the_same_bits():
    config, weights = tiny()
    base = KernelModel(config, weights)
    shape, past = dense([2, 2]), 12
    cache = base.new_cache(1, past + shape.size)
    base(np.arange(past), np.arange(past), masks.causal(past), cache)
    cache.advance(past)
    arguments = np.arange(shape.size), masks.positions(shape, past), masks.tree_mask(shape, past), cache
    before = base(*arguments).numpy()
    seconds = base.stage_seconds(*arguments)
    assert tuple(seconds) == STAGES and all(value > 0 for value in seconds.values())
    assert np.array_equal(base(*arguments).numpy(), before)


def test_a_profile_has_every_part_of_a_step():
    config, weights = tiny()
    base = KernelModel(config, weights)
    parts = step_profile.profile_step(base, None, dense([2]), past=8, repeats=2)
    assert list(parts) == ["draft", *STAGES, "LM head", step_profile.OUTSIDE]
    assert parts["draft"] < 1e-3, "nobody drafts"
    assert all(parts[part] > 0 for part in (*STAGES, "LM head"))


def test_steps_are_timed_behind_every_length_of_context():
    config, weights = tiny()
    seconds = step_profile.seconds_by_context(KernelModel(config, weights), [4, 30], repeats=2)
    assert list(seconds) == [4, 30] and min(seconds.values()) > 0


def test_a_base_in_stock_operators_has_one_stage():
    base = Llama(*tiny())
    parts = step_profile.profile_step(base, None, dense([2]), past=8, repeats=1)
    assert list(parts) == ["draft", "forward", "LM head", step_profile.OUTSIDE] and parts["forward"] > 0
