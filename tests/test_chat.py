"""Talking to a model: pieces add up to the answer, and the answer is that of the other commands."""

from types import SimpleNamespace

import pytest

from medusa_core import answers, chat, text
from medusa_core.convert import embedded

PROMPT = "Name three fruits and draw a smiling face. 🙂"


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8; 0 is special."""

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return bytes(token for token in tokens if token).decode("utf-8", errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_character_that_steps_cut_in_two_is_shown_whole(size):
    written = "Grüße 🙂!"
    tokens = [*written.encode(), 0]
    steps = [SimpleNamespace(tokens=tokens[i : i + size]) for i in range(0, len(tokens), size)]
    found = list(chat.pieces(Bytes(), steps))
    assert "".join(found) == written and not any(chat.UNFINISHED in piece for piece in found)


def test_an_answer_that_ends_inside_a_character_says_so():
    steps = [SimpleNamespace(tokens=list("a🙂".encode()[:3]))]
    assert list(chat.pieces(Bytes(), steps)) == ["a" + chat.UNFINISHED]


def test_a_prompt_is_answered_as_everywhere_and_conversations_go_on(capsys, monkeypatch):
    assert chat.main(["--prompt", PROMPT, "--max-new-tokens", "24"]) == 0
    said = capsys.readouterr()
    base = answers.load_base("embedded", "none")
    tokenizer = text.load_tokenizer(embedded())
    settings = answers.Settings(24)

    def plain(*turns):
        trace = answers.answer(base, answers.Drafting(), answers.prompt(tokenizer, turns), settings)
        return tokenizer.decode(trace.tokens, skip_special_tokens=True)

    first = plain(PROMPT)
    assert said.out == first + "\n" and "tokens, " in said.err and " a second]" in said.err
    turns = iter([PROMPT, "too long " * 9000, "And three more?", "/new", PROMPT, ""])
    monkeypatch.setattr("builtins.input", lambda _: next(turns))
    assert chat.main(["--max-new-tokens", "24"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{first}\n{plain(PROMPT, first, 'And three more?')}\n{first}\n"
    assert "error: the prompt has" in said.err and "or type /new" in said.err and "indexing" not in said.err


def test_an_answer_can_be_dropped_and_a_conversation_interrupted(monkeypatch, capsys):
    heard = []

    def answer(turns):
        heard.append(turns)
        if turns[-1] == "long":
            raise KeyboardInterrupt
        return turns[-1].upper()

    turns = iter(["a", "long", "b"])

    def typed(_):
        try:
            return next(turns)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("builtins.input", typed)
    chat.converse(answer)
    assert heard == [["a"], ["a", "A", "long"], ["a", "A", "b"]]
    assert "[dropped]" in capsys.readouterr().err


def test_an_empty_prompt_is_an_error_and_heads_are_listed(capsys):
    assert chat.main(["--prompt", " "]) == 1
    assert "--prompt is empty" in capsys.readouterr().err
    assert chat.main(["--heads", "list"]) == 0
    assert "medusa1" in capsys.readouterr().out.split()
