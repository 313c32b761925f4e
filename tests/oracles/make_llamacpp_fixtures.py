"""Records what llama.cpp makes of the embedded GGUF file: an oracle that shares no code with our conversion.

    pip install llama-cpp-python -e .[reference] && python tests/oracles/make_llamacpp_fixtures.py

Writes tests/fixtures/llamacpp.json: {"version", "texts": [{"text", "ids"}], "chats": [{"messages", "ids"}]}, the
token ids of texts that are hard to split and of prompts through the file's own chat template. Then it compares
next-token distributions after the ten prompts of embedded.json: llama.cpp computes with the 4-bit weights and
8-bit activations, so they are close to ours and not equal. A conversion that is wrong somewhere is far off, and
stops the script.
"""

import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from make_base_fixtures import FIXTURES

from medusa_core.convert import fetch_gguf

CLOSE_KL, CLOSE_AGREEMENT = 0.05, 0.9
TEXTS = [
    "Hello world",
    " Hello  world ",
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "\t\tindented\twith tabs\n    and spaces\n",
    "line one\r\nline two\r\n",
    "trailing spaces   \n   leading spaces",
    "a\u00a0b\u2003c\u3000d\u200be",
    "It's we're I'll they'd you've I'm don't IT'S WE'RE",
    "3.14159 and 1,234,567 and 0x1F and 2024-02-29 and 1e-5",
    "½ ² Ⅷ ٣ 四 ৪",
    "The price is $5.99 (or €4.50), 50% off!!! #sale @shop",
    "snake_case camelCase kebab-case SCREAMING_CASE a.b.c::d->e",
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // dot",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
    '<div class="x">&amp; <br/></div>\n{"key": [1, 2, {"a": null}]}',
    "\\begin{equation} \\int_0^\\infty e^{-x^2} dx = \\frac{\\sqrt{\\pi}}{2} \\end{equation}",
    "Ça va? L'été à Nîmes, où l'on mange des crêpes.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "¿Dónde está la biblioteca? ¡Allí, señor!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "מזג האוויר היום יפה",
    "مرحبا بالعالم، كيف حالك؟",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "สวัสดีชาวโลก",
    "你好，世界！今天天气怎么样？",
    "こんにちは、世界。カタカナとひらがな。",
    "안녕하세요 세계",
    "Xin chào thế giới, tiếng Việt có dấu",
    "e\u0301 versus \u00e9, ﬁ versus fi, Å versus A\u030a",
    "😀😃 🎉🎊 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷🇯🇵 ❤️ ☃",
    "text😀text 😀 text",
    "∀x∈ℝ: x² ≥ 0 ∧ ∑ᵢ aᵢ → ∞",
    "𝓗𝓮𝓵𝓵𝓸 𐍈 🜚",
    "<|im_start|>user\nhi<|im_end|>\n",
    "a<|endoftext|>b <|im_end|> c <repo_name>d<file_sep>",
    "<|im_start |> <|im_en d|> <|not_special|>",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa !!!!!!!!!!!!!!!! ----------------",
]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Hello!\n\nHow are you? 😀"},
    ],
    [
        {"role": "user", "content": "def f(x):\n    return x"},
        {"role": "assistant", "content": "That is the identity.\n"},
        {"role": "user", "content": "  1234 你好  "},
    ],
]


def main() -> None:
    """Write the token ids, then check the distributions."""
    with tempfile.TemporaryDirectory() as folder:
        model = llama_cpp.Llama(str(fetch_gguf(Path(folder))), n_ctx=512, logits_all=True, verbose=False)
    recorded = {
        "version": llama_cpp.__version__,
        "texts": [{"text": text, "ids": tokens(model, text)} for text in TEXTS],
        "chats": [{"messages": chat, "ids": tokens(model, prompt(model, chat))} for chat in CHATS],
    }
    (FIXTURES / "llamacpp.json").write_text(json.dumps(recorded, indent=1) + "\n")
    check_distributions(model)


def tokens(model, text: str) -> list[int]:
    """Return llama.cpp's token ids, special tokens recognised and none added."""
    return model.tokenize(text.encode(), add_bos=False, special=True)


def prompt(model, chat: list[dict]) -> str:
    """Render the chat template that the GGUF file brings."""
    end, begin = (model._model.token_get_text(token) for token in (model.token_eos(), model.token_bos()))
    template = model.metadata["tokenizer.chat_template"]
    return Jinja2ChatFormatter(template, eos_token=end, bos_token=begin)(messages=chat).prompt


def check_distributions(model) -> None:
    """Stop unless llama.cpp agrees with embedded.npz about the most likely token and its probability."""
    prompts = json.loads((FIXTURES / "embedded.json").read_text())["prompts"]
    arrays = np.load(FIXTURES / "embedded.npz")
    agreed, divergences = [], []
    for i, entry in enumerate(prompts):
        model.reset()
        model.eval(entry["ids"])
        theirs = log_softmax(np.array(model.scores)[entry["positions"]])  # (P, V)
        ours = arrays[f"{i}/top_logits"] - arrays[f"{i}/logsumexp"][:, None]  # (P, 5)
        same = np.take_along_axis(theirs, arrays[f"{i}/top_ids"], axis=1)
        divergences += (np.exp(ours) * (ours - same)).sum(axis=1).tolist()
        agreed += (theirs.argmax(axis=1) == arrays[f"{i}/top_ids"][:, 0]).tolist()
    divergence, agreement = np.mean(divergences), np.mean(agreed)
    print(
        f"{len(agreed)} positions: same best token {agreement:.0%}, mean divergence over the top 5 {divergence:.4f}"
    )
    if divergence > CLOSE_KL or agreement < CLOSE_AGREEMENT:
        sys.exit("llama.cpp computes something else with this file: the conversion is wrong")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Normalise (..., V) logits to log-probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
