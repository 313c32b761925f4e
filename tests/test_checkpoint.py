"""Checkpoints are whole or refused; pickles build arrays or are refused, and never run anything."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from oracles.make_pickle_fixtures import FIXTURES, expected
from safetensors.numpy import save_file

from medusa_core import checkpoint
from medusa_core.checkpoint import CheckpointError, load, load_pickle, require, save, shapes_of


def tensors() -> dict[str, np.ndarray]:
    return {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "a": np.linspace(-1, 1, 1000).astype(ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int32),
        "empty": np.zeros((0, 4), np.float16),
    }


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_a_saved_checkpoint_loads_with_the_same_bits_and_header(tmp_path):
    header = {"step": 3, "nested": {"seed": [1, 2]}, "text": "é"}
    save(tmp_path / "x.safetensors", tensors(), header)
    found, read = load(tmp_path / "x.safetensors")
    same(found, tensors())
    assert read == header
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    save(path, tensors(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: truncated"):
        load(path)


def test_every_flipped_bit_of_data_or_header_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, {"a": np.arange(4, dtype=np.float32)}, {"step": 3})
    whole = path.read_bytes()
    step = whole.index(b"step")
    for position in [step, *range(len(whole) - 16, len(whole))]:
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged"):
            load(path)


def test_a_safetensors_file_of_someone_else_is_not_taken_for_a_checkpoint(tmp_path):
    save_file({"a": np.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: has no header and checksum"):
        load(tmp_path / "other.safetensors")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), checkpoint.safetensors.SafetensorError("os error 28")],
)
def test_a_full_disk_keeps_the_old_checkpoint_and_says_so(tmp_path, monkeypatch, error):
    path = tmp_path / "x.safetensors"
    save(path, tensors(), {"step": 1})

    def half_written(_tensors, partial, metadata):
        Path(partial).write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", half_written)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: .*x\.safetensors is unchanged"):
        save(path, tensors(), {"step": 2})
    assert load(path)[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_full_disk_is_told_apart_from_other_failures():
    full = checkpoint.safetensors.SafetensorError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")
    assert "the disk is full; free some space" in checkpoint.write_failure(Path("x"), full)
    assert "cannot be written" in checkpoint.write_failure(Path("x"), PermissionError(errno.EACCES, "denied"))


def test_a_write_that_the_system_cuts_off_leaves_nothing(tmp_path):
    """The kernel itself stops the write after 100 kB, as a full disk would, in a process of its own."""
    program = (
        "import resource, numpy as np\n"
        "from pathlib import Path\n"
        "from medusa_core.checkpoint import CheckpointError, save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    save(Path('x.safetensors'), {'a': np.ones(1_000_000)}, {})\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "x.safetensors: cannot be written" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_require_names_missing_unexpected_and_misshapen_tensors():
    found = shapes_of({"a": np.zeros((2, 3)), "extra": np.zeros(1)})
    with pytest.raises(CheckpointError) as caught:
        require(found, {"a": (3, 2), "b": (4,)}, "heads.safetensors")
    for part in (
        "heads.safetensors",
        "missing b (4,)",
        "unexpected extra (1,)",
        "a has shape (2, 3), expected (3, 2)",
    ):
        assert part in str(caught.value)
    require({"a": (3, 2)}, {"a": (3, 2)}, "heads.safetensors")


@pytest.mark.parametrize("name", ["torch_zip.bin", "torch_legacy.bin"])
def test_torch_files_read_as_torch_wrote_them(name):
    same(load_pickle(FIXTURES / name), expected())


def test_a_jittor_file_reads_as_jittor_wrote_it():
    wanted = {name: expected()[name] for name in ("float", "half", "transposed")}
    same(load_pickle(FIXTURES / "jittor.jtr"), {"var": wanted["float"], **wanted})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_read_at_every_protocol(tmp_path, protocol):
    arrays = {
        **expected(),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays, protocol))
    found = load_pickle(tmp_path / "x.pkl")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), array.astype(np.float64), err_msg=name)
        assert found[name].dtype == array.dtype.newbyteorder("="), name


@pytest.mark.parametrize("name", ["torch_zip.bin", "torch_legacy.bin", "jittor.jtr"])
def test_truncated_pickles_are_refused_by_name(tmp_path, name):
    whole = (FIXTURES / name).read_bytes()
    for keep in (0, 1, 10, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=name):
            load_pickle(tmp_path / name)


@pytest.mark.parametrize("name", ["torch_zip.bin", "jittor.jtr"])
def test_flipped_bits_in_checksummed_pickles_are_refused(tmp_path, name):
    whole = (FIXTURES / name).read_bytes()
    numbers = whole.index(expected()["float"].tobytes())
    for position in range(numbers, numbers + 96, 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            load_pickle(tmp_path / name)


class Attack:
    """An object whose pickle asks the reader to call `call(*arguments)`."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pkl", ".jtr"])
def test_a_pickle_that_runs_a_command_is_refused_by_what_it_asks_for(tmp_path, suffix):
    path, trace = tmp_path / f"evil{suffix}", tmp_path / "was_here"
    path.write_bytes(pickle.dumps({"w": Attack(os.system, f"touch {trace}")}))
    with pytest.raises(CheckpointError, match=rf"evil\{suffix}: asks for posix\.system.*nothing was run"):
        load_pickle(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the attack does work on a reader that is not careful
    assert trace.exists()


def test_a_command_inside_a_torch_zip_is_refused(tmp_path):
    import zipfile

    path, trace = tmp_path / "evil.bin", tmp_path / "was_here"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": Attack(os.system, f"touch {trace}")}))
    with pytest.raises(CheckpointError, match=r"evil\.bin: asks for posix\.system"):
        load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "call", [eval, getattr, __import__, pickle.loads, np.load, np.fromfile, subprocess.Popen]
)
def test_no_other_callable_gets_through(tmp_path, call):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"w": Attack(call, "1")}))
    with pytest.raises(CheckpointError, match="refused, nothing was run"):
        load_pickle(tmp_path / "evil.pkl")


def test_a_pickle_cannot_change_the_reader_for_the_next_file(tmp_path):
    # PROTO 4, GLOBAL numpy.dtype, state (None, {"_call": 1}), BUILD, STOP: sets an attribute on an allowed name.
    attack = b"\x80\x04cnumpy\ndtype\nN}\x8c\x05_callK\x01s\x86b."
    (tmp_path / "evil.pkl").write_bytes(attack)
    with pytest.raises(CheckpointError, match="tries to change a global"):
        load_pickle(tmp_path / "evil.pkl")
    same(load_pickle(FIXTURES / "torch_zip.bin"), expected())


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    """Strides are counts into a storage: too large ones would read the process's memory."""
    import zipfile

    path = tmp_path / "evil.bin"
    with zipfile.ZipFile(FIXTURES / "torch_zip.bin") as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                shape = b"K\x04K\x06\x86"  # the tuple (4, 6), first the size of "float"
                assert shape in data
                data = data.replace(shape, b"K\x04K\xff\x86", 1)
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match=r"evil\.bin: .*beyond its 24 numbers"):
        load_pickle(path)


def test_object_arrays_and_nested_dictionaries_are_refused(tmp_path):
    for value, message in (
        (np.array([{}], dtype=object), "dtype 'O8'"),
        ({"weight": np.zeros(2)}, "entry 'w' is a dict"),
        (3, "entry 'w' is a int"),
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": value}))
        with pytest.raises(CheckpointError, match=message):
            load_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(CheckpointError, match="holds a list"):
        load_pickle(tmp_path / "x.pkl")


def test_text_and_missing_files_are_refused_by_name(tmp_path):
    (tmp_path / "readme.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name in ("readme.bin", "none.pkl"):
        with pytest.raises(CheckpointError, match=name):
            load_pickle(tmp_path / name)
