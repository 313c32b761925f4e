"""A model folder holds what its manifest says, or is refused."""

import pytest

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
