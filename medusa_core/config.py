"""Configurations: what a base model and a set of heads look like, read from and written to JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

MODEL_TYPES = ("llama", "mistral", "qwen2")
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings"),
)
SCALINGS = {  # of rotary positions, and the numbers that each needs
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
HEAD_OUTPUTS = ("own", "shared", "draft")
RECURRENT_KINDS = ("gru", "gated", "redrafter", "lstm")  # of heads, in the kernel's order


class ConfigError(ValueError):
    """A configuration that names something this package does not have, or contradicts itself."""


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and constants of a base model, under the names of a Hugging Face config.json."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: dict | None = None  # {"rope_type": "linear" | "llama3", "factor": ..., ...}
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    sliding_window: int | None = None  # a query sees this many keys, itself included
    attention_bias: bool = False  # biases on q, k and v
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self):
        if self.model_type not in MODEL_TYPES:
            raise ConfigError(
                f"model_type {self.model_type!r} is unknown: expected one of {', '.join(MODEL_TYPES)}"
            )
        for name in SIZES:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}, expected a whole number of 1 or more")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.rope_scaling:
            self._check_scaling(self.rope_scaling)

    def _check_scaling(self, scaling: dict):
        if (kind := scaling["rope_type"]) not in SCALINGS:
            raise ConfigError(f"rope_scaling type {kind!r} is unknown: expected {' or '.join(SCALINGS)}")
        for key in SCALINGS[kind]:
            value = scaling.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"rope_scaling: {key} is {value!r}, expected a number above 0")

    @classmethod
    def from_hf(cls, raw: dict, where: str = "config.json") -> ModelConfig:
        """Read a Hugging Face config.json, both the old (`rope_theta`) and the new (`rope_parameters`) spelling.

        Raises ConfigError naming `where` and the key when one is missing or unknown.
        """
        try:
            if (act := raw.get("hidden_act") or "silu") not in ("silu", "swish"):
                raise ConfigError(f"hidden_act {act!r} is not supported: expected silu")
            heads = raw["num_attention_heads"]
            rope = raw.get("rope_parameters") or {}
            eos = raw.get("eos_token_id")
            return cls(
                model_type=raw["model_type"],
                vocab_size=raw["vocab_size"],
                hidden_size=raw["hidden_size"],
                intermediate_size=raw["intermediate_size"],
                num_hidden_layers=raw["num_hidden_layers"],
                num_attention_heads=heads,
                num_key_value_heads=raw.get("num_key_value_heads") or heads,
                head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
                rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
                rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
                rope_scaling=_rope_scaling(raw.get("rope_scaling") or rope),
                max_position_embeddings=raw.get("max_position_embeddings", 2048),
                tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
                sliding_window=_sliding_window(raw),
                attention_bias=bool(raw.get("attention_bias", raw["model_type"] == "qwen2")),
                bos_token_id=raw.get("bos_token_id"),
                eos_token_ids=tuple(eos if isinstance(eos, (list, tuple)) else () if eos is None else (eos,)),
            )
        except KeyError as error:
            raise ConfigError(f"{where}: key {error.args[0]!r} is missing") from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        except (TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"{where}: a value is of the wrong type or zero ({error})") from error

    def to_hf(self) -> dict:
        """Return a dict that transformers and `from_hf` both read."""
        architecture = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}[self.model_type]
        raw = asdict(self)
        eos = raw.pop("eos_token_ids")
        raw["eos_token_id"] = eos[0] if len(eos) == 1 else list(eos) or None
        raw["architectures"] = [f"{architecture}ForCausalLM"]
        raw["hidden_act"] = "silu"
        raw["dtype"] = "bfloat16"
        if self.model_type == "qwen2":
            raw |= {"use_sliding_window": self.sliding_window is not None, "max_window_layers": 0}
        return raw

    @property
    def parameters_read_per_token(self) -> int:
        """Weights that one decoded token reads: every matrix of the blocks and the LM head (norms are negligible)."""
        attention = (
            self.hidden_size * self.head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads)
        )
        mlp = 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * (attention + mlp) + self.vocab_size * self.hidden_size


def _rope_scaling(raw: dict) -> dict | None:
    """Normalise both spellings of rope scaling; None when positions are not scaled."""
    kind = raw.get("rope_type") or raw.get("type") or "default"
    if kind == "default":
        return None
    return {
        "rope_type": kind,
        **{k: v for k, v in raw.items() if k not in ("rope_type", "type", "rope_theta")},
    }


def _sliding_window(raw: dict) -> int | None:
    # Qwen2 lists a window that is only in force when use_sliding_window says so, from layer max_window_layers on.
    if raw["model_type"] == "qwen2":
        first = raw.get("max_window_layers", 28)  # transformers' default
        if not raw.get("use_sliding_window", False) or first >= raw["num_hidden_layers"]:
            return None
        if first > 0:
            raise ConfigError(f"max_window_layers is {first}: expected 0, since all layers share one mask")
    return raw.get("sliding_window") if raw["model_type"] in ("mistral", "qwen2") else None


@dataclass(frozen=True)
class HeadsConfig:
    """Shape of a set of draft heads; the vocabulary fields say what each head's logits range over.

    output: "own" = an LM head each (the paper), "shared" = the base's LM head, frozen,
    "draft" = the base's LM head restricted to `draft_vocab_size` frequent tokens (FR-Spec).
    state_size: of recurrent heads only, the size of their state ("gated": of its network's hidden layer).
    experts, active_experts: of kind "moe" only, the experts of a head and how many of them a position uses.
    """

    hidden_size: int
    vocab_size: int
    num_heads: int = 4
    num_layers: int = 1
    kind: str = "medusa"
    output: str = "draft"
    draft_vocab_size: int | None = None
    base_model: str = ""
    state_size: int | None = None
    experts: int | None = None
    active_experts: int | None = None

    def __post_init__(self):
        if self.output not in HEAD_OUTPUTS:
            raise ConfigError(
                f"head output {self.output!r} is unknown: expected one of {', '.join(HEAD_OUTPUTS)}"
            )
        if (self.output == "draft") != (self.draft_vocab_size is not None):
            raise ConfigError('draft_vocab_size is needed with output "draft", and only there')
        if self.draft_vocab_size is not None and self.draft_vocab_size < 1:
            raise ConfigError(f"draft_vocab_size {self.draft_vocab_size} must be at least 1")
        if self.num_heads < 1 or self.num_layers < 1:
            raise ConfigError(
                f"num_heads {self.num_heads} and num_layers {self.num_layers} must be at least 1"
            )
        recurrent = self.kind in RECURRENT_KINDS
        if recurrent != (self.state_size is not None):
            raise ConfigError(
                f"state_size is needed with kinds {', '.join(RECURRENT_KINDS)}, and only there; "
                f"the kind is {self.kind!r}"
            )
        if recurrent and (self.state_size < 16 or self.state_size % 16):
            raise ConfigError(f"state_size {self.state_size} must be a multiple of 16, for the kernels")
        if recurrent and (self.output == "own" or self.num_layers != 1):
            raise ConfigError(
                f'heads of kind {self.kind!r} need output "shared" or "draft" and num_layers 1, '
                f"not {self.output!r} and {self.num_layers}"
            )
        self._check_experts()

    def _check_experts(self):
        mixture = self.kind == "moe"
        if {mixture} != {self.experts is not None, self.active_experts is not None}:
            raise ConfigError(
                f'experts and active_experts are needed with kind "moe", and only there; the kind is {self.kind!r}'
            )
        if mixture and not 1 <= self.active_experts <= self.experts:
            raise ConfigError(f"active_experts {self.active_experts} must be 1 to the {self.experts} experts")
        if mixture and self.num_layers != 1:
            raise ConfigError(f'heads of kind "moe" need num_layers 1, not {self.num_layers}')

    @property
    def output_size(self) -> int:
        """Tokens that a head's logits range over."""
        return self.draft_vocab_size if self.output == "draft" else self.vocab_size

    @classmethod
    def from_dict(cls, raw: dict, where: str = "config.json") -> HeadsConfig:
        """Read a heads folder's config.json; unknown or missing keys are errors that name `where`."""
        if not isinstance(raw, dict):
            raise ConfigError(f"{where}: holds a {type(raw).__name__}, expected a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise ConfigError(
                f"{where}: unknown keys {', '.join(unknown)}; expected {', '.join(sorted(known))}"
            )
        if missing := sorted({"hidden_size", "vocab_size"} - raw.keys()):
            raise ConfigError(f"{where}: keys {', '.join(missing)} are missing")
        try:
            return cls(**raw)
        except TypeError as error:
            raise ConfigError(f"{where}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_dict(self) -> dict:
        """Return the JSON form that `from_dict` reads."""
        return asdict(self)
