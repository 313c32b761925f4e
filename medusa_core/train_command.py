"""The command lines of both trainings: settings from flags and files, and what they refuse. Starts no Jittor."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

from medusa_core import checkpoint, commands, convert, heads, machine, ranks, runtime
from medusa_core.token_set import read_tokens
from medusa_core.train_config import TrainError, Training


def command(
    kind: type[Training], run: Callable, name: str, description: str, arguments: list[str] | None
) -> int:
    """Fill settings from flags and a YAML file, call `run(config, data, resume)`, and say what went wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m medusa_core.{name}", description=description)
    parser.add_argument(
        "--params", metavar="FILE.yaml", help="settings, a `name: value` a line; flags override"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the run")
    kind.add_flags(parser)
    given = vars(parser.parse_args(arguments))
    params, resume = given.pop("params"), given.pop("resume")

    def work() -> None:
        config = kind.from_yaml(params) if params else kind()
        config = dataclasses.replace(config, **given)
        _check_out(config, resume)
        if ranks.size() > 1 and machine.gpu_used():
            raise TrainError(
                "several processes cannot train on a GPU: Jittor adds up their gradients in the host's memory. Leave "
                "mpirun out, or set use_cuda=0 in the environment"
            )
        tokens = read_tokens(runtime.ROOT / config.data)
        if ranks.first():
            tokens.warn_unless_of(convert.resolve(config.model))
        run(config, tokens, resume)

    return commands.finish(work, "--resume goes on from the last checkpoint", (RuntimeError,))


def _check_out(config: Training, resume: bool) -> None:
    """Raise TrainError where this run would replace heads that others made."""
    weights = runtime.ROOT / config.out / heads.WEIGHTS_FILE
    if not weights.is_file():
        return
    same = checkpoint.load(weights)[1].get("config") == dataclasses.asdict(config)
    if not (same and resume):
        fix = "--resume reads them" if same else "name another --out and --run"
        raise TrainError(
            f"{weights.parent} holds trained heads{' of these settings' * same}: {fix}, or delete it"
        )
