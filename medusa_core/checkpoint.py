"""Checkpoints: safetensors files that are whole or absent, and carry a header and a checksum."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes  # noqa: F401  teaches NumPy and safetensors bfloat16
import numpy as np
import safetensors
from safetensors.numpy import save_file

from medusa_core.files import replacing
from medusa_core.pickles import CheckpointError, load_pickle

__all__ = [
    "CheckpointError",
    "load",
    "load_pickle",
    "open_safetensors",
    "require",
    "save",
    "shapes_of",
    "write_failure",
]

SHOWN_PROBLEMS = 8  # a wrong model size misshapes every tensor; the first few say it


def save(path: Path, tensors: dict[str, np.ndarray], header: dict) -> None:
    """Write `tensors` and a JSON `header` to `path`, which then holds the old file or the whole new one.

    Raises CheckpointError, leaving `path` as it was, when the disk is full or cannot be written.
    """
    path = Path(path)
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    text = json.dumps(header)
    metadata = {"header": text, "sha256": _digest(tensors, text)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(write_failure(path, error)) from error


def load(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read what `save` wrote: the tensors and the header.

    Raises CheckpointError naming the file when it is missing, cut short, changed, or not written by `save`.
    """
    path = Path(path)
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    if not {"header", "sha256"} <= metadata.keys():
        raise CheckpointError(
            f"{path}: has no header and checksum, so it is not a checkpoint of this package"
        )
    if _digest(tensors, metadata["header"]) != metadata["sha256"]:
        raise CheckpointError(
            f"{path}: damaged, its checksum does not match; restore a copy or make it again"
        )
    return tensors, json.loads(metadata["header"])


def shapes_of(tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    return {name: array.shape for name, array in tensors.items()}


def require(found: dict[str, tuple], shapes: dict[str, tuple], where: str) -> None:
    """Raise CheckpointError naming the missing, unexpected and misshapen tensors, if there are any."""
    problems = [f"missing {name} {tuple(shape)}" for name, shape in shapes.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in shapes]
    problems += [
        f"{name} has shape {found[name]}, expected {tuple(shape)}"
        for name, shape in shapes.items()
        if name in found and found[name] != tuple(shape)
    ]
    if problems:
        hidden = len(problems) - SHOWN_PROBLEMS
        listed = "; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {hidden} more" if hidden > 0 else "")
        raise CheckpointError(f"{where}: tensors do not fit the configuration: {listed}")


@contextmanager
def open_safetensors(path: Path) -> Iterator[safetensors.safe_open]:
    """Open a safetensors file for NumPy; raises CheckpointError naming a file that is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        file = safetensors.safe_open(path, "np")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file: {error}") from error
    with file as opened:
        yield opened


def write_failure(path: Path, error: Exception) -> str:
    """Say what to do about a failed write; safetensors reports the system's error only in its text."""
    kept = f"{path.name} is {'unchanged' if path.exists() else 'absent'}, nothing half-written is left"
    if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
        return f"{path}: the disk is full; free some space in {path.parent} and run again ({kept})"
    return f"{path}: cannot be written: {error} ({kept})"


def _digest(tensors: dict[str, np.ndarray], header: str) -> str:
    """SHA-256 over the header, then name, dtype, shape and bytes of every tensor in name order."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
