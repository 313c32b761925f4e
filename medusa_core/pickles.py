"""Reads the pickled checkpoints the field exchanges and builds arrays, nothing else.

A pickle is a program: loading one the ordinary way runs whatever it names. Here every name it may use is in
a table of stand-ins that only describe arrays; any other name is refused before anything is called.
Formats: torch `.bin` / `.pt` / `.pth` (zip, and the stream before torch 1.6), plain pickles of NumPy arrays,
and what `jittor.save` writes (`.pkl`, `.jtr`: a pickle, its SHA-1 and a mark).
"""

import codecs
import collections
import hashlib
import io
import math
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

JITTOR_MARK = b"HCAJSLHD"
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
DTYPES = {
    np.dtype(kind).str[1:]: np.dtype(kind) for kind in STORAGES.values() if kind is not ml_dtypes.bfloat16
}
DTYPES |= {"u2": np.dtype(np.uint16), "u4": np.dtype(np.uint32), "u8": np.dtype(np.uint64)}


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted, read or written; the message names the file."""


def load_pickle(path: Path) -> dict[str, np.ndarray]:
    """Read a pickled checkpoint into arrays by name; torch and Jittor need not be installed.

    Raises CheckpointError naming the file, and what it asked for, when it is damaged, refers to anything but
    arrays, or is not a flat dictionary of arrays.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            found = _load_torch_zip(path)
        elif tarfile.is_tarfile(path):
            raise CheckpointError(
                "written by torch before 0.1.10; load it with an old torch and save it again"
            )
        else:
            found = _load_stream(path)
        return _arrays(found)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    except Exception as error:
        # A damaged pickle can make the machine fail in any way; whatever it is, the file is to blame.
        raise CheckpointError(
            f"{path}: truncated, damaged or not a checkpoint ({type(error).__name__}: {error})"
        ) from error


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in a torch file; `values` is filled in by whoever reads the file."""

    dtype: np.dtype
    key: str
    size: int
    view: tuple | None = None  # (key, offset, size): the old stream's way to share storage


@dataclass(frozen=True)
class _Tensor:
    """A torch tensor: a strided window, counted in elements, onto a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """Cut the window out of its storage's `values` (n,) -> `size`, contiguous."""
        if len(self.size) != len(self.stride) or min(self.offset, *self.size, *self.stride, 0) < 0:
            raise CheckpointError(
                f"storage {self.storage.key}: size {self.size} and stride {self.stride} disagree"
            )
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and last >= len(values):
            raise CheckpointError(
                f"storage {self.storage.key}: a tensor reaches beyond its {len(values)} numbers"
            )
        steps = [step * values.itemsize for step in self.stride]
        window = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, steps)
        return np.array(window)


class _DType:
    """Stands in for numpy.dtype: a kind and, from its pickled state, a byte order."""

    def __init__(self, kind: str, *_):
        self.kind, self.order = kind, "<"

    def __setstate__(self, state: tuple):
        self.order = state[1]

    def resolve(self) -> np.dtype:
        if self.kind == "bfloat16":
            return np.dtype(ml_dtypes.bfloat16)
        if self.kind not in DTYPES:
            raise CheckpointError(f"holds an array of dtype {self.kind!r}, which is not a number")
        return DTYPES[self.kind].newbyteorder(self.order if self.order in "<>" else "=")


class _NDArray:
    """Stands in for an array that NumPy's pickles build empty and fill through their state."""

    array: np.ndarray

    def __setstate__(self, state: tuple):
        _, shape, dtype, fortran, data = state
        self.array = _frombuffer(data, dtype, shape, "F" if fortran else "C")


def _frombuffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    kind = dtype.resolve()
    return np.frombuffer(data, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(size), tuple(stride))


class _Name:
    """A name that a pickle may call or pass on, and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call):
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name, value):
        raise CheckpointError(f"tries to change a global ({name}); refused, nothing was run")

    def __call__(self, *arguments):
        return self._call(*arguments)


def _allowed_names() -> dict[tuple[str, str], object]:
    """Every global that a pickle may name -> its stand-in."""
    names = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _Name(lambda text, encoding: codecs.encode(text, "latin1")),
        ("numpy", "dtype"): _Name(_DType),
        ("numpy", "ndarray"): _Name(_NDArray),
        ("ml_dtypes", "bfloat16"): "bfloat16",
        ("torch._utils", "_rebuild_tensor_v2"): _Name(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor"): _Name(_rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): _Name(lambda data, *_: data),
        ("torch", "Size"): _Name(tuple),
    }
    for module in ("builtins", "__builtin__"):
        names[module, "bytes"] = _Name(lambda: b"")  # how protocols 0 to 2 spell no bytes
    for name in ("Var", "jittor_core.Var"):
        names["jittor", name] = _Name(lambda array: array)
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _Name(lambda *_: _NDArray())
        names[f"{core}.numeric", "_frombuffer"] = _Name(_frombuffer)
    return names | {("torch", name): name for name in STORAGES}


ALLOWED = _allowed_names()


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every global comes from `ALLOWED`."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise CheckpointError(
                f"asks for {module}.{name}, which is not array data; refused, nothing was run. "
                "If you trust its author, ask for a safetensors file"
            )
        return ALLOWED[module, name]

    def persistent_load(self, reference: tuple) -> _Storage:
        kind, numbers, key, _location, size, *view = reference
        if kind != "storage" or numbers not in STORAGES:
            raise CheckpointError(
                f"asks for a stored {kind!r}, which is not array data; refused, nothing was run"
            )
        return _Storage(
            np.dtype(STORAGES[numbers]), str(key), int(size), tuple(view[0]) if view and view[0] else None
        )


def _load_torch_zip(path: Path) -> object:
    """Read torch's zip: data.pkl says what there is, data/<key> holds numbers; the zip checks its CRCs."""
    with zipfile.ZipFile(path) as archive:
        entries = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(entries) != 1:
            raise CheckpointError("a zip archive without one data.pkl, so not written by torch")
        folder = entries[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise CheckpointError("written on a big-endian machine, which is not read here")
        found = _Unpickler(io.BytesIO(archive.read(entries[0]))).load()
        values = {
            storage.key: np.frombuffer(archive.read(f"{folder}data/{storage.key}"), storage.dtype)
            for storage in {tensor.storage for tensor in _tensors(found)}
        }
    return _filled(found, values)


def _load_stream(path: Path) -> object:
    """Read a bare pickle: torch's old stream, jittor.save's pickle with a trailer, or a plain one."""
    with path.open("rb") as file:
        found = _Unpickler(file).load()
        if found == TORCH_MAGIC:
            return _load_torch_stream(file)
        end = file.tell()
        trailer = file.read()
        file.seek(0)
        if trailer.endswith(JITTOR_MARK) and len(trailer) == 20 + len(JITTOR_MARK):
            if hashlib.sha1(file.read(end)).digest() != trailer[:20]:
                raise CheckpointError("its checksum does not match, so it is damaged; download it again")
        elif trailer:
            raise CheckpointError(
                f"{len(trailer)} stray bytes follow the pickle, so it is damaged; download it again"
            )
    return found


def _load_torch_stream(file: io.BufferedReader) -> object:
    """Read torch's stream after its magic number: protocol, system, contents, storage keys, storages."""
    if _Unpickler(file).load() != TORCH_PROTOCOL:
        raise CheckpointError("a torch file of an unknown protocol; save it again with a current torch")
    _Unpickler(file).load()
    found = _Unpickler(file).load()
    storages = {tensor.storage.key: tensor.storage for tensor in _tensors(found)}
    values = {}
    for key in _Unpickler(file).load():
        if key not in storages:
            raise CheckpointError(f"storage {key} belongs to no tensor, so it cannot be read")
        count = int.from_bytes(file.read(8), "little")
        data = file.read(count * storages[key].dtype.itemsize)
        values[key] = np.frombuffer(data, storages[key].dtype)
    return _filled(found, values)


def _tensors(found: object) -> list[_Tensor]:
    return (
        [value for value in found.values() if isinstance(value, _Tensor)] if isinstance(found, dict) else []
    )


def _filled(found: object, values: dict[str, np.ndarray]) -> object:
    """Replace every tensor of a dictionary by its array."""
    for key, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, _Tensor):
            storage = value.storage
            if storage.view or len(values[storage.key]) != storage.size:
                raise CheckpointError(f"{key}: storage {storage.key} does not hold {storage.size} numbers")
            found[key] = value.of(values[storage.key])
    return found


def _arrays(found: object) -> dict[str, np.ndarray]:
    """Check that what a pickle held is a flat dictionary of arrays by name."""
    if not isinstance(found, dict):
        raise CheckpointError(f"holds a {type(found).__name__}, expected a dictionary of arrays by name")
    arrays = {}
    for name, value in found.items():
        value = value.array if isinstance(value, _NDArray) else value
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise CheckpointError(
                f"entry {name!r} is a {type(value).__name__}, expected an array; save the state dict alone"
            )
        arrays[name] = value
    return arrays
