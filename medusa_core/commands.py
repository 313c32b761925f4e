"""How a command ends: what its user can mend is said in a line, everything else keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from medusa_core import runtime
from medusa_core.runtime import StartError

AGAIN = "the same command begins anew"
GOES_ON = "the same command goes on"


def finish(work: Callable[[], object], interrupted: str = AGAIN, errors: tuple = ()) -> int:
    """Do a command's work and return its exit status: 0, 1 where it says an error, 130 where it was interrupted.

    errors: kinds of it beside those of this package and of the system.
    """
    try:
        work()
    except (ValueError, OSError, StartError, *errors) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; {interrupted}.", file=sys.stderr)
        return 130
    return 0


def result_file(name: str) -> Path:
    """Where a command puts a result of this name; FileExistsError where there is one already."""
    path = runtime.ARTIFACTS / "results" / f"{name}.json"
    if path.exists():
        raise FileExistsError(f"{path} is there already: choose another --name, or delete it")
    return path
