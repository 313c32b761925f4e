"""Token sets come back as written, and damaged ones are refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medusa_core import data, token_set


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
    written = token_set.write_tokens(tmp_path / "t.parquet", rows, metadata, held_out=0.25)
    read = token_set.read_tokens(tmp_path / "t.parquet")
    assert [r["answer_ids"].tolist() for r in rows] == [a.tolist() for a in read.answer_ids]
    assert [r["prompt_ids"].tolist() for r in rows] == [p.tolist() for p in read.prompt_ids]
    assert read.answer_ids[5].dtype == np.int32 and read.sample.tolist() == [0, 1] * 200
    assert read.metadata == written.metadata == {**metadata, "held_out": 0.25}
    assert read.split.tolist() == written.split.tolist()
    assert read.answer_tokens == sum(len(r["answer_ids"]) for r in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_no_prompt_is_in_both_splits_and_the_shares_are_as_asked(tmp_path):
    tokens = token_set.write_tokens(
        tmp_path / "t.parquet", token_rows(prompts=2000, answers=3), {}, held_out=0.25
    )
    train, held_out = tokens.select("train"), tokens.select("held-out")
    assert len(train) + len(held_out) == len(tokens) == 6000
    assert not {p.tobytes() for p in train.prompt_ids} & {p.tobytes() for p in held_out.prompt_ids}
    assert 0.22 < len(held_out) / len(tokens) < 0.28


def test_the_split_of_a_prompt_does_not_depend_on_the_others(tmp_path):
    rows = token_rows()
    whole = token_set.write_tokens(tmp_path / "a.parquet", rows, {}).split
    part = token_set.write_tokens(tmp_path / "b.parquet", rows[100:], {}).split
    assert whole[100:].tolist() == part.tolist()


def test_thinning_keeps_a_share_of_each_split_spread_over_its_rows():
    answers = [np.full(10, row, np.int32) for row in range(40)]
    prompts = [np.array([row], np.int32) for row in range(40)]
    split = np.array(["held-out" if row % 4 == 0 else "train" for row in range(40)])
    tokens = token_set.TokenSet(prompts, answers, np.zeros(40, np.int32), split, {"seed": 1})
    thin = tokens.thin(train=40, held_out=20)
    assert [int(answer[0]) for answer in thin.answer_ids] == [1, 13, 26, 39, 0, 36]
    assert thin.select("train").answer_tokens == 40 and thin.metadata == {"seed": 1}
    assert tokens.thin(0, 20).select("train").answer_tokens == 300
    assert tokens.thin(10**6, 0).answer_tokens == 400


def test_the_same_answer_to_the_same_prompt_is_written_once(tmp_path):
    rows = [{"prompt_ids": [1, 2], "answer_ids": ids, "sample": n} for n, ids in enumerate([[3], [4], [3]])]
    assert [a.tolist() for a in token_set.write_tokens(tmp_path / "t.parquet", rows, {}).answer_ids] == [
        [3],
        [4],
    ]


@pytest.mark.parametrize("bad", [{"answer_ids": []}, {"prompt_ids": []}, {"answer_ids": [4, -100]}])
def test_a_row_without_tokens_or_with_a_negative_one_is_named_and_nothing_is_written(tmp_path, bad):
    rows = [*token_rows(2, 1), {"prompt_ids": [1], "answer_ids": [2], "sample": 0, **bad}]
    with pytest.raises(data.DataError, match=f"row 2: {next(iter(bad))} must be"):
        token_set.write_tokens(tmp_path / "t.parquet", rows, {})
    assert not list(tmp_path.iterdir())


def test_truncated_and_bit_flipped_token_files_are_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    token_set.write_tokens(path, token_rows(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match="t.parquet: damaged"):
        token_set.read_tokens(path)
    path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(data.DataError, match="t.parquet: damaged"):
        token_set.read_tokens(path)


def test_a_foreign_parquet_file_is_refused_naming_the_column(tmp_path):
    path = tmp_path / "t.parquet"
    token_set.write_tokens(path, token_rows(3), {})
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["sample"]), path)
    with pytest.raises(data.DataError, match="column 'sample' is missing, expected int32"):
        token_set.read_tokens(path)
    column = table.column_names.index("sample")
    pq.write_table(table.set_column(column, "sample", table["sample"].cast(pa.int64())), path)
    with pytest.raises(data.DataError, match="column 'sample' is int64, expected int32"):
        token_set.read_tokens(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(data.DataError, match="no 'medusa_core' metadata"):
        token_set.read_tokens(path)


def test_a_prompt_in_both_splits_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    token_set.write_tokens(
        path, [{"prompt_ids": [1], "answer_ids": [n + 1], "sample": n} for n in range(2)], {}
    )
    table = pq.read_table(path)
    split = pa.array(["train", "held-out"])
    pq.write_table(table.set_column(table.column_names.index("split"), "split", split), path)
    with pytest.raises(data.DataError, match="1 prompts are both in train and held-out"):
        token_set.read_tokens(path)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    token_set.write_tokens(path, token_rows(3), {"seed": 1})

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_set.pq, "write_table", full)
    with pytest.raises(OSError, match="no space left on the disk"):
        token_set.write_tokens(path, token_rows(5), {"seed": 2})
    assert token_set.read_tokens(path).metadata["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_missing_token_set_says_how_to_make_one(tmp_path):
    with pytest.raises(data.DataError, match="medusa_core.distill"):
        token_set.read_tokens(tmp_path / "absent.parquet")
