"""Joint training of a base model and its heads (Medusa-2): adapters on the base, one loss for both.

    L = L_LM + lambda_0 s(step) sum_k decay^k CE_k

L_LM keeps the base what it was: KL(base || adapted base), the base being its own teacher with the adapters
switched off, or the cross-entropy to the data. The loop, its checkpoints and what they promise are train_loop.py's.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from medusa_core import heads, hidden, lora, losses, ranks, runtime, train, train_command, train_loop, windows
from medusa_core.hidden import Batch
from medusa_core.lora import Adapters, LoraConfig
from medusa_core.losses import NO_TARGET, HeadLoss, learned_counts
from medusa_core.model_folder import sha256
from medusa_core.token_set import TokenSet
from medusa_core.train2_config import Train2Config, heads_scale
from medusa_core.train_config import TrainError
from medusa_core.windows import WindowBatch, Windows

runtime.start()
import jittor as jt

from medusa_core.optim import AdamW

LANGUAGE = ("the base's cross-entropy", "the base's divergence")  # rows of the joint loss before the heads'


class Joint:
    """A plain base, the adapters attached to it and its heads, as one model to train.

    Its loss has K + 2 rows: the adapted base's cross-entropy to the data, its divergence from the base, and
    the heads'. heads_scale is s(step), to be set before an update.
    """

    def __init__(self, base, adapters: Adapters, drafter, config: Train2Config):
        self.base, self.adapters, self.heads = base, adapters, drafter
        self.config = drafter.config
        self.LOSS_SETTINGS = drafter.LOSS_SETTINGS
        self.heads_weight, self.distill = config.heads_weight, config.distill
        self.heads_scale = 1.0

    def state_dict(self) -> dict:
        """Return all that is trained, by name."""
        own = {f"lora.{name}": p for name, p in self.adapters.state_dict().items()}
        return own | {f"heads.{name}": p for name, p in self.heads.state_dict().items()}

    def load_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Set every parameter from checked tensors."""
        for prefix, part in (("lora.", self.adapters), ("heads.", self.heads)):
            part.load_tensors({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})

    def targets(self, batch: WindowBatch) -> np.ndarray:
        """Return (K + 2, N) int32 what the rows of a training step's loss learn from."""
        divergence = batch.tokens[0] if self.distill else np.full_like(batch.tokens[0], NO_TARGET)
        return np.concatenate([[batch.tokens[0], divergence], self.heads.targets(batch)])

    def loss(self, batch: WindowBatch, counts, decay: float, teacher_weight: float, **settings) -> HeadLoss:
        """Loss of a batch of windows; counts (K + 2,) as in `medusa1_loss`, or None in an evaluation.

        An evaluation measures the divergence even where the base learns from the data.
        """
        states = self._states(batch)
        guesses = self.heads.loss(
            Batch(states, batch.tokens, states.detach(), batch.teacher_row),
            None if counts is None else counts[len(LANGUAGE) :],
            decay,
            teacher_weight,
            **settings,
        )
        entropy, divergence, rank = self._language(batch, states, counts is None or self.distill)
        targets = self.targets(batch)
        if divergence is None:
            divergence = jt.zeros_like(entropy)
        elif counts is None:
            targets[1] = batch.tokens[0]
        count = (learned_counts(targets) if counts is None else counts)[int(self.distill)]
        language = (divergence if self.distill else entropy).sum() / float(max(count, 1))
        return HeadLoss(
            loss=language + self.heads_weight * self.heads_scale * guesses.loss,
            rows=jt.concat([jt.stack([entropy, divergence]), guesses.rows]),
            rank=jt.concat([jt.stack([rank, rank]), guesses.rank]),
            targets=targets,
        )

    def _states(self, batch: WindowBatch):
        """The base's hidden states of all rows (N, d), with adapters unless they are switched off."""
        states = self.base(batch.ids, batch.positions, batch.mask)
        return states.reshape((-1, states.shape[-1]))

    def _language(self, batch: WindowBatch, states, teach: bool):
        """Cross-entropy to the data and divergence from the base of each row (N,), and the target's rank."""
        targets, row = batch.tokens[0], np.arange(batch.tokens.shape[1], dtype=np.int32)
        logits = self.base.logits(states)
        entropy, rank = losses.cross_entropy(logits, targets)
        if not teach:
            return entropy, None, rank
        with self.adapters.off(), jt.no_grad():
            own = self.base.logits(self._states(batch))
            teacher = losses.softmax(own)
            least, _ = losses.cross_entropy(own, targets, teacher, row, 1.0)
        crossed, _ = losses.cross_entropy(logits, targets, teacher, row, 1.0)
        return entropy, crossed - least, rank


def train_jointly(config: Train2Config, base, data: TokenSet, resume: bool = False) -> dict:
    """Train adapters of `base` and heads on the "train" split of `data`, save them to config.out, return the history.

    base: a plain one, `llama.load(model, "float32", "plain")`; it is left as it was. `resume` continues from the
    last checkpoint in config.run if there is one, and reads a finished run of the same settings, data and heads to go
    on from instead of repeating it. Raises TrainError, HeadsError, LoraError or DataError.
    """
    if not hasattr(base, "adapt"):
        raise TrainError('the CPU kernels cannot learn: load the base with backend "plain"')
    chosen = train.first_answers(data.select("train"), config.max_positions)
    key, out = _key(config, base, chosen), runtime.ROOT / config.out
    made = [out / name for name in (heads.WEIGHTS_FILE, heads.ADAPTERS_FILE)]
    if resume and all(histories := [train_loop.finished(config, key, path) for path in made]):
        return histories[0]
    drafter = (
        _stage_one(config, base) if config.recipe == "two-stage" else train.untrained(config, base, chosen)
    )
    shape = LoraConfig(config.rank, config.alpha, config.adapt_lm_head)
    adapters = Adapters(base.config, shape, config.seed)
    base.adapt(adapters)
    try:
        model = Joint(base, adapters, drafter, config)
        seen, unseen = (windows.cut(t, config.block) for t in (chosen, data.select("held-out")))
        history = fit(model, seen, unseen, config, key, resume)
    finally:
        base.adapt(None)
    header = {
        "config": dataclasses.asdict(config),
        "data": history["data"],
        "held_out": history["held_out"][-1],
    }
    if ranks.first():
        lora.save(out / heads.ADAPTERS_FILE, adapters, base.folder, header)
        heads.save(out, drafter, header)
        heads.forget(out, (heads.TREE_FILE, heads.PLAN_FILE))
        train_loop.remove_checkpoints(config)
    ranks.barrier()
    return history


def _key(config: Train2Config, base, chosen: TokenSet) -> str:
    """Digest of what the settings name and do not hold: the base, the answers, the heads to go on from."""
    start = ""
    if config.recipe == "two-stage":
        start = sha256(heads.resolve(config.heads) / heads.WEIGHTS_FILE)
    return hidden.digest(base, chosen, f"windows {start}")


def _stage_one(config: Train2Config, base):
    """The heads to go on from, which must be what the settings describe."""
    train.check_kind(config)
    drafter = heads.load(config.heads, base)
    described = train.shape(config, base).to_dict()
    for name, have in drafter.config.to_dict().items():
        if name != "base_model" and have != (want := described[name]):
            raise TrainError(f"heads {config.heads!r} have {name} {have!r}, the settings say {want!r}")
    return drafter


def fit(
    model: Joint, seen: Windows, unseen: Windows, config: Train2Config, key: str, resume: bool = False
) -> dict:
    """Train `model` in place on `seen`, evaluate on `unseen`; returns the history (config.run/history.json).

    key: digest of base and data, for checkpoints. Raises TrainError when a loss is no number, naming the step.
    """
    per_step, parts = config.batch_positions // config.block, train_loop.parts(config)
    total = max(1, int(config.epochs * len(seen)) // per_step)
    parameters = model.state_dict()
    rates = {name: config.heads_rate for name in parameters if name.startswith("heads.")}
    optimizer = AdamW(parameters, weight_decay=config.weight_decay, rates=rates)

    def update(step: int, lr: float) -> dict:
        model.heads_scale = heads_scale(config.recipe, step, total)
        numbers = train_loop.block_numbers(config.seed, step, per_step, len(seen))
        own = ranks.share(np.split(numbers, parts))
        batches = [_batch(model, seen, part, config, parts) for part in own]
        return train_loop.update(model, optimizer, batches, lr, config, step + 1, LANGUAGE)

    task = train_loop.Task(
        model,
        optimizer,
        total,
        key,
        update=update,
        averages=lambda sums: averages(sums, config.decay),
        evaluate=lambda: evaluate(model, unseen, config),
    )
    return train_loop.loop(task, config, resume)


def evaluate(model: Joint, laid: Windows, config: Train2Config) -> dict:
    """Return what `averages` does, with the accuracy of every rank (K, 10), on evenly spread windows."""
    wanted = min(len(laid), -(-config.eval_positions // config.block))
    chosen = np.linspace(0, len(laid) - 1, wanted).astype(int)
    size = config.batch_positions // config.micro_batches // config.block
    sums = []
    with jt.no_grad():
        for first in ranks.share(range(0, wanted, size)):
            batch = _batch(model, laid, chosen[first : first + size], config, config.micro_batches)
            sums.append(model.loss(batch, None, config.decay, 0.0).sums())
    sums = ranks.merge(sums)
    train_loop.check_finite(sums, "evaluation", LANGUAGE)
    return averages(sums, config.decay, ranks=True)


def averages(sums: list[dict], decay: float, ranks: bool = False) -> dict:
    """Turn sums over batches into the entries of the history: those of heads alone, and the base's.

    lm_loss: cross-entropy of the adapted base to the data, perplexity its exponential, lm_top1 how often its
    likeliest token came; kl: KL(base || adapted base), where it was measured.
    """
    first = len(LANGUAGE)
    own = [{n: v[first:] if isinstance(v, list | np.ndarray) else v for n, v in s.items()} for s in sums]
    total = {n: np.array(v) for n, v in train_loop.added(sums).items()}
    mean = total["loss"][:first] / np.maximum(total["learned"][:first], 1)
    entry = {
        "lm_loss": mean[0],
        "perplexity": math.exp(min(mean[0], 700.0)),  # beyond that it is no number
        "lm_top1": total["hits"][0, 0] / total["learned"][0],
    }
    if total["learned"][1]:
        entry["kl"] = mean[1]
    return {**{n: float(v) for n, v in entry.items()}, **train_loop.averages(own, decay, ranks)}


def _batch(model: Joint, laid: Windows, numbers: np.ndarray, config: Train2Config, parts: int) -> WindowBatch:
    size = config.batch_positions // parts // config.block
    return laid.batch(numbers, model.config.num_heads, size, model.base.config.sliding_window)


def main(arguments: list[str] | None = None) -> int:
    """Command line: `python -m medusa_core.train2 --params FILE.yaml --recipe ramp --resume`."""

    def run(config: Train2Config, data: TokenSet, resume: bool) -> None:
        from medusa_core import llama  # not needed to be told about a wrong setting

        history = train_jointly(config, llama.load(config.model, "float32", "plain"), data, resume)
        train.print_heads(history, config)
        before, after = history["held_out"][0], history["held_out"][-1]
        print(
            f"  base: perplexity {before['perplexity']:.3f} before, {after['perplexity']:.3f} after, "
            f"KL {after['kl']:.4f}; adapters beside the heads"
        )

    return train_command.command(
        Train2Config, run, "train2", "Train a base model's adapters and draft heads together.", arguments
    )


if __name__ == "__main__":
    ranks.run(main)
