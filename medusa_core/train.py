"""Training of draft heads on a frozen base's hidden states: all kinds alike, which bring their loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from medusa_core import heads, hidden, ranks, runtime
from medusa_core.config import RECURRENT_KINDS, HeadsConfig
from medusa_core.hidden import Batch, HiddenStates
from medusa_core.losses import NO_TARGET, HeadLoss
from medusa_core.token_set import TokenSet
from medusa_core.train_command import command
from medusa_core.train_config import KIND_SETTINGS, TrainConfig, TrainError, Training
from medusa_core.train_loop import (
    Task,
    averages,
    block_numbers,
    check_finite,
    finished,
    loop,
    parts,
    remove_checkpoints,
    update,
)

runtime.start()
import jittor as jt

from medusa_core.optim import AdamW


def train(config: TrainConfig, base, data: TokenSet, resume: bool = False) -> dict:
    """Train heads for `base` on the "train" split of `data`, save them to config.out and return the history.

    The base's hidden states are computed first, or read if they were before. `resume` continues from the last
    checkpoint in config.run if there is one, and reads a finished run of the same settings and data instead of
    repeating it. Raises TrainError, HeadsError or HiddenError.
    """
    chosen = first_answers(data.select("train"), config.max_positions)
    weights = runtime.ROOT / config.out / heads.WEIGHTS_FILE
    key = hidden.digest(base, chosen, config.hidden_dtype)
    if resume and (history := finished(config, key, weights)):
        return history
    model = untrained(config, base, chosen)
    seen = hidden.compute(base, chosen, config.hidden_dtype)
    unseen = hidden.compute(base, data.select("held-out"), config.hidden_dtype)
    history = fit(model, seen, unseen, config, resume)
    header = {
        "config": dataclasses.asdict(config),
        "data": history["data"],
        "held_out": history["held_out"][-1],
    }
    if ranks.first():
        heads.save(runtime.ROOT / config.out, model, header)
        heads.forget(runtime.ROOT / config.out)
        remove_checkpoints(config)
    ranks.barrier()
    return history


def untrained(config: Training, base, chosen: TokenSet):
    """Return the heads that the settings describe, before any training on `chosen`."""
    check_kind(config)
    draft = config.output == "draft"
    if draft and config.draft_vocab_size > base.config.vocab_size:
        raise TrainError(
            f"draft_vocab_size {config.draft_vocab_size} exceeds the {base.config.vocab_size} tokens"
        )
    ends = base.config.eos_token_ids
    draft_ids = hidden.most_frequent(chosen, config.draft_vocab_size, ends) if draft else None
    return heads.create(shape(config, base), base, draft_ids)


def shape(config: Training, base) -> HeadsConfig:
    """Return the shape of heads for `base` that the settings describe."""
    return HeadsConfig(
        hidden_size=base.config.hidden_size,
        vocab_size=base.config.vocab_size,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        kind=config.kind,
        output=config.output,
        draft_vocab_size=config.draft_vocab_size if config.output == "draft" else None,
        base_model=config.model,
        state_size=_state_size(config, base.config.hidden_size),
        experts=config.experts if config.kind == "moe" else None,
        active_experts=config.active_experts if config.kind == "moe" else None,
    )


def like(config: HeadsConfig) -> dict:
    """The settings that describe heads of this shape: the other direction of `shape`."""
    names = ("kind", "num_heads", "num_layers", "output", "draft_vocab_size", "state_size")
    sizes = {name: getattr(config, name) for name in (*names, "experts", "active_experts")}
    return {name: size for name, size in sizes.items() if size is not None}


def check_kind(config: Training) -> None:
    """Raise TrainError naming a setting that the loss of this kind of heads has no use for."""
    for name in KIND_SETTINGS:
        if getattr(config, name) and name not in heads.kind(config.kind).LOSS_SETTINGS:
            raise TrainError(f"{name} must be 0: the loss of heads of kind {config.kind!r} has no such term")


def fit(model, seen: HiddenStates, unseen: HiddenStates, config: TrainConfig, resume: bool = False) -> dict:
    """Train `model` in place on `seen`, evaluate on `unseen`; returns the history (config.run/history.json).

    model: a jt.Module with `config.num_heads`, `loss(batch, counts, decay, teacher_weight) -> HeadLoss` and
    `targets(batch) -> (K, N)`; its `LOSS_SETTINGS` name the fields of config that `loss` takes, too. Raises
    TrainError when a loss is no number, naming step and head.
    """
    blocks, per_step = len(seen.tokens) // config.block, config.batch_positions // config.block
    if not blocks:
        raise TrainError(f"{len(seen.tokens)} training positions are less than a block of {config.block}")
    optimizer = AdamW(dict(model.state_dict()), weight_decay=config.weight_decay)

    def one(step: int, lr: float) -> dict:
        batches = _micro_batches(seen, block_numbers(config.seed, step, per_step, blocks), config)
        return update(model, optimizer, batches, lr, config, step + 1)

    task = Task(
        model,
        optimizer,
        total=max(1, int(config.epochs * blocks) // per_step),
        key=seen.key,
        update=one,
        averages=lambda sums: averages(sums, config.decay),
        evaluate=lambda: evaluate(model, unseen, config),
    )
    return loop(task, config, resume)


def evaluate(model, states: HiddenStates, config: TrainConfig) -> dict:
    """Return each head's loss, top-1, top-5 and the accuracy of its ranks (K, 10) on evenly spread positions.

    The loss is the cross-entropy to the tokens that came, whatever was trained on; accuracies count targets
    outside the draft vocabulary as misses.
    """
    sums = ranks.merge([result.sums() for result in _losses(model, states, config)])
    check_finite(sums, "evaluation")
    return averages(sums, config.decay, ranks=True)


def target_ranks(model, states: HiddenStates, config: TrainConfig) -> np.ndarray:
    """Return the rank (N, K) of the base's token in each head's list, on as many positions as `evaluate` takes.

    The size of the heads' vocabulary stands for a token that is not in it, or that the text ended before.
    """
    found = []
    for result in _losses(model, states, config):
        rows = result.targets[0] != NO_TARGET  # padding of the last batch, and the last token of a text
        found.append(result.rank.numpy()[:, rows].T)
    return np.concatenate(ranks.merge(found))


def _losses(model, states: HiddenStates, config: TrainConfig) -> Iterator[HeadLoss]:
    """The loss of evenly spread blocks, batch by batch; this rank's share of the batches."""
    blocks = len(states.tokens) // config.block
    if not blocks:
        raise TrainError(f"{len(states.tokens)} held-out positions are less than a block of {config.block}")
    wanted = min(blocks, -(-config.eval_positions // config.block))
    chosen = np.linspace(0, blocks - 1, wanted).astype(int)
    size = config.batch_positions // config.micro_batches
    with jt.no_grad():
        for first in ranks.share(range(0, len(chosen), size // config.block)):
            numbers = chosen[first : first + size // config.block]
            batch = states.batch(numbers, config.block, model.config.num_heads, size)
            yield model.loss(batch, None, config.decay, 0.0)


def _micro_batches(states: HiddenStates, numbers: np.ndarray, config: TrainConfig) -> list[Batch]:
    count = parts(config)
    own, size = ranks.share(np.split(numbers, count)), config.batch_positions // count
    return [states.batch(part, config.block, config.num_heads, size) for part in own]


def _state_size(config: Training, hidden_size: int) -> int | None:
    if config.state_size or config.kind not in RECURRENT_KINDS:
        return config.state_size or None
    return -(-hidden_size // 32) * 16


def first_answers(tokens: TokenSet, positions: int) -> TokenSet:
    """Return the first rows that hold `positions` answer tokens; 0 means all."""
    if not positions:
        return tokens
    rows = 1 + int(np.searchsorted(np.cumsum([len(answer) for answer in tokens.answer_ids]), positions))
    return tokens.rows(np.arange(min(rows, len(tokens))))


def print_heads(history: dict, config: Training) -> None:
    """Say what the heads learned, for people at a terminal."""
    final = history["held_out"][-1]
    print(f"held-out tokens after {history['steps']} updates; heads in {config.out}")
    for k, (loss, top1, top5) in enumerate(zip(final["head_loss"], final["top1"], final["top5"]), 1):
        print(f"  head {k}: loss {loss:.3f}, top-1 {top1:.1%}, top-5 {top5:.1%}")


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m medusa_core.train --params FILE.yaml --learning-rate 2e-3 --resume`."""

    def run(config: TrainConfig, data: TokenSet, resume: bool) -> None:
        from medusa_core import llama  # its kernels are not needed to be told about a wrong setting

        print_heads(train(config, llama.load(config.model), data, resume), config)

    return command(TrainConfig, run, "train", "Train draft heads.", arguments)


if __name__ == "__main__":
    ranks.run(main)
