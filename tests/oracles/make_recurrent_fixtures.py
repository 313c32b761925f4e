"""Record what torch computes for recurrent drafters: python tests/oracles/make_recurrent_fixtures.py (extra reference).

Writes tests/fixtures/recurrent.npz: one random problem (depth 3, d 32, state 16, vocabulary 40, 12 positions), and
for each kind of cell and choice of loss terms the loss and all gradients, computed in float64, position by position.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax, silu, smooth_l1_loss, softmax

DEPTH, SIZE, STATE, VOCABULARY, POSITIONS, DECAY = 3, 32, 16, 40, 12, 0.8
# kind, output, weight of the teacher, weight of the features
CASES = [
    ("gru", "draft", 0.0, 0.0),
    ("gru", "shared", 0.3, 0.5),
    ("gated", "draft", 0.3, 0.0),
    ("redrafter", "draft", 0.3, 0.0),
    ("lstm", "shared", 0.0, 0.0),
    ("lstm", "draft", 0.3, 0.7),
]
D, R = SIZE, STATE
OUTPUT = {"out_hidden": (D, D), "out_state": (D, R), "out_bias": (D,)}
SHAPES = {
    "gru": {
        "start": (R, D),
        "embed": (R, D),
        "input": (3 * R, R),
        "recurrent": (2 * R, R),
        "candidate": (R, R),
        "bias": (3 * R,),
        **OUTPUT,
    },
    "gated": {
        "token": (D, D),
        "gate": (D, D),
        "gate_bias": (D,),
        "inner": (R, D),
        "inner_bias": (R,),
        "outer": (D, R),
        "outer_bias": (D,),
    },
    "redrafter": {"input": (R, D), "recurrent": (R, R), "bias": (R,), **OUTPUT},
    "lstm": {
        "embed": (R, 2 * D),
        "embed_bias": (R,),
        "input": (4 * R, R),
        "recurrent": (4 * R, R),
        "bias": (4 * R,),
        "feature": (D, R),
    },
}


def problem(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random inputs and parameters; tokens (DEPTH + 1, POSITIONS) are -100 where the text has ended."""
    tokens = rng.integers(0, VOCABULARY, (DEPTH + 1, POSITIONS))
    length = rng.integers(1, DEPTH + 3, POSITIONS)
    length[:3] = DEPTH + 1
    tokens[np.arange(DEPTH + 1)[:, None] >= length] = -100
    arrays = {
        "hidden": rng.standard_normal((POSITIONS, SIZE)) * 1.5,
        "teacher_hidden": rng.standard_normal((POSITIONS + DEPTH, SIZE)) * 1.5,
        "lm_head": rng.standard_normal((VOCABULARY, SIZE)) * 0.4,
        "embedding": rng.standard_normal((VOCABULARY, SIZE)) * 0.1,
    }
    for kind in SHAPES:
        for name, shape in SHAPES[kind].items():
            arrays[f"{kind}/{name}"] = rng.standard_normal(shape) * (0.3 if len(shape) == 2 else 0.5)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays["tokens"] = tokens.astype(np.int32)
    arrays["teacher_row"] = (np.arange(POSITIONS) + np.arange(1, DEPTH + 1)[:, None]).astype(np.int32)
    arrays["draft_ids"] = np.sort(rng.choice(VOCABULARY, 25, replace=False)).astype(np.int32)
    return arrays


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def unit(x):
    return x / torch.sqrt((x**2).mean() + 1e-5)


def gru(p, h, embeddings):
    """Outputs o_1, o_2, ... from h (d,) and e_1, e_2, ..., each (d,)."""
    w_z, w_q, w_c = p["input"].split(STATE)
    u_z, u_q = p["recurrent"].split(STATE)
    b_z, b_q, b_c = p["bias"].split(STATE)
    s = p["start"] @ h
    for e in embeddings:
        x = p["embed"] @ e
        z = sigmoid(w_z @ x + u_z @ s + b_z)
        q = sigmoid(w_q @ x + u_q @ s + b_q)
        c = torch.tanh(w_c @ x + p["candidate"] @ (q * s) + b_c)
        s = (1 - z) * s + z * c
        yield h + silu(torch.cat([p["out_hidden"], p["out_state"]], 1) @ torch.cat([h, s]) + p["out_bias"])


def redrafter(p, h, embeddings):
    s = torch.zeros(STATE, dtype=torch.float64)
    for e in embeddings:
        s = silu(p["input"] @ e + p["recurrent"] @ s + p["bias"])
        yield h + silu(torch.cat([p["out_hidden"], p["out_state"]], 1) @ torch.cat([h, s]) + p["out_bias"])


def gated(p, h, embeddings):
    s = h
    for e in embeddings:
        s = s + p["token"] @ e
        z = sigmoid(p["gate"] @ s + p["gate_bias"])
        network = p["outer"] @ silu(p["inner"] @ s + p["inner_bias"]) + p["outer_bias"]
        s = (1 - z) * s + z * network
        yield s


def lstm(p, h, embeddings):
    m = c = torch.zeros(STATE, dtype=torch.float64)
    f = h
    for e in embeddings:
        u = p["embed"] @ torch.cat([e, unit(f)]) + p["embed_bias"]
        i, forget, o, g = (p["input"] @ u + p["recurrent"] @ m + p["bias"]).split(STATE)
        c = sigmoid(forget) * c + sigmoid(i) * torch.tanh(g)
        m = sigmoid(o) * torch.tanh(c)
        f = f + p["feature"] @ m
        yield f


CELLS = {"gru": gru, "gated": gated, "redrafter": redrafter, "lstm": lstm}


def solve(arrays: dict, kind: str, output: str, teacher_weight: float, feature_weight: float) -> dict:
    """Loss, each depth's mean cross-entropy, and the gradients."""
    tensors = {
        name: torch.tensor(a, dtype=torch.float64) for name, a in arrays.items() if a.dtype == np.float32
    }
    parameters = {name: tensors[f"{kind}/{name}"].requires_grad_() for name in SHAPES[kind]}
    kept = arrays["draft_ids"] if output == "draft" else np.arange(VOCABULARY)
    index = {int(token): i for i, token in enumerate(kept)}
    lm_head = tensors["lm_head"][torch.tensor(kept.astype(np.int64))]
    tokens = arrays["tokens"]
    crosses, distances = [[] for _ in range(DEPTH)], [[] for _ in range(DEPTH)]
    for n in range(POSITIONS):
        ids = [int(token) for token in tokens[:, n] if token >= 0]
        known = ids[: min(len(ids), DEPTH)]
        embeddings = [unit(tensors["embedding"][token]) for token in known]
        outputs = CELLS[kind](parameters, tensors["hidden"][n], embeddings)
        for k, out in enumerate(outputs):
            if k + 1 >= len(ids) or ids[k + 1] not in index:
                continue
            logits, state = lm_head @ out, tensors["teacher_hidden"][int(arrays["teacher_row"][k, n])]
            own = cross_entropy(logits[None], torch.tensor([index[ids[k + 1]]]))
            teacher = -(softmax(lm_head @ state, dim=0) * log_softmax(logits, dim=0)).sum()
            crosses[k].append((1 - teacher_weight) * own + teacher_weight * teacher)
            distances[k].append(smooth_l1_loss(out, state))
    means = [torch.stack(rows).mean() for rows in crosses]
    total = sum(
        DECAY ** (k + 1) * (means[k] + feature_weight * torch.stack(distances[k]).mean())
        for k in range(DEPTH)
    )
    total.backward()
    gradients = {f"grad/{name}": p.grad.numpy().astype(np.float32) for name, p in parameters.items()}
    head_loss = np.array([float(mean.detach()) for mean in means])
    return {"loss": np.array(float(total.detach())), "head_loss": head_loss, **gradients}


def main() -> None:
    arrays = problem(np.random.default_rng(11))
    out = dict(arrays)
    for case in CASES:
        out |= {f"{'-'.join(map(str, case))}/{name}": value for name, value in solve(arrays, *case).items()}
    path = Path(__file__).parents[1] / "fixtures" / "recurrent.npz"
    np.savez_compressed(path, **out)
    print(f"{path}: {len(CASES)} cases, torch {torch.__version__}")


if __name__ == "__main__":
    main()
