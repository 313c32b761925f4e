"""Readers name the file and the place of a fault; token sets come back as written, split by prompt."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


# ---------------------------------------------------------------- token sets


def token_rows(prompts=200, answers=2):
    rng = np.random.default_rng(0)
    prompt_ids = [rng.integers(0, 500, rng.integers(1, 9)) for _ in range(prompts)]
    return [
        {"prompt_ids": ids, "answer_ids": rng.integers(0, 500, rng.integers(1, 20)), "sample": sample}
        for ids in prompt_ids
        for sample in range(answers)
    ]


def test_a_token_set_comes_back_as_written(tmp_path):
    rows = token_rows()
    metadata = {"seed": 3, "settings": {"temperature": 0.3}}
    written = data.write_tokens(tmp_path / "t.parquet", rows, metadata, held_out=0.25)
    read = data.read_tokens(tmp_path / "t.parquet")
    assert [r["answer_ids"].tolist() for r in rows] == [a.tolist() for a in read.answer_ids]
    assert [r["prompt_ids"].tolist() for r in rows] == [p.tolist() for p in read.prompt_ids]
    assert read.answer_ids[5].dtype == np.int32 and read.sample.tolist() == [0, 1] * 200
    assert read.metadata == written.metadata == {**metadata, "held_out": 0.25}
    assert read.split.tolist() == written.split.tolist()
    assert read.answer_tokens == sum(len(r["answer_ids"]) for r in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_no_prompt_is_in_both_splits_and_the_shares_are_as_asked(tmp_path):
    tokens = data.write_tokens(tmp_path / "t.parquet", token_rows(prompts=2000, answers=3), {}, held_out=0.25)
    train, held_out = tokens.select("train"), tokens.select("held-out")
    assert len(train) + len(held_out) == len(tokens) == 6000
    assert not {p.tobytes() for p in train.prompt_ids} & {p.tobytes() for p in held_out.prompt_ids}
    assert 0.22 < len(held_out) / len(tokens) < 0.28


def test_the_split_of_a_prompt_does_not_depend_on_the_others(tmp_path):
    rows = token_rows()
    whole = data.write_tokens(tmp_path / "a.parquet", rows, {}).split
    part = data.write_tokens(tmp_path / "b.parquet", rows[100:], {}).split
    assert whole[100:].tolist() == part.tolist()


def test_thinning_keeps_a_share_of_each_split_spread_over_its_rows():
    answers = [np.full(10, row, np.int32) for row in range(40)]
    prompts = [np.array([row], np.int32) for row in range(40)]
    split = np.array(["held-out" if row % 4 == 0 else "train" for row in range(40)])
    tokens = data.TokenSet(prompts, answers, np.zeros(40, np.int32), split, {"seed": 1})
    thin = tokens.thin(train=40, held_out=20)
    assert [int(answer[0]) for answer in thin.answer_ids] == [1, 13, 26, 39, 0, 36]
    assert thin.select("train").answer_tokens == 40 and thin.metadata == {"seed": 1}
    assert tokens.thin(0, 20).select("train").answer_tokens == 300
    assert tokens.thin(10**6, 0).answer_tokens == 400


def test_the_same_answer_to_the_same_prompt_is_written_once(tmp_path):
    rows = [{"prompt_ids": [1, 2], "answer_ids": ids, "sample": n} for n, ids in enumerate([[3], [4], [3]])]
    assert [a.tolist() for a in data.write_tokens(tmp_path / "t.parquet", rows, {}).answer_ids] == [[3], [4]]


@pytest.mark.parametrize("bad", [{"answer_ids": []}, {"prompt_ids": []}, {"answer_ids": [4, -100]}])
def test_a_row_without_tokens_or_with_a_negative_one_is_named_and_nothing_is_written(tmp_path, bad):
    rows = [*token_rows(2, 1), {"prompt_ids": [1], "answer_ids": [2], "sample": 0, **bad}]
    with pytest.raises(data.DataError, match=f"row 2: {next(iter(bad))} must be"):
        data.write_tokens(tmp_path / "t.parquet", rows, {})
    assert not list(tmp_path.iterdir())


def test_truncated_and_bit_flipped_token_files_are_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    data.write_tokens(path, token_rows(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match="t.parquet: damaged"):
        data.read_tokens(path)
    path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(data.DataError, match="t.parquet: damaged"):
        data.read_tokens(path)


def test_a_foreign_parquet_file_is_refused_naming_the_column(tmp_path):
    path = tmp_path / "t.parquet"
    data.write_tokens(path, token_rows(3), {})
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["sample"]), path)
    with pytest.raises(data.DataError, match="column 'sample' is missing, expected int32"):
        data.read_tokens(path)
    column = table.column_names.index("sample")
    pq.write_table(table.set_column(column, "sample", table["sample"].cast(pa.int64())), path)
    with pytest.raises(data.DataError, match="column 'sample' is int64, expected int32"):
        data.read_tokens(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(data.DataError, match="no 'medusa_core' metadata"):
        data.read_tokens(path)


def test_a_prompt_in_both_splits_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    data.write_tokens(path, [{"prompt_ids": [1], "answer_ids": [n + 1], "sample": n} for n in range(2)], {})
    table = pq.read_table(path)
    split = pa.array(["train", "held-out"])
    pq.write_table(table.set_column(table.column_names.index("split"), "split", split), path)
    with pytest.raises(data.DataError, match="1 prompts are both in train and held-out"):
        data.read_tokens(path)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    data.write_tokens(path, token_rows(3), {"seed": 1})

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.pq, "write_table", full)
    with pytest.raises(OSError, match="no space left on the disk"):
        data.write_tokens(path, token_rows(5), {"seed": 2})
    assert data.read_tokens(path).metadata["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_missing_token_set_says_how_to_make_one(tmp_path):
    with pytest.raises(data.DataError, match="medusa_core.distill"):
        data.read_tokens(tmp_path / "absent.parquet")
