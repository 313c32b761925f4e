"""The machine's stamp: what a measured number was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from medusa_core import machine
from medusa_core.runtime import ROOT

PACKAGES = ("jittor", "numpy", "transformers", "tokenizers")
PROCESSOR = ("cpu", "instruction_sets", "threads", "gpu")  # where these differ, times are another machine's
FAMILY = "cpu_family"  # hosts call several generations of processors by one name; older files do not tell


def stamp() -> dict:
    """Describe the machine, the software and the commit; a value that cannot be told is None."""
    compiler = machine.compiler()
    return {
        "cpu": _cpu_says("model name") or platform.processor() or None,
        FAMILY: _cpu_says("cpu family"),
        "instruction_sets": machine.arithmetic(),
        "cores": machine.cores(),
        "threads": machine.threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": _first_line(compiler, "--version") if compiler else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "git_commit": _first_line("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "git_dirty": _dirty(),
    }


def in_words(machine: dict) -> str:
    """What a stamp says of the processor."""
    family = f" of family {machine[FAMILY]}" if machine.get(FAMILY) else ""
    return (
        f"{machine['threads']} threads, {machine['cpu']}{family} ({', '.join(machine['instruction_sets'])})"
    )


def processor_differences(there: dict, here: dict) -> list[str]:
    """In what two stamps are of different processors, as far as both tell."""
    known = [*PROCESSOR, *([FAMILY] if there.get(FAMILY) and here.get(FAMILY) else [])]
    return [key for key in known if there.get(key) != here.get(key)]


def _cpu_says(key: str) -> str | None:
    """What the system says of its first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition("\t")[0] == key), None)


def _dirty() -> bool | None:
    # Results and runs are written while things are measured; only changed code makes a number doubtful.
    output = _output("git", "-C", str(ROOT), "status", "--porcelain", "--", ":!artifacts")
    return None if output is None else bool(output)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(*command: str) -> str | None:
    output = _output(*command)
    return output.split("\n")[0] if output else None


def _output(*command: str) -> str | None:
    """Standard output of a command, or None when it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
