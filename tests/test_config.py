"""What a Hugging Face configuration means to the forward, and what the forward does not know."""

import pytest
from fake_hub import config_json

from medusa_core.config import ConfigError, ModelConfig

QWEN2 = {"model_type": "qwen2", "num_hidden_layers": 2, "sliding_window": 8}


@pytest.mark.parametrize(
    "more, window",
    [
        ({"use_sliding_window": False, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "max_window_layers": 2}, None),  # no layer has it
        ({"use_sliding_window": True}, None),  # transformers' default: from layer 28 on
        ({"use_sliding_window": True, "max_window_layers": 0}, 8),
    ],
)
def test_a_qwen2_window_counts_where_transformers_counts_it(more, window):
    config = ModelConfig.from_hf({**config_json(), **QWEN2, **more})
    assert config.sliding_window == window
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    "more, message",
    [
        ({**QWEN2, "use_sliding_window": True, "max_window_layers": 1}, "max_window_layers is 1: expected 0"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported: expected silu"),
        ({"vocab_size": "64"}, "vocab_size is '64', expected a whole number of 1 or more"),
        ({"hidden_size": "64"}, "config.json: a value is of the wrong type"),
        ({"num_key_value_heads": -1}, "num_key_value_heads is -1, expected a whole number"),
        ({"num_attention_heads": 0}, "config.json: "),
        ({"rope_scaling": "linear"}, "config.json: "),
        ({"rope_scaling": {"type": "yarn"}}, "type 'yarn' is unknown: expected linear or llama3"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is None, expected a number above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope_scaling: factor is 0, expected a number"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling: low_freq_factor is None"),
    ],
)
def test_what_the_forward_does_not_know_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf({**config_json(), **more})
