"""GGUF files: what llama.cpp packs into one file, taken apart into Hugging Face tensors and a tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from medusa_core.config import ModelConfig

NORMAL, CONTROL, USER_DEFINED = (
    int(gguf.TokenType.NORMAL),
    int(gguf.TokenType.CONTROL),
    int(gguf.TokenType.USER_DEFINED),
)
TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


class GGUFError(ValueError):
    """A GGUF file that cannot be read, or that holds something this reader does not know."""


class GGUFModel:
    """A Llama-architecture GGUF file, opened by memory map; every error names the file."""

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self._reader = gguf.GGUFReader(self.path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise GGUFError(f"{self.path}: not a readable GGUF file ({error}); download it again") from error
        self._expect("general.architecture", "llama")
        self.config = self._config()

    def _field(self, key: str, default=None):
        """Return the value under `key`; a key without a default must be there."""
        field = self._reader.get_field(key)
        if field is None:
            if default is None:
                raise GGUFError(f"{self.path}: key {key!r} is missing")
            return default
        return field.contents()

    def _expect(self, key: str, value: str) -> None:
        found = self._field(key)
        if found != value:
            raise GGUFError(
                f"{self.path}: {key} is {found!r}, and only {value!r} is read here; "
                "convert the model's safetensors folder instead"
            )

    def _config(self) -> ModelConfig:
        self._expect_default("llama.rope.scaling.type", "none")
        names = {tensor.name for tensor in self._reader.tensors}
        hidden, heads = self._field("llama.embedding_length"), self._field("llama.attention.head_count")
        # The file keeps eps as float32; its shortest decimal is what the model's author wrote.
        eps = float(str(np.float32(self._field("llama.attention.layer_norm_rms_epsilon"))))
        return ModelConfig(
            model_type="llama",
            vocab_size=len(self._field("tokenizer.ggml.tokens")),
            hidden_size=hidden,
            intermediate_size=self._field("llama.feed_forward_length"),
            num_hidden_layers=self._field("llama.block_count"),
            num_attention_heads=heads,
            num_key_value_heads=self._field("llama.attention.head_count_kv", heads),
            head_dim=self._field("llama.rope.dimension_count", hidden // heads),
            rms_norm_eps=eps,
            rope_theta=float(self._field("llama.rope.freq_base", 10_000.0)),
            max_position_embeddings=self._field("llama.context_length"),
            tie_word_embeddings="output.weight" not in names,
            bos_token_id=self._field("tokenizer.ggml.bos_token_id"),
            eos_token_ids=(self._field("tokenizer.ggml.eos_token_id"),),
        )

    def _expect_default(self, key: str, value: str) -> None:
        if self._reader.get_field(key) is not None:
            self._expect(key, value)

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (Hugging Face name, float32 array) one by one, matrices as (out, in).

        llama.cpp rotates neighbouring pairs where Hugging Face rotates halves, so it stores the rows of q and
        k interleaved; they are put back here.
        """
        rows = {"q_proj": self.config.num_attention_heads, "k_proj": self.config.num_key_value_heads}
        for tensor in self._reader.tensors:
            name = self._name(tensor.name)
            try:
                array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            except NotImplementedError as error:
                raise GGUFError(f"{self.path}: tensor {tensor.name!r}: {error}") from None
            for projection, heads in rows.items():
                if projection in name:
                    array = _split_halves(array, heads)
            yield name, array

    def _name(self, name: str) -> str:
        prefix, _, rest = name.partition(".")
        if prefix == "blk":
            index, _, kind = rest.partition(".")
            if kind in BLOCK_TENSORS:
                return f"model.layers.{index}.{BLOCK_TENSORS[kind]}"
        elif name in TENSORS:
            return TENSORS[name]
        raise GGUFError(
            f"{self.path}: tensor {name!r} is unknown; convert the model's safetensors folder instead"
        )

    def tokenizer(self) -> Tokenizer:
        """Build the byte-level BPE tokenizer from the file's tokens and merges."""
        # Others are split into words by rules that the file only names.
        self._expect("tokenizer.ggml.model", "gpt2")
        self._expect("tokenizer.ggml.pre", "smollm")
        tokens, kinds = self._field("tokenizer.ggml.tokens"), self._field("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self._field("tokenizer.ggml.merges")]
        if unknown := sorted(set(kinds) - {NORMAL, CONTROL, USER_DEFINED}):
            raise GGUFError(
                f"{self.path}: tokenizer.ggml.token_type holds kinds {unknown}, which are not read here"
            )
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        # "smollm": every digit on its own, then GPT-2's split into words.
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
            added = [
                AddedToken(token, special=special, normalized=False)
                for token, found in zip(tokens, kinds, strict=True)
                if found == kind
            ]
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
        return tokenizer

    def tokenizer_config(self) -> dict:
        """Return the tokenizer_config.json that goes with `tokenizer()`."""
        tokens = self._field("tokenizer.ggml.tokens")
        special = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.config.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": bool(self._field("tokenizer.ggml.add_bos_token", False)),
            "chat_template": self._field("tokenizer.chat_template"),
            **{name: tokens[self._field(f"tokenizer.ggml.{key}_token_id")] for name, key in special.items()},
        }


def _split_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving: rows (heads, head_dim/2, 2) -> (heads, 2, head_dim/2)."""
    rows, columns = array.shape
    return array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
