"""Tokenizer files of a Hugging Face folder: checked against the model and copied into a model folder."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import tokenizers

from medusa_core.config import ModelConfig
from medusa_core.files import replacing, write_json
from medusa_core.model_folder import ConvertError, read_json
from medusa_core.text import TEMPLATES

COPIED = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
WRITABLE_TEMPLATES = [name for name, template in TEMPLATES.items() if template]


def tokenizer_writer(folder: Path, config: ModelConfig, template: str | None) -> Callable[[Path], None]:
    """Check a Hugging Face folder's tokenizer and return the function that writes it into another folder.

    template: a key of `text.TEMPLATES` to write as the chat template; None keeps the tokenizer's own.
    Raises ConvertError when a file is missing or the token ids do not fit the model's vocabulary.
    """
    if not (folder / "tokenizer.json").exists():
        return _rebuilt(folder, config, template)
    settings = _settings(folder, config, template)

    def copy(out: Path) -> None:
        for name in COPIED:
            if (folder / name).exists():
                with replacing(out / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
        write_json(out / "tokenizer_config.json", settings)

    return copy


def _rebuilt(folder: Path, config: ModelConfig, template: str | None) -> Callable[[Path], None]:
    """As `tokenizer_writer`, for a SentencePiece `tokenizer.model` (Vicuna, Llama 1 and 2) to become tokenizer.json."""
    path = folder / "tokenizer.model"
    if not path.exists():
        raise ConvertError(f"{folder}: has neither tokenizer.json nor tokenizer.model; download them too")
    from transformers import AutoTokenizer  # slow to import, and only this path needs it

    with tempfile.TemporaryDirectory() as made:
        try:
            AutoTokenizer.from_pretrained(folder).save_pretrained(made)
        except (ImportError, ValueError) as error:
            how = "pip install sentencepiece protobuf, then run again"
            raise ConvertError(f"{path}: cannot be read ({error}); {how}") from error
        settings = _settings(Path(made), config, template)
        files = {file.name: file.read_bytes() for file in Path(made).iterdir()}

    def write(out: Path) -> None:
        for name, content in files.items():
            with replacing(out / name) as temporary:
                temporary.write_bytes(content)
        write_json(out / "tokenizer_config.json", settings)

    return write


def _load(path: Path, config: ModelConfig) -> tokenizers.Tokenizer:
    """Load a tokenizer.json and check that the model has an embedding for each of its tokens."""
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConvertError(f"{path}: not a tokenizer ({error}); download it again") from error
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if size > config.vocab_size:
        raise ConvertError(
            f"{path}: has token ids up to {size - 1}, but the model's vocab_size is {config.vocab_size}; "
            "they belong to different models"
        )
    return tokenizer


def _settings(folder: Path, config: ModelConfig, template: str | None) -> dict:
    """Return tokenizer_config.json with the chat template inside, wherever the folder keeps it."""
    path, jinja = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    tokenizer = _load(folder / "tokenizer.json", config)
    settings = read_json(path)
    if template is not None:
        # Prompts through a chat template are encoded as they stand, so it writes the begin token that is wanted.
        begin = "{{ bos_token }}" if tokenizer.encode("").ids else ""
        settings["chat_template"] = begin + TEMPLATES[template]
    elif jinja.exists():
        settings["chat_template"] = jinja.read_text(encoding="utf-8")
    if not settings.get("chat_template"):
        choices = " or ".join(f"--template {name}" for name in WRITABLE_TEMPLATES)
        raise ConvertError(f"{path}: has no chat_template; choose one with {choices}")
    return settings
