"""Starts Jittor safely: environment, oneDNN, cache, threads, signals, and on a GPU where there is one."""

import atexit
import contextlib
import ctypes
import fcntl
import os
import platform
import shutil
import signal
import ssl
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TextIO

from medusa_core import machine
from medusa_core.threads import rest

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "artifacts"

# Jittor looks for oneDNN under this name only, whatever version lies there.
ONEDNN_FOLDER = Path(".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")

CORE_FILES = 160  # object files of a compiled Jittor 1.3.11

_started: int | None = None  # threads of the running Jittor
_onednn: ctypes.CDLL | None = None  # keeps the preloaded library alive


class StartError(RuntimeError):
    """Jittor cannot start on this machine, or in this process."""


def start(seed: int | None = None, threads: int | None = None) -> None:
    """Set the environment, import Jittor and undo what its import changes in this process.

    The first call compiles Jittor when its cache is cold and seeds with `seed` (default 0); later calls
    change nothing, except that an explicit `seed` seeds again. `threads` (default OMP_NUM_THREADS, else the
    cores available) holds for the whole process. Raises StartError when Jittor was imported before, cannot
    be compiled, or runs with another number of threads.
    """
    global _started
    if _started is None:
        if "jittor" in sys.modules:
            raise StartError(
                "jittor was imported before medusa_core.runtime.start(), too late to set it up; "
                "call start() before the first `import jittor`"
            )
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        home = jittor_home()
        set_environment(home)
        _import_jittor(home)
        _started = machine.threads()
        set_seed(0 if seed is None else seed)
    elif threads not in (None, _started):
        raise StartError(f"Jittor runs with {_started} threads already; give {threads} to the first start()")
    elif seed is not None:
        set_seed(seed)


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and Jittor's generators alike."""
    import jittor as jt

    jt.set_global_seed(seed, different_seed_for_mpi=False)


def jittor_home() -> Path:
    """Folder of Jittor's compiled code: JITTOR_HOME if set, else our own (other projects keep theirs)."""
    if given := os.environ.get("JITTOR_HOME"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "medusa_core"


def set_environment(home: Path) -> None:
    """Set the environment variables Jittor reads, keeping what the user set.

    `home` receives links to oneDNN and a python-config. Raises StartError when the compiler or Python's
    headers are missing or `home` cannot be written.
    """
    env = os.environ
    compiler = machine.compiler()
    if not compiler:
        raise StartError(f"no C++ compiler: {machine.COMPILER_FIX}")
    env["cc_path"] = compiler
    try:
        home.mkdir(parents=True, exist_ok=True)
        env.setdefault("python_config_path", str(_write_python_config(home)))
        use_onednn = _lay_onednn(home)
    except OSError as error:
        raise StartError(f"cannot write to {home} ({error}); set JITTOR_HOME to another folder") from error
    env.setdefault("use_mkl", "1" if use_onednn else "0")
    cpu_only = env.get("nvcc_path") == "" or not machine.gpu_present()
    env["nvcc_path"] = "" if cpu_only else machine.cuda_compiler()
    # Jittor would compile and initialise MPI in every process of a machine that has OpenMPI.
    env["use_mpi"] = "1" if _started_by_mpirun() else "0"
    # mpirun either gives each process cores of its own, or lets those of a machine share all.
    bound = "OMPI_MCA_orte_bound_at_launch" in env
    sharing = 1 if bound else int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    if not env.get("OMP_NUM_THREADS"):
        env["OMP_NUM_THREADS"] = str(max(1, machine.cores() // sharing))
    env.setdefault("use_parallel_op_compiler", str(min(16, machine.cores())))
    env.setdefault("log_silent", "1")
    env.setdefault("cache_name", "medusa")  # otherwise the cache changes with the git branch
    env["FIX_TORCH_ERROR"] = "0"  # otherwise Jittor imports torch
    for library in ("use_nccl", "use_cutt", "use_cutlass"):  # each would be downloaded
        env.setdefault(library, "0")
    env.setdefault("conv_opt", "1")  # CUDA without cuDNN: nothing here convolves


def _started_by_mpirun() -> bool:
    """Whether this is one of several processes; raises StartError where Jittor cannot connect them."""
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        if not shutil.which(os.environ.get("mpicc_path") or "mpicc"):
            raise StartError(f"mpirun started this process, but there is no mpicc: {machine.MPI_FIX}")
        return True
    if int(os.environ.get("PMI_SIZE", "1")) > 1:  # set by MPICH, Intel MPI and Slurm
        raise StartError(
            "this is one of several processes that OpenMPI's mpirun did not start: each would do all the work; "
            f"use that mpirun ({machine.MPI_FIX}), or start one process"
        )
    return False


def _write_python_config(home: Path) -> Path:
    """Write a python-config of this interpreter: the one on PATH may belong to another, or be missing."""
    include, suffix = sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")
    if not (Path(include) / "Python.h").exists():
        raise StartError(f"no Python.h in {include}: {machine.HEADERS_FIX}")
    script = home / f"python{sysconfig.get_python_version()}-config"
    text = f"#!/bin/sh\n[ \"$1\" = --includes ] && echo \"-I'{include}'\" || echo '{suffix}'\n"
    if not script.exists() or script.read_text() != text:
        fresh = script.with_name(f"{script.name}.{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(script)
    return script


def _lay_onednn(home: Path) -> bool:
    """Lay oneDNN where Jittor looks and preload it; False when there is none for this machine."""
    global _onednn
    library = machine.onednn_library()
    if library is None or platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    folder = home / ONEDNN_FOLDER
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    headers = library.parents[1] / "include"
    links = {"include": headers, "lib/libmkldnn.so": library, "lib/libdnnl.so.2": library}
    for name, target in links.items():
        link = folder / name
        if link.exists() and (not link.is_symlink() or link.readlink() == target):
            continue  # a real file is somebody's own oneDNN
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(target)
        fresh.replace(link)
    _onednn = ctypes.CDLL(str(folder / "lib/libmkldnn.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
    return True


def _import_jittor(home: Path) -> None:
    """Import Jittor with its noise in a log file and its changes to the process undone."""
    limit, context = sys.getrecursionlimit(), ssl._create_default_https_context
    changed = [signal.SIGINT, signal.SIGCHLD] if threading.current_thread() is threading.main_thread() else []
    handlers = {number: signal.getsignal(number) for number in changed}
    handle, name = tempfile.mkstemp(prefix="start-", suffix=".log", dir=home)
    log = Path(name)
    try:
        with os.fdopen(handle, "w") as file, _redirected(file) as console:
            with (home / "start.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # Jittor's own lock does not cover its first files in `home`
                utils = import_utils(home)
            stamp = ready_stamp(utils)
            first_rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0"
            cold = not stamp.exists() and first_rank
            with _progress(console, stamp.parent) if cold else contextlib.nullcontext():
                import jittor
            use_gpu(jittor)
            stamp.touch()
        atexit.register(rest)  # before Jittor's own clean-up, which was registered earlier
    except Exception as error:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise StartError(
            f"Jittor could not be compiled or loaded: {error}\nLast lines of {log}:\n{tail}\n"
            "`make doctor` says what this machine lacks"
        ) from error
    finally:
        sys.setrecursionlimit(limit)
        ssl._create_default_https_context = context
        for number, handler in handlers.items():
            # None is a handler that C code installed; Jittor's own ends the process without a traceback.
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default if handler is None else handler)
    log.unlink()


def use_gpu(jittor: ModuleType) -> None:
    """Let Jittor compute on the GPU that it found, unless the user set use_cuda=0: by itself it never would."""
    if jittor.has_cuda and os.environ.get("use_cuda") != "0":
        jittor.flags.use_cuda = 1


def ready_stamp(utils: ModuleType) -> Path:
    """The file that says that Jittor's core is compiled for the environment as it is set."""
    kind = f"{'cuda' if os.environ['nvcc_path'] else 'cpu'}-mkl{os.environ['use_mkl']}"
    kind += "-mpi" if os.environ["use_mpi"] == "1" else ""
    return Path(utils.cache_path) / f"medusa-{kind}.ready"


def import_utils(home: Path) -> ModuleType:
    """Import jittor_utils, the part of Jittor that fixes the cache folder, with `home` as that folder."""
    # HOME is moved meanwhile: Jittor records a new JITTOR_HOME in ~/.cache/jittor/config.json, for every
    # later Jittor program of this user.
    before = {name: os.environ.get(name) for name in ("HOME", "JITTOR_HOME")}
    os.environ.update(dict.fromkeys(before, str(home)))
    try:
        import jittor_utils
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    initialize = jittor_utils.pool_initializer

    def deaf_to_ctrl_c() -> None:
        initialize()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    # Ctrl-C reaches the processes that compile, too; one that dies with their queue's lock would keep us from leaving.
    jittor_utils.pool_initializer = deaf_to_ctrl_c
    # In a notebook Jittor would write through this cell's stream for ever; ipykernel captures C++ anyway.
    jittor_utils.is_in_ipynb = False
    return jittor_utils


@contextlib.contextmanager
def _redirected(file: TextIO) -> Iterator[TextIO]:
    """Send all that is printed, by C++ and compilers too, to `file`; yields a stream to the user."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        is_terminal_stream = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        is_terminal_stream = False  # a notebook's or a test's stream
    console = os.fdopen(os.dup(2), "w") if is_terminal_stream else sys.stderr
    try:
        for number in kept:
            os.dup2(file.fileno(), number)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield console
    finally:
        file.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        if is_terminal_stream:
            console.close()


@contextlib.contextmanager
def _progress(console: TextIO, cache: Path) -> Iterator[None]:
    """Say in words how far the compilation inside the block is."""
    done, begin = threading.Event(), time.monotonic()

    def report() -> None:
        while not done.wait(20):
            files = sum(1 for _ in cache.rglob("*.o"))
            print(
                f"  {time.monotonic() - begin:3.0f} s: {files} of about {CORE_FILES} files",
                file=console,
                flush=True,
            )

    print("Compiling Jittor, about 2 minutes on 2 cores, once ...", file=console, flush=True)
    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    print(f"Jittor is ready after {time.monotonic() - begin:.0f} s.", file=console, flush=True)
