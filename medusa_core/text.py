"""Text and tokens: tokenizers, chat templates, and the masks that keep user turns out of the loss."""

from pathlib import Path

import numpy as np

IGNORED = -100  # label of a token that no loss sees

# Jinja, the language of tokenizer_config.json's own chat_template. A reply ends with the tokenizer's end token.
# Vicuna's space before a reply belongs to the reply: the model writes it, after a prompt that ends in "ASSISTANT:".
_VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = \"A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\" %}"
    "{% set turns = messages %}{% endif %}{{ system }} "
    "{% for turn in turns %}{% if turn['role'] == 'user' %}{{ 'USER: ' + turn['content'] }}"
    "{% else %}{{ ' ASSISTANT: ' + turn['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
_CHATML = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + "
    "('<|im_end|>' if turn['role'] != 'assistant' else eos_token) + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEMPLATES = {"vicuna": _VICUNA, "chatml": _CHATML, "model": None}
