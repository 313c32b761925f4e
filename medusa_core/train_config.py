"""Settings of a training run: a dataclass that flags and YAML files fill."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import typing
from dataclasses import dataclass

import yaml

from medusa_core import yaml_once

KIND_SETTINGS = (
    "feature_weight",
    "balance_weight",
    "z_weight",
)  # that enter the loss of some kinds of heads only


class TrainError(RuntimeError):
    """Training that cannot start, continue or go on."""


def option(default, text: str):
    """Return a dataclass field with the help of its flag."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Training:
    """What every training has: what decides the weights, and where they go; paths are relative to the repository."""

    model: str = option("embedded", 'base model: "embedded" or a model folder')
    data: str = option("artifacts/data/distilled.parquet", "token set, its path from the repository")
    out: str = option("artifacts/runs/heads/medusa1", "folder of the trained heads, from the repository")
    run: str = option(
        "artifacts/runs/train/medusa1", "folder of checkpoints and history.json, from the repository"
    )
    kind: str = option("medusa", "kind of heads")
    num_heads: int = option(4, "heads: how many tokens ahead are guessed")
    num_layers: int = option(1, "residual blocks of a head")
    output: str = option("draft", 'LM head: "own", the base\'s "shared" one, or its frequent rows, "draft"')
    state_size: int = option(0, "state of recurrent heads, a multiple of 16; 0 = half the base's hidden size")
    draft_vocab_size: int = option(8192, 'tokens that heads can guess, with output "draft"')
    max_positions: int = option(0, "train on the first answers, up to this many tokens; 0 = all")
    epochs: float = option(1.0, "passes over the training positions")
    batch_positions: int = option(512, "positions of one update")
    micro_batches: int = option(1, "parts an update is computed in, to save memory")
    block: int = option(16, "successive positions that are drawn together")
    learning_rate: float = option(1e-3, "highest learning rate")
    warmup_steps: int = option(40, "updates over which the learning rate rises")
    final_ratio: float = option(0.0, "last learning rate / highest")
    weight_decay: float = option(0.0, "decoupled weight decay")
    clip: float = option(1.0, "highest norm of an update's gradient")
    decay: float = option(0.8, "head k = 1, 2, ... weighs decay^k in the loss")
    teacher_weight: float = option(0.0, "share of the cross-entropy to the base's own distribution, 0 to 1")
    feature_weight: float = option(0.0, "recurrent heads: weight of what outputs miss of the base's states")
    experts: int = option(4, "heads of kind moe: experts of a head")
    active_experts: int = option(1, "heads of kind moe: experts that a position uses")
    balance_weight: float = option(0.0, "heads of kind moe: weight of the balance loss (Switch: 0.01)")
    z_weight: float = option(0.0, "heads of kind moe: weight of the router's z loss (ST-MoE: 0.001)")
    eval_every: int = option(200, "updates between evaluations on held-out tokens")
    eval_positions: int = option(8192, "held-out positions of an evaluation")
    log_every: int = option(10, "updates that one entry of the history averages")
    checkpoint_every: int = option(200, "updates between checkpoints")
    seed: int = option(0, "seed of the order of the data")

    def __post_init__(self):
        every = ("eval_every", "log_every", "checkpoint_every")
        parts = ("batch_positions", "micro_batches", "block")
        sizes = ("num_heads", "num_layers", "experts", "active_experts", "eval_positions", *every, *parts)
        for name in ("epochs", "learning_rate", "clip", "decay", *sizes):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainError(f"{name} is {getattr(self, name)}, expected a number above 0")
        rest = ("state_size", "warmup_steps", "max_positions", "weight_decay", "final_ratio", "seed")
        for name in (*rest, *KIND_SETTINGS):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.output == "draft" and self.draft_vocab_size < 1:
            raise TrainError(f"draft_vocab_size is {self.draft_vocab_size}, expected 1 or more")
        for name in ("out", "run"):
            if not getattr(self, name).strip():
                raise TrainError(f"{name} is empty, expected a folder")
        if self.batch_positions % (self.micro_batches * self.block):
            raise TrainError(
                f"batch_positions {self.batch_positions} is not a multiple of "
                f"micro_batches {self.micro_batches} x block {self.block}"
            )
        if not 0 <= self.teacher_weight <= 1:
            raise TrainError(f"teacher_weight is {self.teacher_weight}, expected 0 to 1")

    @classmethod
    def from_yaml(cls, path) -> Training:
        """Read `key: value` lines; an unknown key or a value of another type is an error that names it."""
        try:
            raw = yaml_once.read(path) or {}
        except yaml_once.RepeatedKeyError as error:
            raise TrainError(str(error)) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TrainError(f"{path}: cannot be read: {error}") from None
        if not isinstance(raw, dict):
            raise TrainError(f"{path}: expected `key: value` lines, found {type(raw).__name__}")
        known = typing.get_type_hints(cls)
        for key, value in raw.items():
            if key not in known:
                raise TrainError(f"{path}: unknown key {key!r}; expected some of {', '.join(known)}")
            wanted = (int, float) if known[key] is float else known[key]
            if not isinstance(value, wanted) or (isinstance(value, bool) and known[key] is not bool):
                hint = (
                    "; YAML reads 1e-3 as text: write 1.0e-3"
                    if re.fullmatch(r"[+-]?\d+e.*", str(value), re.I)
                    else ""
                )
                raise TrainError(f"{path}: {key} is {value!r}, expected {known[key].__name__}{hint}")
        return cls(**raw)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add one flag a field, such as --learning-rate or --no-distill.

        Only those given appear in the parsed arguments.
        """
        types = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            text = f"{field.metadata['help']} (default: {field.default})"
            flag = f"--{field.name.replace('_', '-')}"
            kind = types[field.name]
            how = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
            parser.add_argument(flag, default=argparse.SUPPRESS, help=text, **how)


@dataclass(frozen=True)
class TrainConfig(Training):
    """Settings of heads trained alone, on hidden states that are kept on disk."""

    hidden_dtype: str = option("float16", "storage of the hidden states: float16 or bfloat16")
