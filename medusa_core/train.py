"""Training of draft heads on a frozen base's hidden states: one loop for all kinds, which bring their loss.

Every batch is a function of the seed and the step alone, and nothing else is random: these two numbers are
the random state and data position of a checkpoint, and a resumed run computes the bits of an unbroken one.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medusa_core import checkpoint, files, heads, hidden, runtime
from medusa_core.config import RECURRENT_KINDS, HeadsConfig
from medusa_core.data import TokenSet, read_tokens
from medusa_core.hidden import Batch, HiddenStates
from medusa_core.losses import head_weights, learned_counts
from medusa_core.train_config import KIND_SETTINGS, TrainConfig, TrainError

runtime.start()
import jittor as jt

from medusa_core.optim import AdamW, global_norm, learning_rate


def train(config: TrainConfig, base, data: TokenSet, resume: bool = False) -> dict:
    """Train heads for `base` on the "train" split of `data`, save them to config.out and return the history.

    The base's hidden states are computed first, or read if they were before. `resume` continues from the last
    checkpoint in config.run if there is one. Raises TrainError, HeadsError or HiddenError.
    """
    for name in KIND_SETTINGS:
        if getattr(config, name) and name not in heads.kind(config.kind).LOSS_SETTINGS:
            raise TrainError(f"{name} must be 0: the loss of heads of kind {config.kind!r} has no such term")
    draft = config.output == "draft"
    shape = HeadsConfig(
        hidden_size=base.config.hidden_size,
        vocab_size=base.config.vocab_size,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        kind=config.kind,
        output=config.output,
        draft_vocab_size=config.draft_vocab_size if draft else None,
        base_model=config.model,
        state_size=_state_size(config, base.config.hidden_size),
    )
    if draft and config.draft_vocab_size > base.config.vocab_size:
        raise TrainError(
            f"draft_vocab_size {config.draft_vocab_size} exceeds the {base.config.vocab_size} tokens"
        )
    chosen = _first_answers(data.select("train"), config.max_positions)
    ends = base.config.eos_token_ids
    draft_ids = hidden.most_frequent(chosen, config.draft_vocab_size, ends) if draft else None
    model = heads.create(shape, base, draft_ids)
    seen = hidden.compute(base, chosen, config.hidden_dtype)
    unseen = hidden.compute(base, data.select("held-out"), config.hidden_dtype)
    history = fit(model, seen, unseen, config, resume)
    header = {"config": dataclasses.asdict(config), "held_out": history["held_out"][-1]}
    heads.save(runtime.ROOT / config.out, model, header)
    for path in checkpoints(runtime.ROOT / config.run):
        path.unlink()
    return history


def fit(model, seen: HiddenStates, unseen: HiddenStates, config: TrainConfig, resume: bool = False) -> dict:
    """Train `model` in place on `seen`, evaluate on `unseen`; returns the history (config.run/history.json).

    model: a jt.Module with `config.num_heads`, `loss(batch, counts, decay, teacher_weight) -> HeadLoss` and
    `targets(batch) -> (K, N)`; its `LOSS_SETTINGS` name the fields of config that `loss` takes, too. Raises
    TrainError when a loss is no number, naming step and head.
    """
    folder = runtime.ROOT / config.run
    blocks, per_step = len(seen.tokens) // config.block, config.batch_positions // config.block
    if not blocks:
        raise TrainError(f"{len(seen.tokens)} training positions are less than a block of {config.block}")
    total = max(1, int(config.epochs * blocks) // per_step)
    optimizer = AdamW(dict(model.state_dict()), weight_decay=config.weight_decay)
    state = {"step": 0, "recent": [], "history": {"steps": total, "train": [], "held_out": []}}
    if found := checkpoints(folder):
        if not resume:
            raise TrainError(f"{folder} holds checkpoints: resume that run, delete them or name another run")
        state = _restore(found[-1], model, optimizer, config, seen.key)
    history, recent = state["history"], state["recent"]
    began = time.perf_counter() - (history["train"][-1]["seconds"] if history["train"] else 0.0)
    if not history["held_out"]:
        history["held_out"].append({"step": 0, **evaluate(model, unseen, config)})
    start = state["step"]
    with tqdm(total=total, initial=start, desc=f"train {config.kind}", unit="step", mininterval=1) as bar:
        for step in range(start, total):
            batches = _micro_batches(seen, block_numbers(config.seed, step, per_step, blocks), config)
            lr = learning_rate(step, total, config.learning_rate, config.warmup_steps, config.final_ratio)
            recent.append(_update(model, optimizer, batches, lr, config, step + 1))
            done, last = step + 1, step + 1 == total
            if done % config.log_every == 0 or last:
                entry = {"step": done, "lr": lr, **_averages(recent, config.decay)}
                history["train"].append({**entry, "seconds": time.perf_counter() - began})
                bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
                recent = []
            if done % config.eval_every == 0 or last:
                history["held_out"].append({"step": done, **evaluate(model, unseen, config)})
            if done % config.checkpoint_every == 0 and not last:
                state = {"step": done, "recent": recent, "history": history}
                _save(folder, state, model, optimizer, config, seen.key)
            bar.update()
    history["config"] = dataclasses.asdict(config)
    files.write_json(folder / "history.json", history)
    return history


def evaluate(model, states: HiddenStates, config: TrainConfig) -> dict:
    """Return each head's loss, top-1, top-5 and the accuracy of its ranks (K, 10) on evenly spread positions.

    The loss is the cross-entropy to the tokens that came, whatever was trained on; accuracies count targets
    outside the draft vocabulary as misses.
    """
    blocks = len(states.tokens) // config.block
    if not blocks:
        raise TrainError(f"{len(states.tokens)} held-out positions are less than a block of {config.block}")
    wanted = min(blocks, -(-config.eval_positions // config.block))
    chosen = np.linspace(0, blocks - 1, wanted).astype(int)
    size = config.batch_positions // config.micro_batches
    sums = []
    with jt.no_grad():
        for first in range(0, len(chosen), size // config.block):
            numbers = chosen[first : first + size // config.block]
            batch = states.batch(numbers, config.block, model.config.num_heads, size)
            sums.append(model.loss(batch, None, config.decay, 0.0).sums())
    _check_finite(sums, "evaluation")
    return _averages(sums, config.decay, ranks=True)


def block_numbers(seed: int, step: int, per_step: int, blocks: int) -> np.ndarray:
    """Return the (per_step,) blocks of update `step`: epochs are different shuffles, one after another."""
    place = np.arange(step * per_step, (step + 1) * per_step)
    return np.array([_shuffle(seed, int(p // blocks), blocks)[p % blocks] for p in place])


@functools.lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, blocks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(blocks)


def _micro_batches(states: HiddenStates, numbers: np.ndarray, config: TrainConfig) -> list[Batch]:
    size = config.batch_positions // config.micro_batches
    parts = np.split(numbers, config.micro_batches)
    return [states.batch(part, config.block, config.num_heads, size) for part in parts]


def _update(model, optimizer: AdamW, batches: list[Batch], lr: float, config: TrainConfig, step: int) -> dict:
    """One update; returns its `HeadLoss.sums` added up, and the norm of the gradient before clipping."""
    # Means are over the whole update, so that it does not depend on how it is split.
    counts = sum(learned_counts(model.targets(batch)) for batch in batches)
    parameters = optimizer.parameters
    settings = {name: getattr(config, name) for name in model.LOSS_SETTINGS}
    gradients, sums = {}, []
    for batch in batches:
        result = model.loss(batch, counts, config.decay, config.teacher_weight, **settings)
        for name, gradient in zip(parameters, jt.grad(result.loss, list(parameters.values()), False)):
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        jt.sync([*gradients.values(), result.rows, result.rank])
        sums.append(result.sums())
    _check_finite(sums, f"step {step}")
    norm = global_norm(gradients)
    if not np.isfinite(norm):
        raise TrainError(f"step {step}: the gradient's norm is {norm} while every loss is finite; {_ADVICE}")
    optimizer.step(gradients, lr, min(1.0, config.clip / (norm + 1e-6)))
    return {**_added(sums), "grad_norm": norm}


_ADVICE = "lower the learning rate or lengthen the warm-up; the last checkpoint is from before this step"


def _check_finite(sums: list[dict], where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(_added(sums)["loss"]))
    if len(bad):
        raise TrainError(f"{where}: the loss of head {bad[0] + 1} is not finite; {_ADVICE}")


def _added(sums: list[dict]) -> dict:
    return {name: np.sum([s[name] for s in sums], axis=0).tolist() for name in sums[0]}


def _averages(sums: list[dict], decay: float, ranks: bool = False) -> dict:
    """Turn sums over batches into the entries of the history."""
    total = {name: np.array(value) for name, value in _added(sums).items()}
    head_loss = total["loss"] / np.maximum(total["learned"], 1)
    accuracy = total["hits"] / np.maximum(total["targets"], 1)[:, None]
    entry = {
        "loss": float(head_weights(len(head_loss), decay) @ head_loss),
        "head_loss": head_loss.tolist(),
        "top1": accuracy[:, 0].tolist(),
        "top5": accuracy[:, :5].sum(axis=1).tolist(),
    }
    if "grad_norm" in total:
        entry["grad_norm"] = float(total["grad_norm"]) / len(sums)
    return {**entry, "accuracy": accuracy.tolist()} if ranks else entry


def checkpoints(folder) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(Path(folder).glob("checkpoint-*.safetensors"))


def _save(folder: Path, state: dict, model, optimizer: AdamW, config: TrainConfig, key: str) -> None:
    """Write a checkpoint; it and the one before it are kept."""
    tensors = {f"p/{name}": value.numpy() for name, value in model.state_dict().items()}
    header = {**state, "config": dataclasses.asdict(config), "data": key, "updates": optimizer.updates}
    path = folder / f"checkpoint-{state['step']:08d}.safetensors"
    checkpoint.save(path, {**tensors, **optimizer.tensors()}, header)
    for old in checkpoints(folder)[:-2]:
        old.unlink()


# Settings that may change between a checkpoint and its continuation: the weights do not depend on them.
_FREE = ("out", "run", "eval_every", "eval_positions", "log_every", "checkpoint_every")


def _restore(path: Path, model, optimizer: AdamW, config: TrainConfig, key: str) -> dict:
    """Load a checkpoint into model and optimiser and return its state."""
    tensors, header = checkpoint.load(path)
    # A setting that a checkpoint does not name came after it, and had its default.
    old, new = {**dataclasses.asdict(TrainConfig()), **header["config"]}, dataclasses.asdict(config)
    names = [name for name in new if name not in _FREE and old[name] != new[name]]
    changed = [f"{name} was {old[name]!r}, is {new[name]!r}" for name in names]
    if header["data"] != key:
        changed.append("the base model or the token set changed")
    if changed:
        raise TrainError(f"{path} is of another run ({'; '.join(changed)}): delete it or name another run")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected = {f"{kind}/{name}": shape for kind in "pmv" for name, shape in shapes.items()}
    checkpoint.require(tensors, expected, str(path))
    model.load_tensors({name: tensors[f"p/{name}"] for name in shapes})
    optimizer.load_tensors(tensors, header["updates"])
    return {name: header[name] for name in ("step", "recent", "history")}


def _state_size(config: TrainConfig, hidden_size: int) -> int | None:
    if config.state_size or config.kind not in RECURRENT_KINDS:
        return config.state_size or None
    return -(-hidden_size // 32) * 16


def _first_answers(tokens: TokenSet, positions: int) -> TokenSet:
    if not positions:
        return tokens
    rows = 1 + int(np.searchsorted(np.cumsum([len(answer) for answer in tokens.answer_ids]), positions))
    return dataclasses.replace(
        tokens,
        prompt_ids=tokens.prompt_ids[:rows],
        answer_ids=tokens.answer_ids[:rows],
        sample=tokens.sample[:rows],
        split=tokens.split[:rows],
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m medusa_core.train --params FILE.yaml --learning-rate 2e-3 --resume`."""
    parser = argparse.ArgumentParser(prog="python -m medusa_core.train", description="Train draft heads.")
    parser.add_argument(
        "--params", metavar="FILE.yaml", help="settings, a `name: value` a line; flags override"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the run")
    TrainConfig.add_flags(parser)
    given = vars(parser.parse_args(arguments))
    params, resume = given.pop("params"), given.pop("resume")
    try:
        config = TrainConfig.from_yaml(params) if params else TrainConfig()
        config = dataclasses.replace(config, **given)
        data = read_tokens(runtime.ROOT / config.data)
        from medusa_core import llama  # its kernels are not needed to be told about a wrong setting

        history = train(config, llama.load(config.model), data, resume)
    except KeyboardInterrupt:
        print(f"stopped; continue with --resume from the last checkpoint in {config.run}", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    final = history["held_out"][-1]
    print(f"held-out tokens after {history['steps']} updates; heads in {config.out}")
    for k, (loss, top1, top5) in enumerate(zip(final["head_loss"], final["top1"], final["top5"]), 1):
        print(f"  head {k}: loss {loss:.3f}, top-1 {top1:.1%}, top-5 {top5:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
