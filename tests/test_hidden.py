"""Hidden states kept on disk: what a row is, what a batch holds, resuming, and damage."""

import dataclasses
import threading

import numpy as np
import pytest
from fake_base import FakeBase, token_set

from medusa_core import hidden
from medusa_core.hidden import HiddenError
from medusa_core.losses import NO_TARGET


@pytest.fixture
def base(tmp_path):
    return FakeBase(tmp_path / "base")


def test_rows_are_the_states_the_answer_tokens_were_chosen_from(base, tmp_path):
    tokens = token_set(7)
    seen = hidden.compute(base, tokens, root=tmp_path)
    row = 0
    for prompt, answer in zip(tokens.prompt_ids, tokens.answer_ids):
        states = base.states(np.concatenate([prompt, answer]))
        for i, token in enumerate(answer):
            np.testing.assert_allclose(seen.states[row], states[len(prompt) - 1 + i], atol=1e-3)
            assert seen.tokens[row] == token
            assert seen.end[row] == row + len(answer) - i
            row += 1
    assert row == len(seen.tokens) == len(seen.states)


def test_a_batch_holds_the_next_tokens_and_the_states_they_were_chosen_from(base, tmp_path):
    seen = hidden.compute(base, token_set(6), root=tmp_path)
    heads, block = 3, 4
    blocks = [5, 0, len(seen.tokens) // block - 1]
    batch = seen.batch(np.array(blocks), block, heads, size=16)
    assert batch.hidden.shape == (16, 16) and batch.hidden.dtype == np.float32
    crossed = 0
    for n, row in enumerate(b * block + i for b in blocks for i in range(block)):
        assert np.array_equal(batch.hidden[n], seen.states[row].astype(np.float32))
        for k in range(heads + 1):
            inside = row + k < seen.end[row]
            crossed += not inside
            assert batch.tokens[k, n] == (seen.tokens[row + k] if inside else NO_TARGET)
            if k and inside:
                teacher = batch.teacher_hidden[batch.teacher_row[k - 1, n]]
                assert np.array_equal(teacher, seen.states[row + k].astype(np.float32))
    assert crossed  # the blocks chosen do cross the end of a sequence
    assert (batch.tokens[:, 12:] == NO_TARGET).all()  # padding
    assert batch.teacher_row.max() < len(batch.teacher_hidden)


def test_a_batch_of_more_blocks_than_there_are_is_refused(base, tmp_path):
    seen = hidden.compute(base, token_set(6), root=tmp_path)
    blocks = len(seen.tokens) // 4
    with pytest.raises(
        ValueError, match=f"block {blocks} of 4 positions was asked for, of {blocks}: take more"
    ):
        seen.batch(np.array([0, blocks]), 4, heads=3, size=8)


def test_states_are_computed_once_for_the_same_model_tokens_and_dtype(base, tmp_path):
    tokens = token_set(5)
    hidden.compute(base, tokens, root=tmp_path)
    passes = base.passes
    again = hidden.compute(base, tokens, root=tmp_path)
    assert base.passes == passes
    keys = {
        again.key,
        hidden.digest(base, tokens, "bfloat16"),
        hidden.digest(base, token_set(5, seed=1), "float16"),
    }
    assert len(keys | {hidden.digest(FakeBase(tmp_path / "other", seed=1), tokens, "float16")}) == 4


def test_states_of_an_adapted_base_and_of_answers_that_begin_elsewhere_have_another_name(base):
    tokens = token_set(1)
    first, *rest = tokens.answer_ids[0].tolist()
    moved = dataclasses.replace(
        tokens, prompt_ids=[np.append(tokens.prompt_ids[0], first)], answer_ids=[np.array(rest)]
    )
    keys = {hidden.digest(base, tokens, "float16"), hidden.digest(base, moved, "float16")}
    base.adapters = "digest of the adapters that were merged into it"
    assert len(keys | {hidden.digest(base, tokens, "float16")}) == 3


def test_bfloat16_states_are_the_rounded_ones(base, tmp_path):
    tokens = token_set(3)
    fine = hidden.compute(base, tokens, root=tmp_path).states
    coarse = hidden.compute(base, tokens, "bfloat16", root=tmp_path).states
    np.testing.assert_allclose(coarse.astype(np.float32), fine.astype(np.float32), rtol=2**-8, atol=1e-3)


def test_an_interrupted_computation_continues_where_it_stopped(base, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden, "PASS_TOKENS", 30)
    monkeypatch.setattr(hidden, "PASSES_PER_SAVE", 2)
    tokens = token_set(12)
    whole = np.array(hidden.compute(base, tokens, root=tmp_path / "whole").states)
    passes = base.passes

    class Interrupted(FakeBase):
        def __call__(self, *arguments):
            if self.passes == 5:
                raise KeyboardInterrupt
            return super().__call__(*arguments)

    broken = Interrupted(tmp_path / "base")
    with pytest.raises(KeyboardInterrupt):
        hidden.compute(broken, tokens, root=tmp_path / "parts")
    base.passes = 0
    resumed = hidden.compute(base, tokens, root=tmp_path / "parts")
    assert base.passes == passes - 4  # two saves of two passes
    assert np.array_equal(resumed.states, whole)


def test_a_file_cut_short_is_refused_by_name(base, tmp_path):
    tokens = token_set(3)
    key = hidden.compute(base, tokens, root=tmp_path).key
    path = tmp_path / f"hidden-{key}" / hidden.STATES
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(HiddenError, match=f"{path} has .* delete"):
        hidden.compute(base, tokens, root=tmp_path)


@pytest.mark.parametrize(
    "prompt, answer, message",
    [
        ([1] * 40, [2] * 30, "row 1 .* 70 tokens, but the model takes 64"),
        ([], [1], "empty prompt"),
        ([1], [], "empty answer"),
    ],
)
def test_sequences_the_model_cannot_take_are_refused(base, tmp_path, prompt, answer, message):
    tokens = token_set(2)
    tokens.prompt_ids[1], tokens.answer_ids[1] = np.array(prompt, np.int32), np.array(answer, np.int32)
    with pytest.raises(HiddenError, match=message):
        hidden.compute(base, tokens, root=tmp_path)


def test_states_that_float16_cannot_hold_are_refused_with_the_way_out(base, tmp_path, monkeypatch):
    monkeypatch.setattr(hidden, "_forward", lambda base, texts: [np.full((len(t), 16), 1e5) for t in texts])
    with pytest.raises(HiddenError, match="overflow float16: use bfloat16"):
        hidden.compute(base, token_set(2), root=tmp_path)
    assert np.isfinite(
        hidden.compute(base, token_set(2), "bfloat16", root=tmp_path).states.astype(np.float32)
    ).all()


def test_the_draft_vocabulary_is_the_most_frequent_answer_tokens():
    tokens = token_set(1)
    tokens.prompt_ids[0] = np.array([9, 9, 9, 9], np.int32)  # prompts do not count
    tokens.answer_ids[0] = np.array([5, 5, 5, 8, 8, 2, 30, 30], np.int32)
    assert hidden.most_frequent(tokens, 3).tolist() == [5, 8, 30]
    assert hidden.most_frequent(tokens, 3, always=(49,)).tolist() == [5, 8, 49]
    assert hidden.most_frequent(tokens, 6).tolist() == [0, 1, 2, 5, 8, 30]  # unseen ones from the lowest


def test_two_programs_that_need_the_same_states_compute_them_once(base, tmp_path, monkeypatch):
    tokens, fill, begun = token_set(7), hidden._fill, threading.Event()

    def slowly(*arguments):
        assert not begun.is_set(), "the second program computes what the first is computing"
        begun.set()
        second.start()
        second.join(0.3)  # it waits
        assert second.is_alive()
        fill(*arguments)

    monkeypatch.setattr(hidden, "_fill", slowly)
    found = []
    second = threading.Thread(target=lambda: found.append(hidden.compute(base, tokens, root=tmp_path)))
    first = hidden.compute(base, tokens, root=tmp_path)
    second.join()
    assert np.array_equal(first.states, found[0].states) and np.abs(first.states).max() > 0
