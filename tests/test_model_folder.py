"""A model folder holds what its manifest says, or is refused."""

import pytest

from medusa_core.checkpoint import CheckpointError
from medusa_core.convert import ConvertError, read_model, resolve


def test_a_changed_model_folder_is_refused(converted):
    weights = converted / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ConvertError, match=r"model\.safetensors: not what manifest\.json says"):
        read_model(converted)
    weights.write_bytes(whole[:-1])
    with pytest.raises(ConvertError, match=r"model\.safetensors: missing, or not the .* bytes"):
        resolve(str(converted))
    weights.unlink()
    with pytest.raises(ConvertError, match=r"model\.safetensors: missing"):
        read_model(converted)


def test_resolve_takes_model_folders_and_says_how_to_make_one(converted, hub):
    assert resolve(str(converted)) == converted
    with pytest.raises(
        ConvertError, match=rf"not a model folder.*python -m medusa_core\.convert {hub} --out"
    ):
        resolve(str(hub))


def test_weights_are_read_when_they_are_asked_for(converted):
    _, weights = read_model(converted)
    held = {name: array.shape for name, array in weights.items()}
    assert held == weights.shapes() and len(weights) == len(held)
    with pytest.raises(KeyError, match=r"model\.safetensors: no tensor lm_head\.bias"):
        weights["lm_head.bias"]
    (converted / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        weights[next(iter(held))]
