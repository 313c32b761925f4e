"""Record what torch computes for mixture-of-experts heads: python tests/oracles/make_moe_fixtures.py (extra reference).

Writes tests/fixtures/moe.npz: one random problem (3 heads of 4 experts, d 24, vocabulary 40, 14 positions), and for
each number of active experts and choice of loss terms the loss and all gradients, in float64, position by position.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax, silu, softmax

HEADS, EXPERTS, SIZE, VOCABULARY, POSITIONS, DECAY = 3, 4, 24, 40, 14, 0.8
# active experts, output, weights of the teacher, of the balance loss and of the z loss
CASES = [
    (1, "draft", 0.0, 0.0, 0.0),
    (1, "shared", 0.3, 0.5, 0.25),
    (2, "shared", 0.0, 0.0, 0.0),
    (2, "draft", 0.4, 0.5, 0.25),
]
SHAPES = {
    "router": (HEADS, EXPERTS, SIZE),
    "weight": (HEADS, EXPERTS, SIZE, SIZE),
    "bias": (HEADS, EXPERTS, SIZE),
}


def problem(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random inputs and parameters; tokens (HEADS + 1, POSITIONS) are -100 where the text has ended."""
    tokens = rng.integers(0, VOCABULARY, (HEADS + 1, POSITIONS))
    length = rng.integers(1, HEADS + 3, POSITIONS)
    length[:3] = HEADS + 1
    tokens[np.arange(HEADS + 1)[:, None] >= length] = -100
    arrays = {
        "hidden": rng.standard_normal((POSITIONS, SIZE)),
        "teacher_hidden": rng.standard_normal((POSITIONS + HEADS, SIZE)),
        "lm_head": rng.standard_normal((VOCABULARY, SIZE)) * 0.4,
    }
    arrays |= {name: rng.standard_normal(shape) * 0.3 for name, shape in SHAPES.items()}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays["tokens"] = tokens.astype(np.int32)
    arrays["teacher_row"] = (np.arange(POSITIONS) + np.arange(1, HEADS + 1)[:, None]).astype(np.int32)
    arrays["draft_ids"] = np.sort(rng.choice(VOCABULARY, 25, replace=False)).astype(np.int32)
    return arrays


def expert_mix(p: dict, k: int, h, active: int):
    """What head k's LM head reads after h (d,): one expert with its probability, or several with their softmax."""
    scores = p["router"][k] @ h
    best = torch.topk(scores, active).indices
    gates = softmax(scores, 0)[best] if active == 1 else softmax(scores[best], 0)
    mixed = [g * silu(p["weight"][k, i] @ h + p["bias"][k, i]) for g, i in zip(gates, best)]
    return h + sum(mixed)


def router_losses(p: dict, hidden, active: int):
    """Balance (Switch, equations 4 to 6) and z loss (ST-MoE) over hidden states (n, d), averaged over heads."""
    balance = z = 0.0
    for k in range(HEADS):
        scores = hidden @ p["router"][k].T
        chosen = torch.zeros_like(scores).scatter(1, torch.topk(scores, active).indices, 1.0) / active
        balance += EXPERTS * (chosen.mean(0) * softmax(scores, 1).mean(0)).sum() / HEADS
        z += (torch.logsumexp(scores, 1) ** 2).mean() / HEADS
    return balance, z


def solve(arrays: dict, active: int, output: str, teacher_weight: float, balance: float, z: float) -> dict:
    """Loss, each head's mean cross-entropy, and the gradients."""
    p = {name: torch.tensor(a, dtype=torch.float64) for name, a in arrays.items() if a.dtype == np.float32}
    parameters = {name: p[name].requires_grad_() for name in SHAPES}
    kept = arrays["draft_ids"] if output == "draft" else np.arange(VOCABULARY)
    index = {int(token): i for i, token in enumerate(kept)}
    lm_head = p["lm_head"][torch.tensor(kept.astype(np.int64))]
    crosses, counted = [[] for _ in range(HEADS)], set()
    for n in range(POSITIONS):
        for k in range(HEADS):
            token = int(arrays["tokens"][k + 1, n])
            if token not in index:
                continue
            counted.add(n)
            logits = lm_head @ expert_mix(p, k, p["hidden"][n], active)
            state = p["teacher_hidden"][int(arrays["teacher_row"][k, n])]
            own = cross_entropy(logits[None], torch.tensor([index[token]]))
            teacher = -(softmax(lm_head @ state, dim=0) * log_softmax(logits, dim=0)).sum()
            crosses[k].append((1 - teacher_weight) * own + teacher_weight * teacher)
    means = [torch.stack(rows).mean() for rows in crosses]
    routers = router_losses(p, p["hidden"][sorted(counted)], active)
    total = sum(DECAY ** (k + 1) * mean for k, mean in enumerate(means))
    total = total + balance * routers[0] + z * routers[1]
    total.backward()
    gradients = {f"grad/{name}": value.grad.numpy().astype(np.float32) for name, value in parameters.items()}
    head_loss = np.array([float(mean.detach()) for mean in means])
    return {"loss": np.array(float(total.detach())), "head_loss": head_loss, **gradients}


def main() -> None:
    arrays = problem(np.random.default_rng(13))
    out = dict(arrays)
    for case in CASES:
        out |= {f"{'-'.join(map(str, case))}/{name}": value for name, value in solve(arrays, *case).items()}
    path = Path(__file__).parents[1] / "fixtures" / "moe.npz"
    np.savez_compressed(path, **out)
    print(f"{path}: {len(CASES)} cases, torch {torch.__version__}")


if __name__ == "__main__":
    main()
