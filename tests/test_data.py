"""Readers name the file and the place of a fault; token sets come back as written, split by prompt."""

import json
from pathlib import Path

import pytest

from medusa_core import data

ROOT = Path(__file__).resolve().parents[1]
SHAREGPT = ROOT / "tests" / "fixtures" / "sharegpt.json"
QUESTIONS = ROOT / "artifacts" / "data" / "questions.jsonl"


def lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def question(name=1, category="math", turns=("What is 2 + 2?",)):
    return {"question_id": name, "category": category, "turns": list(turns)}


# ---------------------------------------------------------------- readers


def test_sharegpt_roles_and_text_come_through_unchanged():
    rows = data.read_sharegpt(SHAREGPT)
    assert rows["id"] == ["garden", "pirate", "empty", "naïve café ☕", "one-sided"]
    assert [m["role"] for m in rows[1]["messages"]] == ["system", "user", "assistant"]
    assert rows[3]["messages"][1]["content"] == 'Print "hi" in Python,\nplease.'
    assert rows[4]["messages"][1] == {"role": "assistant", "content": "The Loire."}
    assert rows[2]["messages"] == []


def test_sharegpt_human_turns_become_questions_numbered_by_position():
    rows = data.read_questions(SHAREGPT)
    assert [(row["question_id"], row["turns"]) for row in rows] == [
        (1, ["When should I plant tulips?", "And how deep?"]),
        (2, ["What is the time?"]),
        (4, ['Print "hi" in Python,\nplease.']),
        (5, ["Name a river in France.", "Thank you."]),
    ]


def test_mt_bench_lines_keep_their_order_and_skip_blank_lines(tmp_path):
    path = lines(
        tmp_path / "q.jsonl", question(7, turns=["a", "b\u2028c"]), "\n", {**question(3), "reference": ["4"]}
    )
    rows = list(data.read_questions(path))
    assert rows == [question(7, turns=["a", "b\u2028c"]), question(3)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"question_id": 2, "turns": [}\n', r"q\.jsonl:2: not valid JSON.*column 30"),
        ("[1]\n", r"q\.jsonl:2: expected a JSON object, found a list"),
        ({"question_id": 2, "turns": ["x"]}, r"q\.jsonl:2: key 'category' is missing"),
        ({"category": "x", "turns": ["x"]}, r"q\.jsonl:2: key 'question_id' is missing"),
        (question(2, turns=[]), r"q\.jsonl:2: key 'turns' must be a list"),
        (question(2, turns=["ok", " \n"]), r"q\.jsonl:2: turn 2 is empty"),
        (question(1), r"question_id 1 was already used at .*q\.jsonl:1"),
        (question("b"), r"q\.jsonl:2: question_id 'b' must be an integer or a string, the same kind"),
        (question(10**30), r"q\.jsonl:2: question_id 10+ does not fit 64 bits"),
        (question(2, turns=["half \ud83d"]), r"q\.jsonl:2: holds half a character"),
        (question(2, category=None), r"q\.jsonl:2: category must be a string, found null"),
    ],
)
def test_a_bad_question_is_named_with_file_line_and_key(tmp_path, bad, message):
    with pytest.raises(data.DataError, match=message):
        data.read_questions(lines(tmp_path / "q.jsonl", question(1), bad))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"conversations": []},\n{"conversations": ]}\n]', r"s\.json:3: not valid JSON"),
        ('{"conversations": []}', r"expected a JSON list of conversations, found an object"),
        ('[{"conversations": []}, {"messages": []}]', r"s\.json: item 1: expected"),
        (
            '[{"conversations": [{"from": "human", "value": 3}]}]',
            r"item 0, message 0: key 'value' must be a string",
        ),
        (
            '[{"conversations": [{"from": "alien", "value": "x"}]}]',
            r"item 0, message 0: 'from' is 'alien', not one of",
        ),
        (
            '[{"conversations": [{"from": "human", "value": "half \\ud83d"}]}]',
            r"s\.json: item 0, message 0: holds half a character",
        ),
        ("[]", r"no conversation or question found"),
    ],
)
def test_a_bad_conversation_is_named_with_file_and_item(tmp_path, text, message):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(data.DataError, match=message):
        data.read_sharegpt(path)


def test_an_empty_human_turn_in_a_sharegpt_question_file_is_an_error(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('[{"conversations": [{"from": "human", "value": ""}]}]')
    with pytest.raises(data.DataError, match="item 0: turn 1 is empty"):
        data.read_questions(path)


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(data.DataError, match="absent.jsonl: no such file"):
        data.read_questions(tmp_path / "absent.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(data.DataError, match="b.jsonl: not UTF-8"):
        data.read_questions(tmp_path / "b.jsonl")


# ---------------------------------------------------------------- shipped prompts


def test_the_shipped_questions_have_eight_categories_of_ten_with_two_turns():
    rows = list(data.read_questions(QUESTIONS))
    assert [row["question_id"] for row in rows] == list(range(1, 81))
    categories = [row["category"] for row in rows]
    assert len(set(categories)) == 8 and all(categories.count(name) == 10 for name in categories)
    assert all(len(row["turns"]) == 2 for row in rows)
    assert max(len(turn.split()) for row in rows for turn in row["turns"]) < 120


def test_a_prompt_file_names_the_line_without_a_prompt(tmp_path):
    with pytest.raises(data.DataError, match=r"p\.jsonl:2: key 'prompt'"):
        data.read_prompts(lines(tmp_path / "p.jsonl", {"prompt": "a"}, {"text": "b"}))
