"""What every training shares: the loop, one update, checkpoints that continue to the same bits (on CPUs).

Every batch is a function of the seed and the step alone, and nothing else is random: these two numbers are
the random state and data position of a checkpoint, and a resumed run computes the bits of an unbroken one.

Several processes (ranks.py) share the positions of every update and add up their gradients, so that all make the
same update; the first one writes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from medusa_core import checkpoint, files, heads, ranks, runtime
from medusa_core.losses import head_weights, learned_counts
from medusa_core.train_config import TrainError, Training

runtime.start()
import jittor as jt

from medusa_core.optim import AdamW, global_norm, learning_rate

ADVICE = "lower the learning rate or lengthen the warm-up; the last checkpoint is from before this step"
HISTORY = "history.json"
# Settings that may change between a checkpoint and its continuation: the weights do not depend on them.
FREE = ("out", "run", "eval_every", "eval_positions", "log_every", "checkpoint_every")


@dataclass(frozen=True)
class Task:
    """What is trained, and what the loop does with it; `key` is the digest of base and data."""

    model: object  # with `state_dict` and `load_tensors`
    optimizer: AdamW
    total: int  # updates
    key: str
    update: Callable[[int, float], dict]  # of step and learning rate; returns sums
    averages: Callable[[list[dict]], dict]  # of several updates' sums; returns an entry of the history
    evaluate: Callable[[], dict]  # on held-out tokens; returns an entry of the history


def loop(task: Task, config: Training, resume: bool) -> dict:
    """Make a task's updates and return the history, which is also in config.run/history.json.

    `resume` continues from the last checkpoint in config.run if there is one. Raises TrainError when the run
    holds checkpoints that are not resumed, or those of other settings.
    """
    folder, total = runtime.ROOT / config.run, task.total
    state = ranks.broadcast(_begin(folder, task, config, resume) if ranks.first() else None)
    _align(task)
    history, recent = state["history"], state["recent"]
    began = time.perf_counter() - (history["train"][-1]["seconds"] if history["train"] else 0.0)
    if not history["held_out"]:
        history["held_out"].append({"step": 0, **task.evaluate()})
    start = state["step"]
    bar = tqdm(
        total=total, initial=start, desc=f"train {config.kind}", unit="step", mininterval=1, **ranks.quiet()
    )
    with bar:
        for step in range(start, total):
            lr = learning_rate(step, total, config.learning_rate, config.warmup_steps, config.final_ratio)
            recent.append(task.update(step, lr))
            done, last = step + 1, step + 1 == total
            if done % config.log_every == 0 or last:
                entry = {"step": done, "lr": lr, **task.averages(recent)}
                history["train"].append({**entry, "seconds": time.perf_counter() - began})
                shown = {name: f"{entry[name]:.3f}" for name in ("loss", "kl") if name in entry}
                bar.set_postfix(shown, refresh=False)
                recent = []
            if done % config.eval_every == 0 or last:
                history["held_out"].append({"step": done, **task.evaluate()})
            if done % config.checkpoint_every == 0 and not last:
                if ranks.first():
                    _save(folder, {"step": done, "recent": recent, "history": history}, task, config)
                _align(task)
            bar.update()
    history |= {"config": dataclasses.asdict(config), "data": task.key}
    if ranks.first():
        files.write_json(folder / HISTORY, history)
    return history


def finished(config: Training, key: str, weights: Path) -> dict | None:
    """Return the history of a run that has ended, None where there is none of these settings and this data.

    weights: the file of its heads, which must still be those of this run.
    """
    return ranks.broadcast(_finished(config, key, weights) if ranks.first() else None)


def _finished(config: Training, key: str, weights: Path) -> dict | None:
    path = runtime.ROOT / config.run / HISTORY
    if not (path.is_file() and weights.is_file() and weights.with_name(heads.CONFIG_FILE).is_file()):
        return None
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainError(f"{path}: not JSON ({error}); delete it to train again") from None
    _, header = checkpoint.load(weights)
    same = history.get("config") == header.get("config") == dataclasses.asdict(config)
    # Other data in the header: the run died after its history and before its weights.
    if not (same and history.get("data") == header.get("data") == key):
        return None
    remove_checkpoints(config)
    return history


def block_numbers(seed: int, step: int, per_step: int, blocks: int) -> np.ndarray:
    """Return the (per_step,) blocks of update `step`: epochs are different shuffles, one after another."""
    place = np.arange(step * per_step, (step + 1) * per_step)
    return np.array([_shuffle(seed, int(p // blocks), blocks)[p % blocks] for p in place])


@functools.lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, blocks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(blocks)


# ---------------------------------------------------------------- an update


def parts(config: Training) -> int:
    """Return in how many parts all ranks together compute an update; raises TrainError where that does not go."""
    count = config.micro_batches * ranks.size()
    if config.batch_positions % (count * config.block):
        raise TrainError(
            f"batch_positions {config.batch_positions} is not a multiple of {ranks.size()} processes "
            f"x micro_batches {config.micro_batches} x block {config.block}"
        )
    return count


def update(model, optimizer: AdamW, batches: list, lr: float, config: Training, step: int, before=()) -> dict:
    """One update; returns its `HeadLoss.sums` added up, and the norm of the gradient before clipping.

    batches: those of this rank. before: names of the losses that come before the heads'.
    """
    # Means are over the whole update, so that it does not depend on how it is split.
    counts = sum(ranks.everyones(sum(learned_counts(model.targets(batch)) for batch in batches)))
    parameters = optimizer.parameters
    settings = {name: getattr(config, name) for name in model.LOSS_SETTINGS}
    gradients, sums = {}, []
    for batch in batches:
        result = model.loss(batch, counts, config.decay, config.teacher_weight, **settings)
        for name, gradient in zip(parameters, jt.grad(result.loss, list(parameters.values()), False)):
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        jt.sync([*gradients.values(), result.rows, result.rank])
        sums.append(result.sums())
    sums, gradients = ranks.merge(sums), ranks.summed(gradients)
    check_finite(sums, f"step {step}", before)
    norm = global_norm(gradients)
    if not np.isfinite(norm):
        raise TrainError(f"step {step}: the gradient's norm is {norm} while every loss is finite; {ADVICE}")
    optimizer.step(gradients, lr, min(1.0, config.clip / (norm + 1e-6)))
    return {**added(sums), "grad_norm": norm}


def check_finite(sums: list[dict], where: str, before=()) -> None:
    """Raise TrainError naming the first loss that is no number; `before` as in `update`."""
    bad = np.flatnonzero(~np.isfinite(added(sums)["loss"]))
    if len(bad):
        first = int(bad[0])
        name = before[first] if first < len(before) else f"the loss of head {first - len(before) + 1}"
        raise TrainError(f"{where}: {name} is not finite; {ADVICE}")


def added(sums: list[dict]) -> dict:
    """Add up sums of the same names, as JSON values."""
    return {name: np.sum([s[name] for s in sums], axis=0).tolist() for name in sums[0]}


def averages(sums: list[dict], decay: float, ranks: bool = False) -> dict:
    """Turn sums over batches into the heads' part of an entry of the history."""
    total = {name: np.array(value) for name, value in added(sums).items()}
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


# ---------------------------------------------------------------- checkpoints


def checkpoints(folder) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(Path(folder).glob("checkpoint-*.safetensors"))


def remove_checkpoints(config: Training) -> None:
    """Delete the checkpoints of a run that is finished."""
    for path in checkpoints(runtime.ROOT / config.run):
        path.unlink()


def _begin(folder: Path, task: Task, config: Training, resume: bool) -> dict:
    """Return the state to go on from, its weights loaded: that of the last checkpoint, or of step 0."""
    found = checkpoints(folder)
    if not found:
        return {"step": 0, "recent": [], "history": {"steps": task.total, "train": [], "held_out": []}}
    if not resume:
        raise TrainError(f"{folder} holds checkpoints: resume that run, delete them or name another run")
    return _restore(found[-1], task, config)


def _align(task: Task) -> None:
    """Give all ranks the first one's weights and moments: at the start, and where a resumed run would start.

    Equal processors compute equal bits; others would drift apart.
    """
    if ranks.size() > 1:
        tensors, updates = ranks.broadcast((_tensors(task), task.optimizer.updates))
        _load(task, tensors, updates)


def _tensors(task: Task) -> dict[str, np.ndarray]:
    parameters = {f"p/{name}": value.numpy() for name, value in task.model.state_dict().items()}
    return {**parameters, **task.optimizer.tensors()}


def _load(task: Task, tensors: dict[str, np.ndarray], updates: int) -> None:
    task.model.load_tensors({name: tensors[f"p/{name}"] for name in task.model.state_dict()})
    task.optimizer.load_tensors(tensors, updates)


def _save(folder: Path, state: dict, task: Task, config: Training) -> None:
    """Write a checkpoint; it and the one before it are kept."""
    settings = {"config": dataclasses.asdict(config), "data": task.key, "updates": task.optimizer.updates}
    path = folder / f"checkpoint-{state['step']:08d}.safetensors"
    checkpoint.save(path, _tensors(task), {**state, **settings})
    for old in checkpoints(folder)[:-2]:
        old.unlink()


def _restore(path: Path, task: Task, config: Training) -> dict:
    """Load a checkpoint into model and optimiser and return its state."""
    tensors, header = checkpoint.load(path)
    # A setting that a checkpoint does not name came after it, and had its default.
    old, new = {**dataclasses.asdict(type(config)()), **header["config"]}, dataclasses.asdict(config)
    names = [name for name in new if name not in FREE and old[name] != new[name]]
    changed = [f"{name} was {old[name]!r}, is {new[name]!r}" for name in names]
    if header["data"] != task.key:
        changed.append("the base model or the token set changed")
    if changed:
        raise TrainError(f"{path} is of another run ({'; '.join(changed)}): delete it or name another run")
    shapes = {name: tuple(value.shape) for name, value in task.model.state_dict().items()}
    expected = {f"{kind}/{name}": shape for kind in "pmv" for name, shape in shapes.items()}
    checkpoint.require(checkpoint.shapes_of(tensors), expected, str(path))
    _load(task, tensors, header["updates"])
    return {name: header[name] for name in ("step", "recent", "history")}
