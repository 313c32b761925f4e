"""What this machine offers: cores, compilers, GPU, oneDNN, instruction sets. Starts nothing."""

import contextlib
import ctypes
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

COMPILER_FIX = "install g++ (Debian: apt install g++; conda: conda install gxx)"
HEADERS_FIX = f"install Python's headers (Debian: apt install python{sysconfig.get_python_version()}-dev)"
MPI_FIX = "install OpenMPI (Debian: apt install openmpi-bin libopenmpi-dev)"

MATRIX_UNIT = "AMX bf16"

CUDA_PROBE = """
import ctypes
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
ok = cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
raise SystemExit(not ok)
"""


def cores() -> int:
    """Cores this process may use: its affinity, cut down to a container's CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))  # "max" is no number: no quota
    return count


def threads() -> int:
    """Threads of this process: OMP_NUM_THREADS, whose first number counts, else one a core."""
    return int((os.environ.get("OMP_NUM_THREADS") or str(cores())).split(",")[0])


def compiler() -> str:
    """Path of the C++ compiler Jittor shall use (g++ or clang++), or "" when there is none."""
    cxx = os.environ.get("CXX", "").replace("gnu-c++", "gnu-g++")  # conda's name for its g++
    named = [cxx] if "g++" in cxx or "clang" in cxx else []
    for name in [os.environ.get("cc_path", ""), *named, "g++", "clang++"]:
        if name and (path := shutil.which(name)):
            return path
    return ""


def gpu_present() -> bool:
    """Whether the CUDA driver reports a device; asked in a child, so that CUDA stays untouched here."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    command = [sys.executable, "-S", "-c", CUDA_PROBE]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def gpu_used() -> bool:
    """Whether Jittor will compute on a GPU here: it takes an nvcc; use_cuda=0 in the environment keeps it off."""
    unwanted = os.environ.get("use_cuda") == "0" or os.environ.get("nvcc_path") == ""
    return not unwanted and gpu_present() and bool(cuda_compiler())


def cuda_compiler() -> str:
    """Path of an nvcc with its runtime library beside it, or "": Jittor's import dies on one without."""
    for name in (os.environ.get("nvcc_path"), "nvcc", "/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"):
        found = shutil.which(name) if name else None
        if found is None:
            continue
        nvcc = Path(found).resolve()
        packaged = nvcc == Path("/usr/bin/nvcc")  # Debian's package keeps its libraries elsewhere
        libraries = Path("/usr/lib/x86_64-linux-gnu") if packaged else nvcc.parents[1] / "lib64"
        if (libraries / "libcudart.so").exists():
            return str(nvcc)
    return ""


def onednn_library() -> Path | None:
    """The oneDNN 2 library of the PyPI package onednn-cpu-gomp, or None when it is not installed."""
    library = Path(sys.prefix) / "lib" / "libdnnl.so.2"
    header = Path(sys.prefix) / "include" / "dnnl.h"
    return library if library.exists() and header.exists() else None


def instruction_sets() -> list[str]:
    """What this CPU multiplies vectors and matrices with, weakest first."""
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": MATRIX_UNIT}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                return [name for flag, name in known.items() if flag in flags]
    return []


def matrix_unit() -> bool:
    """Whether this process may use Intel's matrix unit (AMX): Linux gives it to those who ask."""
    if MATRIX_UNIT not in instruction_sets():
        return False
    # x86-64's system call, ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA
    arch_prctl, request, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0


def tiles() -> bool:
    """Whether products of bfloat16 are added up in the matrix unit's order: where there is one, or as MEDUSA_AMX says.

    MEDUSA_AMX=0: in the order of all other processors, which gives their texts; 1: in the unit's order on any
    processor, slowly where there is none. Raises ValueError for another value.
    """
    asked = os.environ.get("MEDUSA_AMX", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"MEDUSA_AMX={asked}: expected 0 or 1")
    return asked == "1" or (asked == "" and matrix_unit())


def arithmetic() -> list[str]:
    """The instruction sets that the kernels use here, weakest first."""
    sets = instruction_sets()
    if not tiles():
        return [name for name in sets if name != MATRIX_UNIT]
    return sets if matrix_unit() else [*sets, f"{MATRIX_UNIT} imitated"]


def fast_pairs() -> bool:
    """Whether this CPU multiplies pairs of bfloat16 faster than it multiplies and adds their halves one by one.

    Measured on registers alone: AMD's Zen 4 and 5 do twice the arithmetic that way, an Intel Xeon that has it half.
    """
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        return "AuthenticAMD" in text and "AVX-512 bf16" in instruction_sets()
    return False


def resident_mib() -> float:
    """Memory of this process that is in RAM, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
