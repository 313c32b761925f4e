"""Settings of joint training and the recipes among them."""

import argparse

import pytest

from medusa_core.train2_config import Train2Config, heads_scale
from medusa_core.train_config import TrainError


def test_the_ramp_is_a_quarter_of_a_sine_and_the_other_recipes_are_constant():
    ramp = [heads_scale("ramp", step, 6) for step in range(6)]
    assert ramp == pytest.approx([0.0, 0.258819, 0.5, 0.707107, 0.866025, 0.965926], abs=1e-6)
    for recipe in ("two-stage", "direct"):
        assert {heads_scale(recipe, step, 6) for step in range(6)} == {1.0}


@pytest.mark.parametrize(
    "line, message",
    [
        ("recipe: both", "recipe 'both' is unknown: expected one of two-stage, ramp, direct"),
        ("rank: 0", "rank is 0, expected more than 0"),
        ("adapt_lm_head: true", "adapt_lm_head changes the LM head that output 'draft' shares"),
        ("block: 200", "batch_positions 1024 is not a multiple of micro_batches 2 x block 200"),
        ("hidden_dtype: float16", "unknown key 'hidden_dtype'; expected some of model, data"),
        ("distill: 1", "distill is 1, expected bool"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, line, message):
    path = tmp_path / "p.yaml"
    path.write_text(line + "\n")
    with pytest.raises(TrainError, match=message):
        Train2Config.from_yaml(path)


def test_flags_take_yes_and_no():
    parser = argparse.ArgumentParser()
    Train2Config.add_flags(parser)
    assert vars(parser.parse_args(["--no-distill", "--adapt-lm-head", "--rank", "8"])) == {
        "distill": False,
        "adapt_lm_head": True,
        "rank": 8,
    }
