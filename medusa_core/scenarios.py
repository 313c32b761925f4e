"""Named models and machines for the simulator, each number with its source."""

from __future__ import annotations

from dataclasses import replace

from medusa_core.config import HeadsConfig, ModelConfig
from medusa_core.simulate import Machine, SimulationError


def _llama(hidden_size: int, intermediate_size: int, layers: int, heads: int) -> ModelConfig:
    return ModelConfig(
        model_type="llama",
        vocab_size=32_000,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden_size // heads,
    )


# Dimensions: config.json of lmsys/vicuna-{7b,13b,33b}-v1.3 and HuggingFaceH4/zephyr-7b-beta on the Hugging Face Hub.
MODELS = {
    "Vicuna 7B": _llama(4096, 11_008, 32, 32),
    "Vicuna 13B": _llama(5120, 13_824, 40, 40),
    "Vicuna 33B": _llama(6656, 17_920, 60, 52),
    "Zephyr 7B": replace(_llama(4096, 14_336, 32, 32), model_type="mistral", num_key_value_heads=8),
    "SmolLM2 135M": replace(  # the embedded model, chapter 01
        _llama(576, 1536, 30, 9), vocab_size=49_152, num_key_value_heads=3, tie_word_embeddings=True
    ),
}

# LLaMA-2 7B in float16, one sequence, llama.cpp: github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference, README.
# Its 13.2 GB of weights a token, times tokens/s, over the nominal bandwidth is the efficiency.
_DECODING = "efficiency: LLaMA-2 7B float16 in llama.cpp, {} (XiongjieDai/GPU-Benchmarks-on-LLM-Inference)"
_PAPER = "NVIDIA's figures as in the Medusa paper, appendix G (A100 80GB PCIe)"

MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            "A100-80GB",
            1.935e12,
            312e12,
            0.65,
            f"{_PAPER}; efficiency: its table 8, linear layers at one row reach 1.26 TFLOP/s = 1.26 TB/s",
            memory=80e9,
        ),
        Machine(
            "A100-40GB",
            1.555e12,
            312e12,
            0.65,
            "NVIDIA A100 datasheet (40GB); efficiency as of the 80GB",
            memory=40e9,
        ),
        Machine(
            "H100",
            3.35e12,
            989e12,
            0.55,
            "NVIDIA H100 datasheet (SXM, dense); "
            + _DECODING.format("83.3 tokens/s on the PCIe version's 2.0 TB/s"),
            memory=80e9,
        ),
        Machine(
            "RTX 3090",
            0.936e12,
            71e12,
            0.73,
            "NVIDIA GA102 whitepaper (float32 sums); " + _DECODING.format("51.9 tokens/s"),
            memory=24e9,
        ),
        Machine(
            "RTX 4090",
            1.008e12,
            165.2e12,
            0.80,
            "NVIDIA Ada whitepaper (float32 sums); " + _DECODING.format("60.8 tokens/s"),
            memory=24e9,
        ),
        Machine(
            "M2 Ultra",
            0.8e12,
            27.2e12,
            0.67,
            "Apple's specifications of the 76-core GPU, with the largest memory; "
            + _DECODING.format("40.7 tokens/s"),
            memory=192e9,
        ),
        Machine(
            "2-core CPU",
            31.4e9,
            299e9,
            1.0,
            "artifacts/results/search_trees.json at commit b1e4e70: bandwidth, 275 MB in a plain step of 8.77 ms; "
            "compute, 18.6 GFLOP in a step of 64 rows of 62.3 ms; its memory: 24 GiB",
            memory=25.8e9,
        ),
    )
}


def model(name: str) -> ModelConfig:
    """Return a preset model; SimulationError lists the names when there is none."""
    return _lookup(MODELS, name, "model")


def machine(name: str) -> Machine:
    """Return a preset machine; SimulationError lists the names when there is none."""
    return _lookup(MACHINES, name, "machine")


def medusa_heads(model: ModelConfig, num_heads: int = 5, draft_vocab_size: int | None = None) -> HeadsConfig:
    """Heads for a model: an LM head each, or the base's rows of `draft_vocab_size` frequent tokens for all."""
    return HeadsConfig(
        model.hidden_size,
        model.vocab_size,
        num_heads,
        output="own" if draft_vocab_size is None else "draft",
        draft_vocab_size=draft_vocab_size,
    )


def _lookup(presets: dict, name: str, kind: str):
    if name not in presets:
        raise SimulationError(f"no {kind} called {name!r}: expected one of {', '.join(presets)}")
    return presets[name]
