"""Both backends against recordings of transformers and torch (tests/oracles/make_base_fixtures.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from medusa_core import decode, llama, masks
from medusa_core.config import ModelConfig
from medusa_core.kernels.model import KernelModel

FIXTURES = Path(__file__).parent / "fixtures"
BACKENDS = {"kernel": KernelModel, "plain": llama.Llama}
CASES = ["llama3", "linear", "mistral", "qwen2"]


@pytest.fixture(params=CASES)
def case(request):
    return np.load(FIXTURES / f"tiny_{request.param}.npz")


def model_of(case, backend):
    weights = {
        name.removeprefix("weights/"): case[name] for name in case.files if name.startswith("weights/")
    }
    return BACKENDS[backend](ModelConfig.from_hf(json.loads(str(case["config"]))), weights, "float32")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_agrees_with_torch(case, backend, side):
    model = model_of(case, backend)
    ids, valid = case[f"{side}/ids"], case[f"{side}/valid"]
    mask = masks.padded(valid, window=model.config.sliding_window)
    hidden = model(ids, np.maximum(case[f"{side}/positions"], 0), mask)
    assert np.abs(hidden.numpy() - case[f"{side}/hidden"])[valid].max() < 1e-4
    assert np.abs(model.logits(hidden).numpy() - case[f"{side}/logits"])[valid].max() < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_cached_steps_of_a_batch_agree_with_torch(case, backend):
    model = model_of(case, backend)
    ids, valid = case["steps/ids"], case["steps/valid"]
    positions = np.maximum(case["steps/positions"], 0)
    cache = model.new_cache(3, ids.shape[1])
    whole = masks.padded(valid, window=model.config.sliding_window)
    hidden, start = [], 0
    for size in case["steps/sizes"]:
        stop = start + int(size)
        call = model(ids[:, start:stop], positions[:, start:stop], whole[:, start:stop, :stop], cache)
        hidden.append(call.numpy())
        for row in range(3):
            cache.advance(stop - start, row)
        start = stop
    difference = np.abs(np.concatenate(hidden, axis=1) - case["steps/hidden"])
    assert difference[valid].max() < 1e-4


@pytest.fixture(scope="module")
def recorded():
    return json.loads((FIXTURES / "embedded.json").read_text()), np.load(FIXTURES / "embedded.npz")


@pytest.fixture(scope="module")
def embedded():
    return llama.load("embedded", "float32")


def test_embedded_logits_agree_with_torch(embedded, recorded):
    described, arrays = recorded
    vocabulary = arrays["vocab"]
    for number, prompt in enumerate(described["prompts"]):
        ids = np.array(prompt["ids"])
        hidden = embedded(ids[None], np.arange(len(ids))[None], masks.causal(len(ids)))
        logits = embedded.logits(hidden[:, prompt["positions"]]).numpy()[0].astype(np.float64)  # (P, V)
        assert np.abs(logits[:, vocabulary] - arrays[f"{number}/logits"]).max() < 1e-3, prompt["name"]
        assert np.array_equal(np.argsort(-logits, 1)[:, :5], arrays[f"{number}/top_ids"]), prompt["name"]
        whole = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        assert np.abs(whole - arrays[f"{number}/logsumexp"]).max() < 1e-3, prompt["name"]


def test_embedded_greedy_continuations_equal_torchs(embedded, recorded, monkeypatch):
    # The recording goes on past end tokens.
    monkeypatch.setattr(embedded, "config", ModelConfig(**{**vars(embedded.config), "eos_token_ids": ()}))
    for prompt in recorded[0]["prompts"]:
        steps = decode.plain(embedded, prompt["ids"], 64)
        assert [token for step in steps for token in step.tokens] == prompt["greedy"], prompt["name"]


def test_unknown_dtype_and_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="float8"):
        llama.load("embedded", "float8")
    with pytest.raises(ValueError, match="nothing"):
        llama.load(tmp_path / "nothing")
