"""Replies of conversations held elsewhere become rows of a token set: which tokens, which split, what is left out."""

import json

import pytest
from test_text import byte_level, messages_of

from medusa_core import replies, text
from medusa_core.convert import embedded
from medusa_core.data import DataError, read_questions
from medusa_core.token_set import read_tokens

LONG = 10_000  # tokens: no conversation here is cut


def conversation(name="three turns", messages=None):
    return {"id": name, "messages": messages or messages_of(name)}


def sharegpt(path, *conversations):
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    items = [
        {"id": name, "conversations": [{"from": roles[role], "value": words} for role, words in turns]}
        for name, turns in conversations
    ]
    path.write_text(json.dumps(items))
    return path


def test_a_row_holds_all_that_comes_before_a_reply_and_the_reply_with_its_end():
    tokenizer = byte_level(trim=False)
    rows, left_out = replies.replies(tokenizer, [conversation()], LONG, "chatml")
    assert left_out == [] and len(rows) == 3
    answers = [tokenizer.decode(row["answer_ids"].tolist()) for row in rows]
    assert answers == [f"{words}<|im_end|>" for words in ("b", "d", "f")]
    for place, row in enumerate(rows):
        asked = messages_of("three turns")[: 2 * place + 1]
        assert row["prompt_ids"].tolist() == text.chat_ids(tokenizer, asked, "chatml")


def test_a_conversation_is_cut_where_the_context_ends():
    tokenizer = byte_level(trim=False)
    whole, _ = replies.replies(tokenizer, [conversation()], LONG, "chatml")
    context = len(whole[1]["prompt_ids"]) + 1
    cut, _ = replies.replies(tokenizer, [conversation()], context, "chatml")
    assert len(cut) == 2 and cut[1]["answer_ids"].tolist() == whole[1]["answer_ids"][:1].tolist()
    rows, left_out = replies.replies(tokenizer, [conversation()], len(whole[0]["prompt_ids"]), "chatml")
    assert rows == [] and left_out[0].startswith("three turns: its first question alone fills the model's")


def test_a_greeting_and_an_unanswered_question_are_left_away_and_a_torn_conversation_is_named():
    tokenizer, pair = byte_level(trim=False), messages_of("one turn")
    greeting, question = {"role": "assistant", "content": "Welcome!"}, {"role": "user", "content": "And?"}
    around = conversation("around", [greeting, *pair, question])
    torn = conversation("torn", [pair[0], question, pair[1]])
    silent = conversation("silent", [question])
    rows, left_out = replies.replies(tokenizer, [around, torn, silent], LONG, "chatml")
    assert [tokenizer.decode(row["answer_ids"].tolist()) for row in rows] == ["Hello there.<|im_end|>"]
    assert left_out[0].startswith("torn: message 1: a user turn where the assistant should speak")
    assert left_out[1].startswith("silent: the prompt is empty") and len(left_out) == 2


def test_the_command_writes_a_token_set_whose_conversations_are_not_torn_between_the_splits(tmp_path, capsys):
    many = [(f"c{n}", [("user", f"q{n}"), ("assistant", "yes"), ("user", "more"), ("assistant", "no")])
            for n in range(60)]  # fmt: skip
    asked = ("asked", [("user", "Why does ice float?"), ("assistant", "It is light.")])
    source = sharegpt(tmp_path / "chats.json", *many, asked)
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"question_id": 7, "category": "a", "turns": ["why does ice float"]}))
    out = tmp_path / "t.parquet"
    assert (
        replies.main(list(map(str, ["--conversations", source, "--out", out, "--exclude", questions]))) == 0
    )
    said = capsys.readouterr().out
    assert (
        "120 replies" in said
        and "Conversations left out: 1; the first: asked: asks evaluation question 7" in said
    )
    tokens = read_tokens(out)
    tokenizer = text.load_tokenizer(embedded())
    assert tokenizer.decode(tokens.answer_ids[1].tolist()) == "no<|im_end|>"
    assert tokens.split[0::2].tolist() == tokens.split[1::2].tolist() and set(tokens.split) == {
        "train",
        "held-out",
    }
    assert tokens.metadata["left_out"] == 1 and tokens.metadata["conversations"] == "chats.json"


def test_a_file_without_a_usable_reply_is_an_error_that_says_why(tmp_path, capsys):
    source = sharegpt(tmp_path / "chats.json", ("x", [("user", "a"), ("user", "b"), ("assistant", "c")]))
    assert replies.main(["--conversations", str(source), "--out", str(tmp_path / "t.parquet")]) == 1
    assert (
        "no reply can be used. Conversations left out: 1; the first: x: message 1" in capsys.readouterr().err
    )
    assert not (tmp_path / "t.parquet").exists()
    with pytest.raises(DataError, match="no such file"):
        replies.write_replies(embedded(), tmp_path / "absent.json", tmp_path / "t.parquet")


def test_the_prompts_of_a_sharegpt_file_can_be_answered_too(tmp_path):
    from medusa_core.data import read_prompts

    source = sharegpt(
        tmp_path / "chats.json", ("x", [("system", "s"), ("user", "a"), ("assistant", "c"), ("user", "b")])
    )
    assert read_prompts(source) == ["a"] and read_questions(source)[0]["turns"] == ["a", "b"]
