"""Several processes that work as one: who this one is, and what it exchanges with the others.

OpenMPI's mpirun starts the processes (ranks 0, 1, ...) and Jittor's MPI connects them; a process on its own touches
neither. Whatever exchanges something must be called by all ranks, in the same order.
"""

from __future__ import annotations

import glob
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from medusa_core import runtime

CHUNK = 1 << 30  # bytes of one call: MPI counts them in 32 bits
ADVICE = (
    "{} processes. Should one fail, mpirun ends all of them; what they saved stays, and the same command "
    "(a training with --resume) goes on from there."
)


def size() -> int:
    """Number of processes that mpirun started, 1 without it."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def first() -> bool:
    """Whether this is rank 0, which alone writes files and talks."""
    return rank() == 0


def quiet() -> dict[str, bool]:
    """What keeps a tqdm bar of another rank than the first silent; disable=False would overrule TQDM_DISABLE."""
    return {} if first() else {"disable": True}


def share(items: Sequence) -> Sequence:
    """This rank's items: every size()-th, so that the ranks' shares are alike."""
    return items[rank() :: size()]


def own_path(path: Path) -> Path:
    """The file in which this rank keeps its part of what goes to `path`: that very file for the first rank."""
    return path if first() else path.with_name(f"{path.name}.rank{rank()}")


def other_paths(path: Path) -> list[Path]:
    """Files that other ranks than the first, of this or an earlier run, left beside `path`."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.rank*"))


def broadcast(value: Any, root: int = 0) -> Any:
    """Return the value, of any type, that rank `root` gave."""
    if size() == 1:
        return value
    content = np.frombuffer(pickle.dumps(value), np.uint8).copy() if rank() == root else None
    length = np.array([0 if content is None else len(content)]).view(np.uint8)
    _mpi().broadcast(length, root)
    if content is None:
        content = np.empty(length.view(np.int64)[0], np.uint8)
    for begin in range(0, len(content), CHUNK):
        _mpi().broadcast(content[begin : begin + CHUNK], root)  # in place
    return value if rank() == root else pickle.loads(content.tobytes())


def everyones(value: Any) -> list:
    """Return what each rank gave, by rank."""
    return [broadcast(value, root) for root in range(size())]


def merge(own: Sequence) -> list:
    """Return the results of all ranks in the order of the items that they had from `share`."""
    parts = everyones(list(own))
    return [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]


def barrier() -> None:
    """Wait until every rank is here."""
    everyones(None)


def summed(tensors: dict) -> dict:
    """Return the sums over all ranks of named float32 Vars, the same bits everywhere."""
    if size() == 1:
        return tensors
    import jittor as jt

    flat = jt.concat([tensor.reshape((-1,)) for tensor in tensors.values()])
    flat.sync()
    _mpi().var_all_reduce(flat)  # in place; one call for all: each costs a round trip
    ends = np.cumsum([tensor.numel() for tensor in tensors.values()])
    return {
        name: flat[int(end) - tensor.numel() : int(end)].reshape(tensor.shape)
        for (name, tensor), end in zip(tensors.items(), ends)
    }


def alone(main: Callable[[], int | str | None]) -> NoReturn:
    """Exit with what the command line `main` returns; under mpirun with an error, since its work is not shared."""
    if size() > 1:
        sys.exit("error: this command's work is not shared among processes: leave mpirun out")
    sys.exit(main())


def run(main: Callable[[], int | str | None]) -> NoReturn:
    """Exit with what the command line `main` returns; with an error at once, so that mpirun ends the other ranks.

    An ordinary exit meets all ranks in MPI's end, and those that wait for this one elsewhere never come there.
    """
    if size() == 1:
        sys.exit(main())
    if first():
        print(ADVICE.format(size()), file=sys.stderr, flush=True)
    else:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    try:
        code = main()
    except SystemExit as request:
        code = request.code
    except BaseException:  # its traceback is shown, and the process ends
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    if code:
        print(f"rank {rank()} failed", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code:
        os._exit(code)
    sys.exit()


def _mpi():
    runtime.start()
    import jittor as jt

    return jt.mpi
