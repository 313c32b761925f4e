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


def stamp() -> dict:
    """Describe the machine, the software and the commit; a value that cannot be told is None."""
    compiler = machine.compiler()
    return {
        "cpu": cpu_model(),
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
    return f"{machine['threads']} threads, {machine['cpu']} ({', '.join(machine['instruction_sets'])})"


def cpu_model() -> str | None:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or None


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
