"""What this machine has and lacks for the study, with the fix for each lack (`make doctor`)."""

import argparse
import contextlib
import ctypes.util
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from medusa_core import machine, runtime

SIGNS = {"ok": "ok", "lack": "lacks", "stop": "STOPS"}


@dataclass(frozen=True)
class Finding:
    """One line of the table; grade: "ok", "lack" (slower, or a part missing) or "stop" (nothing runs)."""

    name: str
    found: str
    grade: str = "ok"
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything the study uses; compiles and downloads nothing."""
    return [
        _python(),
        _compiler(),
        _headers(),
        _openmp(),
        _cores(),
        _memory(),
        _vector_instructions(),
        _cuda(),
        _onednn(),
        _jittor(),
        _cache(),
        _disk(),
        _openmpi(),
    ]


def table(findings: list[Finding]) -> str:
    """The findings as aligned lines, each lack followed by its fix."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{SIGNS[finding.grade]:5}  {finding.name:{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':5}  {'':{width}}  -> {finding.fix}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 when something stops the study, else 0."""
    findings = examine()
    print(table(findings))
    stops = [finding.name for finding in findings if finding.grade == "stop"]
    print(
        f"\nThe study cannot run here yet: {', '.join(stops)}."
        if stops
        else "\nThe study runs on this machine."
    )
    return 1 if stops else 0


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        return Finding("Python", found)
    return Finding("Python", found, "stop", "install Python 3.10 to 3.12; 3.11 is what is tested")


def _compiler() -> Finding:
    path = machine.compiler()
    if not path:
        return Finding("C++ compiler", "none", "stop", machine.COMPILER_FIX)
    return Finding("C++ compiler", f"{_first_line(path, '--version')} ({path})")


def _headers() -> Finding:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.exists():
        return Finding("Python headers", str(header.parent))
    return Finding("Python headers", f"no {header}", "stop", machine.HEADERS_FIX)


def _openmp() -> Finding:
    name = "omp" if "clang" in Path(machine.compiler()).name else "gomp"
    found = ctypes.util.find_library(name)
    if found:
        return Finding("OpenMP", found)
    package = "libomp-dev" if name == "omp" else "libgomp1"
    return Finding("OpenMP", "none", "stop", f"install lib{name} (Debian: apt install {package})")


def _cores() -> Finding:
    count = machine.cores()
    threads = os.environ.get("OMP_NUM_THREADS")
    found = f"{count} usable" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if count >= 2:
        return Finding("cores", found)
    return Finding("cores", found, "lack", "give it 2 or more: the stated times are for 2 cores")


def _memory() -> Finding:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if gib >= 7.5:
        return Finding("memory", f"{gib:.1f} GiB")
    return Finding(
        "memory", f"{gib:.1f} GiB", "lack", "use a machine with 8 GiB or more, or close other programs"
    )


def _vector_instructions() -> Finding:
    try:
        sets = machine.arithmetic()
    except ValueError as error:
        return Finding("instructions", str(error), "stop", "set MEDUSA_AMX to 0 or 1, or unset it")
    if sets:
        idle = machine.MATRIX_UNIT in set(machine.instruction_sets()) - set(sets)
        unused = f"; {machine.MATRIX_UNIT} is there and not used" if idle else ""
        return Finding("instructions", ", ".join(sets) + unused)
    fix = "nothing to install: the portable kernels run, slower, and speed-ups are smaller"
    return Finding("instructions", "no AVX2", "lack", fix)


def _cuda() -> Finding:
    gpu, nvcc = machine.gpu_present(), machine.cuda_compiler()
    if gpu and nvcc:
        return Finding("CUDA", f"a GPU and {nvcc}")
    if gpu:
        fix = "install the CUDA toolkit with its runtime library, or go on with the CPU"
        return Finding("CUDA", "a GPU, but no nvcc with libcudart beside it", "lack", fix)
    return Finding("CUDA", f"no GPU{' (nvcc is ignored)' if shutil.which('nvcc') else ''}; the CPU is used")


def _onednn() -> Finding:
    library = machine.onednn_library()
    if library:
        return Finding("oneDNN", str(library.resolve()))
    fix = f"{sys.executable} -m pip install onednn-devel-cpu-gomp==2022.2.1 (x86-64 Linux only)"
    return Finding("oneDNN", "none: training's matrix products are slow", "lack", fix)


def _jittor() -> Finding:
    try:
        return Finding("Jittor", importlib.metadata.version("jittor"))
    except importlib.metadata.PackageNotFoundError:
        return Finding("Jittor", "not installed", "stop", "make .venv/installed (or pip install -e .)")


def _cache() -> Finding:
    home = runtime.jittor_home()
    try:
        runtime.set_environment(home)
        ready = runtime.ready_stamp(runtime.import_utils(home)).exists()
    except (RuntimeError, ImportError) as error:
        return Finding("Jittor's cache", f"unknown: {error}", "lack", "mend the lines above first")
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file() and not file.is_symlink())
    state = "warm" if ready else "cold: the first start compiles for about 2 minutes"
    return Finding("Jittor's cache", f"{home}, {size / 2**20:.0f} MiB, {state}")


def _disk() -> Finding:
    free = {
        path: shutil.disk_usage(path).free / 2**30
        for path in (runtime.ROOT, _existing(runtime.jittor_home()))
    }
    found = ", ".join(f"{gib:.1f} GiB free at {path}" for path, gib in free.items())
    worst = min(free.values())
    if worst >= 5:
        return Finding("disk", found)
    return Finding(
        "disk", found, "lack" if worst >= 1 else "stop", "free 5 GiB: models, hidden states and caches"
    )


def _openmpi() -> Finding:
    fix = f"only for work on several processes: {machine.MPI_FIX}"
    if not (shutil.which("mpirun") and shutil.which("mpicc")):
        return Finding("OpenMPI", "none", "lack", fix)
    version = _first_line("mpirun", "--version")
    if "Open MPI" in version:
        return Finding("OpenMPI", version)
    return Finding("OpenMPI", f"another MPI: {version}", "lack", fix)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _first_line(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
        return output.splitlines()[0] if output else "unknown version"
    return "unknown version"


if __name__ == "__main__":
    argparse.ArgumentParser("python -m medusa_core.doctor", description=main.__doc__).parse_args()
    sys.exit(main())
