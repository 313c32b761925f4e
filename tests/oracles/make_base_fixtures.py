"""Records what transformers and torch compute, for tests of the base model that have neither.

    pip install -e .[reference] && python tests/oracles/make_base_fixtures.py     (about a minute on 2 cores)

Never imports Jittor. Everything is float32 on the CPU. Writes into tests/fixtures/:

embedded.json    {"weights_sha256", "versions", "prompts": [{"name", "ids", "positions", "greedy"}]}
    ids: the prompt's token ids. positions: the P positions whose logits are recorded, the last one included.
    greedy: the 64 token ids that follow when the most likely token is taken each time, past end tokens too.
    weights_sha256: of the model folder's tensors in name order, so that a changed conversion is noticed.
embedded.npz     "vocab" (256,) int32: the token ids whose logits are recorded; then for prompt number i
    "i/logits" (P, 256), "i/top_ids" (P, 5) int32, "i/top_logits" (P, 5), "i/logsumexp" (P,) over the vocabulary,
    "i/gaps" (64,): by how much the greedy token's logit beats the second best at every step.
tiny_NAME.npz    NAME in llama3, linear, mistral, qwen2: a random model of 2 layers, hidden 64, vocabulary 160
    "config": a JSON string, Hugging Face's config.json.
    "weights/HF_NAME": float32, every value exact in bfloat16, so that storing them in half precision is lossless.
    "left/..." and "right/...": one forward of 3 rows of different lengths, padded on that side to T = 20:
        "ids" (3, T) int32, "valid" (3, T) bool, "positions" (3, T) int32 counting valid tokens from 0,
        "hidden" (3, T, 64) after the final norm, "logits" (3, T, 160); what padding rows hold means nothing.
    "steps/...": a prompt and 4 calls with a cache. "ids" (3, S), "valid" (3, S), "positions" (3, S): the whole
        left-padded sequence; "sizes" (5,): new tokens of each call, the prompt first; "hidden" (3, S, 64) and
        "logits" (3, S, 160) put together from the calls. A row without its padding gives the same numbers.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from medusa_core.config import ModelConfig
from medusa_core.convert import embedded, read_model
from medusa_core.text import chat_ids, load_tokenizer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
POSITIONS, GREEDY_TOKENS, SAFE_GAP = 8, 64, 5e-3
STORY = (
    "Once upon a time, in a small village by the sea, there lived a clockmaker named Elias who could repair anything "
    "that ticked. Sailors brought him their chronometers, farmers their pocket watches, and once a year the mayor "
    "himself climbed the narrow stairs to ask about the great clock above the harbour. "
)
CHATS = {
    "chat_capital": ["What is the capital of France?"],
    "chat_code": ["Write a Python function that returns the n-th Fibonacci number."],
    "chat_two_turns": ["What is 2 + 2?", "2 + 2 = 4.", "And 3 + 3?"],
}
TEXTS = {
    "one_token": "The",
    "two_tokens": "The sea",
    "five_tokens": "The history of the bicycle",
    "list": "Days of the week: Monday, Tuesday, Wednesday,",
    "numbers": "1, 2, 4, 8, 16, 32, 64, 128, 256,",
    "story": STORY,
    "long_story": STORY * 4,
}
CASES = {
    "llama3": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,  # all three bands of frequencies occur at head_dim 16
        },
    },
    "linear": {
        "model_type": "llama",
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "tie_word_embeddings": True,
    },
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "qwen2": {"model_type": "qwen2", "attention_bias": True, "rope_theta": 1_000_000.0},
}


def main() -> None:
    """Write every fixture, and say how large they are and how close the closest greedy choice was."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    FIXTURES.mkdir(exist_ok=True)
    for name, settings in CASES.items():
        np.savez_compressed(FIXTURES / f"tiny_{name}.npz", **record_tiny(settings))
    summary, arrays = record_embedded()
    (FIXTURES / "embedded.json").write_text(json.dumps(summary, indent=1) + "\n")
    np.savez_compressed(FIXTURES / "embedded.npz", **arrays)
    total = sum(path.stat().st_size for path in FIXTURES.iterdir())
    print(f"{total / 1e6:.2f} MB in {FIXTURES}")


def record_embedded() -> tuple[dict, dict]:
    """Run the embedded model on ten prompts; refuse one whose greedy continuation hangs on a near tie."""
    folder = embedded()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    tokenizer = load_tokenizer(folder)
    arrays = {"vocab": np.sort(np.random.default_rng(0).choice(model.config.vocab_size, 256, replace=False))}
    arrays["vocab"] = arrays["vocab"].astype(np.int32)
    prompts = []
    for i, (name, ids) in enumerate(prompt_ids(tokenizer).items()):
        output = model(torch.tensor([ids]), use_cache=True)
        positions = np.unique(np.linspace(0, len(ids) - 1, POSITIONS).round().astype(int))
        logits = output.logits[0, torch.tensor(positions)]
        top = logits.topk(5)
        greedy, gaps = continue_greedily(model, output)
        if gaps.min() < SAFE_GAP:
            sys.exit(
                f"prompt {name}: two tokens are within {gaps.min():.1e} of each other, choose another text"
            )
        arrays |= {
            f"{i}/logits": logits[:, arrays["vocab"]].numpy(),
            f"{i}/top_ids": top.indices.numpy().astype(np.int32),
            f"{i}/top_logits": top.values.numpy(),
            f"{i}/logsumexp": logits.logsumexp(-1).numpy(),
            f"{i}/gaps": gaps,
        }
        prompts.append({"name": name, "ids": ids, "positions": positions.tolist(), "greedy": greedy})
        print(f"{name}: {len(ids)} tokens, closest choice {gaps.min():.4f}: {tokenizer.decode(greedy)!r}")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"weights_sha256": weights_sha256(folder), "versions": versions, "prompts": prompts}, arrays


def prompt_ids(tokenizer) -> dict[str, list[int]]:
    """Return the ten prompts, from 1 to about 300 tokens."""
    prompts = {name: tokenizer.encode(text) for name, text in TEXTS.items()}
    for name, turns in CHATS.items():
        roles = ["user", "assistant"] * len(turns)
        messages = [{"role": role, "content": text} for role, text in zip(roles, turns)]
        prompts[name] = chat_ids(tokenizer, messages)
    return prompts


def continue_greedily(model, output) -> tuple[list[int], np.ndarray]:
    """Take the most likely token 64 times; return the tokens and how far each was ahead of the second."""
    tokens, gaps = [], []
    for _ in range(GREEDY_TOKENS):
        top = output.logits[0, -1].topk(2)
        tokens.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
        output = model(top.indices[:1].view(1, 1), past_key_values=output.past_key_values, use_cache=True)
    return tokens, np.array(gaps, np.float32)


def weights_sha256(folder: Path) -> str:
    """Hash the tensors of a model folder in name order, whatever the layout of its file."""
    digest = hashlib.sha256()
    _, tensors = read_model(folder)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).view(np.uint16))
    return digest.hexdigest()


def record_tiny(settings: dict) -> dict[str, np.ndarray]:
    """Run a random model on padded batches and in cached steps."""
    config = ModelConfig(
        vocab_size=160,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        **settings,
    )
    raw = config.to_hf()
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**raw), dtype=torch.float32, attn_implementation="eager"
    )
    spread(model)
    arrays = {"config": np.array(json.dumps(raw))}
    skipped = {"lm_head.weight"} if config.tie_word_embeddings else set()
    arrays |= {f"weights/{k}": v.numpy() for k, v in model.state_dict().items() if k not in skipped}
    for side in ("left", "right"):
        ids, valid = padded_rows(lengths=(20, 13, 5), side=side)
        arrays |= recorded(side, ids, valid, [forward(model, ids, valid)])
    ids, valid = padded_rows(lengths=(20, 15, 9), side="left")
    sizes, calls, cache, end = (14, 1, 1, 3, 1), [], transformers.DynamicCache(config=model.config), 0
    for size in sizes:
        end += size
        calls.append(forward(model, ids[:, end - size : end], valid[:, :end], cache))
    return arrays | recorded("steps", ids, valid, calls) | {"steps/sizes": np.array(sizes, np.int32)}


def spread(model) -> None:
    """Draw weights large enough that a wrong mask, angle or bias moves logits by far more than rounding does."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.copy_(1 + 0.2 * torch.randn_like(weight))
        else:
            weight.copy_(
                torch.randn_like(weight) * (0.3 if name.endswith("bias") else 1.5 / weight.shape[-1] ** 0.5)
            )
        weight.copy_(weight.bfloat16().float())


def padded_rows(lengths: tuple[int, ...], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random ids and which of them are real, both (rows, longest)."""
    longest = max(lengths)
    index = torch.arange(longest)
    rows = [index < n if side == "right" else index >= longest - n for n in lengths]
    valid = torch.stack(rows)
    return torch.randint(1, 160, valid.shape) * valid, valid


def forward(model, ids: torch.Tensor, valid: torch.Tensor, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the new tokens `ids` (B, T) after what `cache` holds; `valid` (B, past + T) covers both."""
    output = model.model(
        ids,
        attention_mask=valid.long(),
        position_ids=positions_of(valid)[:, -ids.shape[1] :],
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return output.last_hidden_state, model.lm_head(output.last_hidden_state)


def positions_of(valid: torch.Tensor) -> torch.Tensor:
    """Number every row's real tokens from 0."""
    return (valid.long().cumsum(-1) - 1).clamp(min=0)


def recorded(prefix: str, ids: torch.Tensor, valid: torch.Tensor, calls: list) -> dict[str, np.ndarray]:
    """Name the arrays of one case, the outputs of its calls joined along time."""
    hidden, logits = (torch.cat(parts, dim=1).numpy() for parts in zip(*calls))
    return {
        f"{prefix}/ids": ids.numpy().astype(np.int32),
        f"{prefix}/valid": valid.numpy(),
        f"{prefix}/positions": positions_of(valid).numpy().astype(np.int32),
        f"{prefix}/hidden": hidden,
        f"{prefix}/logits": logits,
    }


if __name__ == "__main__":
    main()
