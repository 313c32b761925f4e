"""Text and tokens: tokenizers, chat templates, and the masks that keep user turns out of the loss."""

import os
from pathlib import Path

import numpy as np
from jinja2 import TemplateError

IGNORED = -100  # label of a token that no loss sees
ROLES = ("system", "user", "assistant")

# Jinja, the language of a tokenizer's own chat_template; a reply ends with the tokenizer's end token. The
# space before a Vicuna reply belongs to the reply: the model writes it after a prompt ending in "ASSISTANT:".
_VICUNA = """\
{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}\
A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions.{% endif %}{{ ' ' }}\
{% for turn in messages %}\
{% if turn['role'] == 'user' %}{{ 'USER: ' + turn['content'] }}\
{% elif turn['role'] == 'assistant' %}{{ ' ASSISTANT: ' + turn['content'] + eos_token }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"""
_CHATML = """\
{% for turn in messages %}\
{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] }}\
{{ (eos_token if turn['role'] == 'assistant' else '<|im_end|>') + '\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {"vicuna": _VICUNA, "chatml": _CHATML, "model": None}  # None: the one in tokenizer_config.json


class TextError(ValueError):
    """A prompt or a conversation that no template can render, or a tokenizer that cannot be loaded."""


def load_tokenizer(folder: Path):
    """Return the transformers fast tokenizer of a model folder; raises TextError when a file is missing."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises installing torch
    from transformers import PreTrainedTokenizerFast  # takes a second to import

    folder = Path(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise TextError(f"{folder / name}: no such file; convert the model again, with its tokenizer")
    # What is too long is refused by name, where it matters; transformers would warn of indexing errors at every text.
    return PreTrainedTokenizerFast.from_pretrained(folder, model_max_length=int(1e30))


def chat_ids(tokenizer, messages: list[dict], template: str = "model") -> list[int]:
    """Return the token ids of a prompt that ends where the assistant's reply begins.

    messages: [{"role": "user", "content": ...}, ...], the last one from the user. Raises TextError for an
    empty prompt or turns that do not alternate.
    """
    _check(messages, last="user")
    text = _render(tokenizer, messages, template, reply=True)
    return tokenizer.encode(text, add_special_tokens=_adds_bos(template))


def label_mask(tokenizer, messages: list[dict], template: str = "model") -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids and labels of a conversation, both (T,) int32; what is not to be learnt is -100.

    Learnt are the assistant's replies with their end tokens; system and user turns and the template are not.
    A token never spans the edge of a reply: there the text is cut as it is in generation, where the prompt is
    encoded before the reply exists. Raises TextError for turns that do not alternate, or without any reply.
    """
    _check(messages, last="assistant")
    text = _render(tokenizer, messages, template)
    edges = _reply_edges(tokenizer, messages, template, text)
    ids, cuts = _encode_cut(tokenizer, text, edges, _adds_bos(template))
    ids = np.array(ids, np.int32)
    labels = np.full_like(ids, IGNORED)
    for start, end in zip(cuts[::2], cuts[1::2], strict=True):
        labels[start:end] = ids[start:end]
    return ids, labels


def _adds_bos(template: str) -> bool:
    # A model's own template writes the begin token itself; to ours the tokenizer adds it, if it wants one.
    return template != "model"


def _render(tokenizer, messages: list[dict], template: str, reply: bool = False) -> str:
    if template not in TEMPLATES:
        raise TextError(f"template {template!r} is unknown: expected one of {', '.join(TEMPLATES)}")
    if TEMPLATES[template] is None and not tokenizer.chat_template:
        raise TextError('the tokenizer brings no chat template; use template "vicuna" or "chatml"')
    try:
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=TEMPLATES[template], tokenize=False, add_generation_prompt=reply
        )
        rendered.encode()  # tokenizers do not say what is wrong with half a character
        return rendered
    except UnicodeEncodeError as error:
        raise TextError(f"not UTF-8 text: {error}") from error
    except TemplateError as error:  # Mistral's, for one, refuses roles that do not take turns
        raise TextError(f"the chat template refuses this conversation: {error}") from error


def _reply_edges(tokenizer, messages: list[dict], template: str, text: str) -> list[int]:
    """Return start, end, start, end, ... of the replies in the rendered `text`, in characters."""
    edges, end_token = [], tokenizer.eos_token
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before = _render(tokenizer, messages[:i], template, reply=True)
            through = _render(tokenizer, messages[: i + 1], template)
            end = through.rfind(end_token, len(before))
            if not (text.startswith(through) and through.startswith(before)) or end < 0:
                raise TextError(
                    f"the chat template does not keep turn {i} in place or end it with {end_token!r}, "
                    'so its reply cannot be told from the rest; use template "vicuna" or "chatml"'
                )
            edges += [len(before), end + len(end_token)]
    return edges


def _encode_cut(tokenizer, text: str, edges: list[int], add_bos: bool) -> tuple[list[int], list[int]]:
    """Encode `text` so that no token crosses one of its `edges`; return the ids and the edges in tokens."""

    def encode(start: int, end: int) -> list[int]:
        return tokenizer.encode(text[start:end], add_special_tokens=add_bos and start == 0)

    settled, known = 0, []  # text[:settled] is cut off from what follows, and encoded as `known`
    ids, cuts = encode(0, len(text)), []
    for edge in edges:
        head = known + encode(settled, edge)
        if ids[: len(head)] != head:
            settled, known = edge, head
            ids = head + encode(edge, len(text))
        cuts.append(len(head))
    return ids, cuts


def _check(messages: list[dict], last: str) -> None:
    """Raise TextError unless turns are [system,] user, assistant, user, ... with text, ending with `last`."""
    if not messages:
        raise TextError("the prompt is empty: there is no message")
    turns = messages[1:] if messages[0].get("role") == "system" else messages
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise TextError(f"message {i}: role {role!r} is unknown: expected one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise TextError(f"message {i}: the {role} turn is empty: expected text")
    for i, message in enumerate(turns, start=len(messages) - len(turns)):
        expected = ("user", "assistant")[(i - len(messages) + len(turns)) % 2]
        if message["role"] != expected:
            raise TextError(f"message {i}: a {message['role']} turn where the {expected} should speak")
    if messages[-1]["role"] != last:
        raise TextError(f"the last message is a {messages[-1]['role']} turn, expected one of the {last}")
