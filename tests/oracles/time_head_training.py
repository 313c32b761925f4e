"""Seconds of one update of Medusa-1 heads, here or in torch: python tests/oracles/time_head_training.py jittor|torch.

The same work on random data in both: 512 positions, 4 heads of 576, a frozen LM head of 8,192 draft tokens, with
--teacher also the base's distribution at the targets; forward, backward, clipping and AdamW. Prints the median.
"""

import argparse
import statistics
import time

import numpy as np

POSITIONS, HEADS, SIZE, DRAFT, VOCABULARY = 512, 4, 576, 8192, 49152


def problem():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((POSITIONS + 64, SIZE)).astype(np.float32)
    targets = rng.integers(0, DRAFT, (HEADS, POSITIONS)).astype(np.int32)
    teacher_row = (np.arange(POSITIONS) + np.arange(1, HEADS + 1)[:, None]).astype(np.int32)
    return hidden, targets, teacher_row, (rng.standard_normal((DRAFT, SIZE)) * 0.05).astype(np.float32)


def jittor_update(weight: float):
    from medusa_core import train
    from medusa_core.config import HeadsConfig
    from medusa_core.heads.medusa import MedusaHeads
    from medusa_core.hidden import Batch
    from medusa_core.optim import AdamW
    from medusa_core.train_config import TrainConfig

    hidden, targets, teacher_row, lm_head = problem()
    model = MedusaHeads(
        HeadsConfig(SIZE, VOCABULARY, HEADS, draft_vocab_size=DRAFT),
        lm_head,
        np.arange(DRAFT, dtype=np.int32),
    )
    batch = Batch(hidden[:POSITIONS], np.concatenate([targets[:1], targets]), hidden, teacher_row)
    optimizer = AdamW(dict(model.state_dict()))
    config = TrainConfig(teacher_weight=weight)
    return lambda: train.update(model, optimizer, [batch], 1e-3, config, 1)


def torch_update(weight: float):
    import torch
    from torch.nn.functional import cross_entropy, linear, silu, softmax

    hidden, targets, teacher_row, lm_head = (torch.tensor(array) for array in problem())
    targets, teacher_row = targets.long(), teacher_row.long()
    weights = torch.zeros(HEADS, SIZE, SIZE, requires_grad=True)
    biases = torch.zeros(HEADS, 1, SIZE, requires_grad=True)
    optimizer = torch.optim.AdamW([weights, biases], lr=1e-3, weight_decay=0.0)
    decay = 0.8 ** torch.arange(1, HEADS + 1)

    def update():
        x = hidden[None, :POSITIONS]
        x = x + silu(torch.matmul(x, weights.transpose(1, 2)) + biases)
        logits = linear(x, lm_head)  # (K, N, v)
        rows = cross_entropy(logits.reshape(-1, DRAFT), targets.reshape(-1), reduction="none")
        loss = (1 - weight) * (rows.reshape(HEADS, -1).mean(1) * decay).sum()
        if weight:
            with torch.no_grad():
                goal = softmax(linear(hidden, lm_head), dim=-1)[teacher_row]
            rows = cross_entropy(logits.reshape(-1, DRAFT), goal.reshape(-1, DRAFT), reduction="none")
            loss = loss + weight * (rows.reshape(HEADS, -1).mean(1) * decay).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weights, biases], 1.0)
        optimizer.step()

    return update


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=["jittor", "torch"])
    parser.add_argument("--teacher", type=float, default=0.0, help="weight of the teacher term")
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    update = {"jittor": jittor_update, "torch": torch_update}[options.engine](options.teacher)
    for _ in range(3):
        update()
    seconds = []
    for _ in range(options.updates):
        began = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - began)
    low, high = min(seconds), max(seconds)
    print(f"{options.engine}: {statistics.median(seconds):.3f} s an update ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
