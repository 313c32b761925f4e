"""Starts Jittor safely: environment, oneDNN, cache, threads, signals; hides GPUs while torch is imported."""

import contextlib
import ctypes
import math
import os
import platform
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "artifacts"

# Jittor looks for oneDNN under this name only, whatever version lies there.
ONEDNN_FOLDER = Path(".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")
CUDA_PROBE = """
import ctypes
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
ok = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
raise SystemExit(not ok)
"""

_started: int | None = None  # threads of the running Jittor
_onednn: ctypes.CDLL | None = None  # keeps the preloaded library alive


def start(seed: int | None = None, threads: int | None = None) -> None:
    """Set the environment, import Jittor and undo what its import changes in this process.

    The first call compiles Jittor when its cache is cold and seeds with `seed` (default 0); later calls change nothing,
    except that an explicit `seed` seeds again. `threads` (default OMP_NUM_THREADS, else the cores available) holds for
    the whole process.
    Raises RuntimeError when Jittor was imported before, cannot be compiled, or runs with another number of threads.
    """
    global _started
    if _started is None:
        if "jittor" in sys.modules:
            raise RuntimeError(
                "jittor was imported before medusa_core.runtime.start(), so its settings can no longer be changed; "
                "call start() before the first `import jittor`"
            )
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        home = jittor_home()
        set_environment(home)
        _import_jittor(home)
        _started = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
        set_seed(0 if seed is None else seed)
    elif threads not in (None, _started):
        raise RuntimeError(f"Jittor already runs with {_started} threads; give threads={threads} to the first start()")
    elif seed is not None:
        set_seed(seed)


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and Jittor's generators alike."""
    import jittor as jt

    jt.set_global_seed(seed)


@contextlib.contextmanager
def hide_gpus() -> Iterator[None]:
    """Hide GPUs inside the block: torch imported there stays on the CPU and leaves CUDA to Jittor."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def jittor_home() -> Path:
    """Folder of Jittor's compiled code: JITTOR_HOME if set, else our own, so that other Jittor projects keep theirs."""
    if given := os.environ.get("JITTOR_HOME"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "medusa_core"


def cores() -> int:
    """Cores this process may use: its affinity, cut down to a container's CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))  # "max" is no number: no quota
    return count


def compiler() -> str:
    """Path of the C++ compiler Jittor shall use (g++ or clang++), or "" when there is none."""
    cxx = os.environ.get("CXX", "").replace("gnu-c++", "gnu-g++")  # conda's name for its g++
    named = [cxx] if "g++" in cxx or "clang" in cxx else []
    for name in [os.environ.get("cc_path", ""), *named, "g++", "clang++"]:
        if name and (path := shutil.which(name)):
            return path
    return ""


def gpu_present() -> bool:
    """Whether the CUDA driver reports a device; asked in a child, so that CUDA stays untouched in this process."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    probe = subprocess.run([sys.executable, "-S", "-c", CUDA_PROBE], capture_output=True, timeout=60, check=False)
    return probe.returncode == 0


def cuda_compiler() -> str:
    """Path of an nvcc with its runtime library beside it, or "": Jittor's import dies on one without."""
    for name in (os.environ.get("nvcc_path"), "nvcc", "/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"):
        found = shutil.which(name) if name else None
        if found is None:
            continue
        nvcc = Path(found).resolve()
        library = Path("/usr/lib/x86_64-linux-gnu") if nvcc == Path("/usr/bin/nvcc") else nvcc.parents[1] / "lib64"
        if (library / "libcudart.so").exists():
            return str(nvcc)
    return ""


def onednn_library() -> Path | None:
    """The oneDNN 2 library of the PyPI package onednn-cpu-gomp, or None when it is not installed."""
    library = Path(sys.prefix) / "lib" / "libdnnl.so.2"
    header = Path(sys.prefix) / "include" / "dnnl.h"
    return library if library.exists() and header.exists() else None


def set_environment(home: Path) -> None:
    """Set the environment variables Jittor reads, keeping what the user set; `home` receives oneDNN and a python-config.

    Raises RuntimeError when the compiler or Python's headers are missing or `home` cannot be written.
    """
    env = os.environ
    env["cc_path"] = compiler()
    if not env["cc_path"]:
        raise RuntimeError("no C++ compiler: install g++ (Debian: apt install g++; conda: conda install gxx)")
    try:
        home.mkdir(parents=True, exist_ok=True)
        env.setdefault("python_config_path", str(_write_python_config(home)))
        use_onednn = _lay_onednn(home)
    except OSError as error:
        raise RuntimeError(f"Jittor's folder {home} is not usable ({error}); set JITTOR_HOME to another one") from error
    env.setdefault("use_mkl", "1" if use_onednn else "0")
    cpu_only = env.get("nvcc_path") == "" or not gpu_present()
    env["nvcc_path"] = "" if cpu_only else cuda_compiler()
    if "OMPI_COMM_WORLD_SIZE" not in env:
        env["use_mpi"] = "0"
    ranks = int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
    env.setdefault("OMP_NUM_THREADS", str(max(1, cores() // ranks)))
    env.setdefault("use_parallel_op_compiler", str(min(16, cores())))
    env.setdefault("log_silent", "1")
    env.setdefault("cache_name", "medusa")  # otherwise the cache changes with the git branch
    env["FIX_TORCH_ERROR"] = "0"  # otherwise Jittor imports torch
    for library in ("use_nccl", "use_cutt", "use_cutlass"):  # each would be downloaded
        env.setdefault(library, "0")
    env.setdefault("conv_opt", "1")  # CUDA without cuDNN: nothing here convolves


def _write_python_config(home: Path) -> Path:
    """Write a python-config of this interpreter: the one on PATH may belong to another, or be missing."""
    include, suffix = sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")
    if not (Path(include) / "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise RuntimeError(f"no Python.h in {include}: install Python's headers (Debian: apt install python{version}-dev)")
    script = home / f"python-config{suffix}.sh"
    text = f"#!/bin/sh\n[ \"$1\" = --includes ] && echo \"-I'{include}'\" || echo '{suffix}'\n"
    if not script.exists() or script.read_text() != text:
        fresh = script.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(script)
    return script


def _lay_onednn(home: Path) -> bool:
    """Lay oneDNN where Jittor looks and preload it; False when there is none for this machine."""
    global _onednn
    library = onednn_library()
    if library is None or platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    folder = home / ONEDNN_FOLDER
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    links = {"include": library.parents[1] / "include", "lib/libmkldnn.so": library, "lib/libdnnl.so.2": library}
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
            utils = _import_utils(home)
            kind = f"{'cuda' if os.environ['nvcc_path'] else 'cpu'}-mkl{os.environ['use_mkl']}"
            stamp = Path(utils.cache_path) / f"medusa-{kind}.ready"
            with _progress(console, Path(utils.cache_path), cold=not stamp.exists()):
                import jittor  # noqa: F401
            stamp.touch()
    except Exception as error:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(
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


def _import_utils(home: Path):
    """Import jittor_utils, which fixes its folder now: HOME is moved meanwhile, because it would record a new
    JITTOR_HOME in ~/.cache/jittor/config.json for every later Jittor program of this user."""
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
    # In a notebook Jittor would log through Python objects of the running cell; ipykernel captures C++ output itself.
    jittor_utils.is_in_ipynb = False
    return jittor_utils


@contextlib.contextmanager
def _redirected(file: TextIO) -> Iterator[TextIO]:
    """Send everything printed, compilers and C++ included, to `file`; yields a stream that still reaches the user."""
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
def _progress(console: TextIO, cache: Path, cold: bool) -> Iterator[None]:
    """Say in words that Jittor compiles: at once when the cache is cold, otherwise only if starting takes long."""
    done, begin = threading.Event(), time.monotonic()

    def report() -> None:
        if done.wait(0 if cold else 30):
            return
        print("Compiling Jittor, about 2 minutes on 2 cores, once ...", file=console, flush=True)
        while not done.wait(20):
            files = sum(1 for _ in cache.rglob("*.o"))
            seconds = time.monotonic() - begin
            print(f"  {seconds:3.0f} s: {files} files compiled", file=console, flush=True)
        print(f"Jittor is ready after {time.monotonic() - begin:.0f} s.", file=console, flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    from medusa_core.doctor import main

    sys.exit(main())
