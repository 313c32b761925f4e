"""Record what torch computes for Medusa heads: python tests/oracles/make_head_fixtures.py (extra reference).

Writes tests/fixtures/heads.npz: one random problem (3 heads, d 16, vocabulary 40, 12 positions), and the loss
and all gradients of each output, number of layers and teacher weight, computed in float64.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax, silu, softmax

HEADS, SIZE, VOCABULARY, POSITIONS, DECAY = 3, 16, 40, 12, 0.8
CASES = [("own", 1, 0.0), ("shared", 1, 0.5), ("draft", 1, 0.0), ("draft", 2, 0.5), ("own", 2, 0.3)]


def problem(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random inputs; targets are token ids, -100 where there is none."""
    targets = rng.integers(0, VOCABULARY, (HEADS, POSITIONS))
    targets[rng.random(targets.shape) < 0.2] = -100
    arrays = {
        "hidden": rng.standard_normal((POSITIONS, SIZE)),
        "teacher_hidden": rng.standard_normal((POSITIONS + HEADS, SIZE)),
        "lm_head": rng.standard_normal((VOCABULARY, SIZE)) * 0.5,
        "own": rng.standard_normal((HEADS, VOCABULARY, SIZE)) * 0.5,
    }
    for layer in range(2):
        arrays[f"weight{layer}"] = rng.standard_normal((HEADS, SIZE, SIZE)) * 0.3
        arrays[f"bias{layer}"] = rng.standard_normal((HEADS, SIZE)) * 0.3
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays["targets"] = targets.astype(np.int32)
    arrays["teacher_row"] = (np.arange(POSITIONS) + np.arange(1, HEADS + 1)[:, None]).astype(np.int32)
    arrays["draft_ids"] = np.sort(rng.choice(VOCABULARY, 25, replace=False)).astype(np.int32)
    return arrays


def solve(arrays: dict, output: str, layers: int, teacher_weight: float) -> dict[str, np.ndarray]:
    """Loss, each head's mean loss and the gradients, head by head from the definition."""
    tensors = {
        name: torch.tensor(a, dtype=torch.float64) for name, a in arrays.items() if a.dtype == np.float32
    }
    names = [f"{kind}{layer}" for layer in range(layers) for kind in ("weight", "bias")]
    names += ["own"] if output == "own" else []
    for name in names:
        tensors[name].requires_grad_()
    kept = arrays["draft_ids"] if output == "draft" else np.arange(VOCABULARY)
    index = {int(token): i for i, token in enumerate(kept)}
    head_rows = tensors["lm_head"][torch.tensor(kept.astype(np.int64))]
    total, means = 0.0, []
    for k in range(HEADS):
        x = tensors["hidden"]
        for layer in range(layers):
            x = x + silu(x @ tensors[f"weight{layer}"][k].T + tensors[f"bias{layer}"][k])
        logits = x @ (tensors["own"][k] if output == "own" else head_rows).T
        rows = [n for n in range(POSITIONS) if int(arrays["targets"][k, n]) in index]
        goal = torch.tensor([index[int(arrays["targets"][k, n])] for n in rows])
        base = (
            tensors["teacher_hidden"][torch.tensor(arrays["teacher_row"][k, rows].astype(np.int64))]
            @ head_rows.T
        )
        teacher = -(softmax(base, dim=-1) * log_softmax(logits[rows], dim=-1)).sum(-1).mean()
        mean = (1 - teacher_weight) * cross_entropy(logits[rows], goal) + teacher_weight * teacher
        total = total + DECAY ** (k + 1) * mean
        means.append(float(mean.detach()))
    total.backward()
    gradients = {f"grad/{name}": tensors[name].grad.numpy().astype(np.float32) for name in names}
    return {"loss": np.array(float(total.detach())), "head_loss": np.array(means), **gradients}


def main() -> None:
    arrays = problem(np.random.default_rng(7))
    out = dict(arrays)
    for output, layers, weight in CASES:
        solved = solve(arrays, output, layers, weight)
        out |= {f"{output}-{layers}-{weight}/{name}": value for name, value in solved.items()}
    path = Path(__file__).parents[1] / "fixtures" / "heads.npz"
    np.savez_compressed(path, **out)
    print(f"{path}: {len(CASES)} cases, torch {torch.__version__}")


if __name__ == "__main__":
    main()
