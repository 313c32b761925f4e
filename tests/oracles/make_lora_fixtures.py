"""Record what transformers and torch compute for LoRA: python tests/oracles/make_lora_fixtures.py (extra reference).

Writes tests/fixtures/lora.npz: for each case a random Llama of 2 layers (hidden 32, 4 query and 2 key heads,
vocabulary 48) with random adapters on every matrix and the LM head, a padded batch, and in float64 the loss and
its gradient for every adapter matrix. Under "CASE/":
    "config": Hugging Face's config.json as a string; "weights/NAME"; "lora/NAME": adapters under PEFT's names.
    "ids", "valid", "positions", "targets" (3, T): targets are token ids, -100 where there is none.
    "loss", "grad/NAME".
Case "data": separate LM head, padding on the left, cross-entropy to the targets. Case "teacher": tied LM head,
padding on the right, KL(base || adapted) at the positions that have a target.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from medusa_core.config import ModelConfig

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "lora.npz"
RANK, ALPHA, LENGTHS = 4, 6.0, (17, 11, 5)
CASES = {"data": {"side": "left", "tied": False}, "teacher": {"side": "right", "tied": True}}
switch = {"on": True}  # of the adapters


def main() -> None:
    torch.manual_seed(0)
    arrays = {}
    for name, settings in CASES.items():
        arrays |= {f"{name}/{key}": value for key, value in record(**settings).items()}
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE}: {FIXTURE.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}")


def record(side: str, tied: bool) -> dict[str, np.ndarray]:
    """One case; the teacher's distribution is the goal where the LM head is tied."""
    config = ModelConfig(
        model_type="llama",
        vocab_size=48,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    raw = config.to_hf()
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**raw), dtype=torch.float32, attn_implementation="eager"
    )
    spread(model)
    arrays = {"config": np.array(json.dumps(raw))}
    skipped = {"lm_head.weight"} if tied else set()
    arrays |= {f"weights/{k}": v.numpy().copy() for k, v in model.state_dict().items() if k not in skipped}
    model.double()
    adapters = attach(model)
    ids, valid, targets = problem(side)
    positions = (valid.long().cumsum(-1) - 1).clamp(min=0)
    arguments = {"input_ids": ids, "attention_mask": additive(valid), "position_ids": positions}
    learned = targets >= 0
    logits = model(**arguments).logits[learned]
    if tied:
        switch["on"] = False
        with torch.no_grad():
            teacher = log_softmax(model(**arguments).logits[learned], dim=-1)
        switch["on"] = True
        student = log_softmax(logits, dim=-1)
        loss = kl_div(student, teacher, reduction="batchmean", log_target=True)
    else:
        loss = cross_entropy(logits, targets[learned])
    loss.backward()
    for key, value in adapters.items():
        arrays[f"lora/{key}"] = value.detach().float().numpy()
        arrays[f"grad/{key}"] = value.grad.float().numpy()
    arrays |= {"ids": ids.int().numpy(), "valid": valid.numpy(), "positions": positions.int().numpy()}
    return {**arrays, "targets": targets.int().numpy(), "loss": np.array(float(loss.detach()))}


def spread(model) -> None:
    """Draw weights large enough that a wrong mask or angle changes gradients by far more than rounding does."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            weight.copy_(1 + 0.2 * noise if "norm" in name else 1.5 * noise / weight.shape[-1] ** 0.5)


def attach(model) -> dict[str, torch.Tensor]:
    """Add adapters to the outputs of every linear layer, by hooks; returns them by name."""
    adapters = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear):
            continue
        rows, columns = layer.weight.shape
        # Exact in float32, in which they are stored.
        down = (torch.randn(RANK, columns) / columns**0.5).double().requires_grad_()
        up = (torch.randn(rows, RANK) * 0.3).double().requires_grad_()
        adapters |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

        def hook(_, inputs, output, down=down, up=up):
            return output + ALPHA / RANK * inputs[0] @ down.T @ up.T if switch["on"] else output

        layer.register_forward_hook(hook)
    return adapters


def problem(side: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random ids, which of them are real, and targets at most of those, all (3, longest)."""
    index = torch.arange(max(LENGTHS))
    valid = torch.stack([index < n if side == "right" else index >= max(LENGTHS) - n for n in LENGTHS])
    ids = torch.randint(1, 48, valid.shape) * valid
    targets = torch.randint(0, 48, valid.shape)
    return ids, valid, targets.masked_fill(~valid | (torch.rand(valid.shape) < 0.3), -100)


def additive(valid: torch.Tensor) -> torch.Tensor:
    """Causal mask (B, 1, T, T) without padded keys; a padded query sees itself, or its gradient is no number."""
    length = valid.shape[1]
    see = torch.ones(length, length).tril().bool() & valid[:, None, :] | torch.eye(length).bool()
    return torch.zeros(see.shape).double().masked_fill(~see, -1e30)[:, None]


if __name__ == "__main__":
    main()
