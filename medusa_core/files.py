"""Writing files so that a crash or a full disk leaves the old file or the new one, and whole lines."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileNameError(ValueError, argparse.ArgumentTypeError):  # argparse shows the words of the latter
    """A text that cannot name a file."""


def file_name(text: str) -> str:
    """Return `text` if it can name a file in a folder that is given; raises FileNameError where it leads elsewhere."""
    if not text or Path(text).name != text or text.startswith("."):
        raise FileNameError(f"{text!r} is not the name of a file: expected one without folders, not hidden")
    return text


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    The data is on disk before the name changes. Raises OSError naming `path` when the disk is full;
    on any error the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, f"no space left on the disk of {path.parent}: free some", str(path)
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    On any error it is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read,
        for entry in temporary.rglob("*"):  # and some libraries such files
            entry.chmod(0o755 if entry.is_dir() else 0o644)
        if path.exists():
            path.rename(old)  # a folder that is not empty cannot be replaced in one step
        temporary.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON in one atomic step; NaN and infinity, which JSON lacks, are errors."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def append_line(path: Path | str, row: dict) -> None:
    """Append `row` as one JSON line that is on disk when this returns; `finished_lines` reads them back."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def finished_lines(path: Path | str) -> list[dict]:
    """Rows of a file that `append_line` made, none if absent; a last line cut short is removed from it.

    Raises ValueError naming file and line when an earlier line is damaged.
    """
    path = Path(path)
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}:{number}: not valid JSON ({error}); remove this line or the file"
            ) from None
    return rows


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
