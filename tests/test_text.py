"""Prompts and label masks, checked token by token against the text."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from medusa_core.convert import embedded
from medusa_core.text import IGNORED, TEMPLATES, TextError, chat_ids, label_mask, load_tokenizer

CONVERSATIONS = {
    "one turn": ["Hi", "Hello there."],
    "three turns": ["a", "b", "c\n", "d", "  e", "f"],
    "reply begins with newlines": ["Say it.", "\n\nHere it is:\n\n1. x\n"],
    "reply begins with spaces": ["Say it.", "   indented\n   code", "more", " x"],
    "code": ["def f(x):\n\treturn x", "```python\ndef f(x):\n    return x * 2\n```\n\n"],
    "languages and emoji": ["¿Qué tal? 你好 😀👩‍👩‍👧", "素晴らしい! Ça va — 🎉 مرحبا ñ"],
    "digits": ["12345", "67 890\n11"],
    "colons and quotes": ["USER: hi ASSISTANT: no", "'s 've ASSISTANT: 'yes'"],
    "with a system turn": ["Hi", "Hello."],
}


def messages_of(name: str) -> list[dict]:
    texts = CONVERSATIONS[name]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": "Be brief."}] * (name == "with a system turn") + turns


def byte_level(trim: bool) -> PreTrainedTokenizerFast:
    """A small byte-level BPE like Qwen's or Llama 3's, that likes to merge newlines and spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["\n\n" * 3, "assistant\n\n\n", "   indented", "Hello there.", "ASSISTANT: yes", "user\n"] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=special)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>"
    )


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A small BPE with Llama's habits: a space before the text, spaces as U+2581, bytes as fallback, <s> in front."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    corpus = [text for texts in CONVERSATIONS.values() for text in texts] + ["USER: x ASSISTANT: y"] * 9
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special[:3], initial_alphabet=special[3:])
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def tokenizers_by_name() -> dict[str, PreTrainedTokenizerFast]:
    return {
        "embedded": load_tokenizer(embedded()),
        "byte-level": byte_level(trim=False),
        "byte-level, trimmed offsets": byte_level(trim=True),
    }


def learnt_runs(ids: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Return the runs of consecutive tokens that have labels."""
    learnt = np.flatnonzero(labels != IGNORED)
    return [ids[run].tolist() for run in np.split(learnt, np.flatnonzero(np.diff(learnt) > 1) + 1)]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("which", ["embedded", "byte-level", "byte-level, trimmed offsets"])
def test_labels_are_the_replies_and_their_end_tokens_and_nothing_else(
    tokenizers_by_name, which, template, conversation
):
    tokenizer = tokenizers_by_name[which]
    if template == "model" and which != "embedded":
        tokenizer.chat_template = TEMPLATES["chatml"]
    messages = messages_of(conversation)
    ids, labels = label_mask(tokenizer, messages, template)
    assert ids.dtype == labels.dtype == np.int32 and ids.shape == labels.shape
    assert set(ids[labels != IGNORED]) == set(labels[labels != IGNORED])
    space = " " if template == "vicuna" else ""  # the model writes it, after "ASSISTANT:"
    replies = [
        space + turn["content"] + tokenizer.eos_token for turn in messages if turn["role"] == "assistant"
    ]
    assert [tokenizer.decode(run) for run in learnt_runs(ids, labels)] == replies
    rendered = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[template], tokenize=False)
    assert tokenizer.decode(ids) == rendered


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_precedes_the_first_reply_is_the_prompt_that_generation_uses(
    tokenizers_by_name, template, conversation
):
    messages = messages_of(conversation)
    for tokenizer in tokenizers_by_name.values():
        ids, labels = label_mask(tokenizer, messages, template)
        first = int(np.argmax(labels != IGNORED))
        reply = [turn["role"] for turn in messages].index("assistant")
        assert ids[:first].tolist() == chat_ids(tokenizer, messages[:reply], template)


@pytest.mark.parametrize("conversation", ["one turn", "three turns", "colons and quotes", "digits"])
def test_a_sentencepiece_tokenizer_learns_the_same_replies(conversation):
    tokenizer = sentencepiece_like()
    messages = messages_of(conversation)
    ids, labels = label_mask(tokenizer, messages, "vicuna")
    assert ids[0] == tokenizer.bos_token_id and (ids == tokenizer.bos_token_id).sum() == 1
    replies = [turn["content"] + "</s>" for turn in messages if turn["role"] == "assistant"]
    assert [tokenizer.decode(run) for run in learnt_runs(ids, labels)] == replies


def test_a_merge_across_the_edge_of_a_reply_is_cut():
    """The tokenizer would join the header's newline to the reply's; in generation it never can."""
    tokenizer = byte_level(trim=False)
    messages = messages_of("reply begins with newlines")
    whole = tokenizer.encode(
        tokenizer.apply_chat_template(messages, chat_template=TEMPLATES["chatml"], tokenize=False)
    )
    ids, _ = label_mask(tokenizer, messages, "chatml")
    assert len(ids) > len(whole)


def test_vicuna_reads_as_its_authors_wrote_it(tokenizers_by_name):
    """The layout of FastChat's vicuna_v1.1: two separators, a space and the end token."""
    tokenizer = sentencepiece_like()
    messages = messages_of("three turns")[:4]
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    )
    text = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES["vicuna"], tokenize=False)
    assert text == f"{system} USER: a ASSISTANT: b</s>USER: c\n ASSISTANT: d</s>"
    asked = tokenizer.apply_chat_template(
        messages[:3], chat_template=TEMPLATES["vicuna"], tokenize=False, add_generation_prompt=True
    )
    assert asked == f"{system} USER: a ASSISTANT: b</s>USER: c\n ASSISTANT:"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the prompt is empty"),
        ([user("")], "message 0: the user turn is empty"),
        ([user(" \n")], "message 0: the user turn is empty"),
        ([user(None)], "message 0: the user turn is empty"),
        ([user("a"), user("b")], "message 1: a user turn where the assistant should speak"),
        ([assistant("a")], "message 0: a assistant turn where the user should speak"),
        ([user("a"), {"role": "tool", "content": "b"}], "message 1: role 'tool' is unknown"),
        ([{"role": "system", "content": "s"}], "the last message is a system turn"),
        ([user("a"), {"role": "system", "content": "s"}], "message 1: a system turn where the assistant"),
        ([user("a"), assistant("b")], "the last message is a assistant turn"),
    ],
)
def test_malformed_prompts_are_refused_by_message(messages, message):
    with pytest.raises(TextError, match=message):
        chat_ids(byte_level(trim=False), messages, "chatml")


def test_a_conversation_without_a_reply_or_with_an_unknown_template_is_refused():
    with pytest.raises(TextError, match="the last message is a user turn"):
        label_mask(byte_level(trim=False), [user("a")], "chatml")
    with pytest.raises(
        TextError, match="template 'alpaca' is unknown: expected one of vicuna, chatml, model"
    ):
        chat_ids(byte_level(trim=False), [user("a")], "alpaca")
    with pytest.raises(TextError, match="brings no chat template"):
        chat_ids(byte_level(trim=False), [user("a")])


def test_a_template_that_moves_earlier_turns_is_refused():
    tokenizer = byte_level(trim=False)
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATES["chatml"]
    with pytest.raises(TextError, match="does not keep turn 1 in place"):
        label_mask(tokenizer, messages_of("three turns"))


def test_what_the_template_itself_refuses_is_told_in_its_words():
    tokenizer = byte_level(trim=False)
    tokenizer.chat_template = "{{ raise_exception('roles must take turns') }}"
    with pytest.raises(TextError, match="refuses this conversation: roles must take turns"):
        chat_ids(tokenizer, [user("a")])


def test_half_a_character_is_no_text():
    with pytest.raises(TextError, match="not UTF-8 text"):
        chat_ids(byte_level(trim=False), [user("a\udcff")], "chatml")


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(TextError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)
