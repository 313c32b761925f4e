"""Writes the pickled checkpoints that the field exchanges, with the libraries that write them.

    python tests/oracles/make_pickle_fixtures.py torch      (needs the extra `reference`)
    python tests/oracles/make_pickle_fixtures.py jittor

torch_zip.bin, torch_legacy.bin and jittor.jtr in tests/fixtures/ hold the tensors that `expected()` lists: halves,
bfloat16, a transposed view, an offset view, and two tensors that share a storage.
"""

import sys
from pathlib import Path

import ml_dtypes
import numpy as np

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def expected() -> dict[str, np.ndarray]:
    """Return what every file holds; jittor.jtr has no bfloat16, since jittor.save turns that into integers."""
    numbers = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
    return {
        "float": numbers,
        "half": numbers.astype(np.float16),
        "bfloat16": numbers.astype(ml_dtypes.bfloat16),
        "transposed": np.ascontiguousarray(numbers.T),
        "offset": numbers[1:3, 2:5].copy(),
        "parameter": numbers[0].copy(),
        "ids": np.arange(5, dtype=np.int64) * 10**10,
        "scalar": np.array(0.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


def write_torch() -> None:
    """Write both of torch's formats."""
    import torch

    numbers = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
    state = torch.nn.Module().state_dict()  # an OrderedDict with metadata, as models have
    state |= {
        "float": numbers,
        "half": numbers.half(),
        "bfloat16": numbers.bfloat16(),
        "transposed": numbers.T,
        "offset": numbers[1:3, 2:5],
        "parameter": torch.nn.Parameter(numbers[0].clone()),
        "ids": torch.arange(5) * 10**10,
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
    }
    torch.save(state, FIXTURES / "torch_zip.bin")
    torch.save(state, FIXTURES / "torch_legacy.bin", _use_new_zipfile_serialization=False)


def write_jittor() -> None:
    """Write what jittor.save makes of Vars and of arrays."""
    from medusa_core import runtime

    runtime.start()
    import jittor as jt

    arrays = {name: expected()[name] for name in ("float", "half", "transposed")}
    jt.save({"var": jt.array(arrays["float"]), **arrays}, str(FIXTURES / "jittor.jtr"))


if __name__ == "__main__":
    {"torch": write_torch, "jittor": write_jittor}[sys.argv[1]]()
