"""Windows for training through the base: what each row holds, who sees whom, packing, padding."""

import dataclasses

import numpy as np
import pytest
from fake_base import token_set
from tiny_model import tiny

from medusa_core import llama, masks, windows
from medusa_core.data import DataError
from medusa_core.losses import NO_TARGET

T, K = 16, 3


def sequences_of(tokens) -> list[tuple[tuple[int, ...], int]]:
    """The token set's sequences as windows should hold them: cut to T + 1 tokens, with the prompt's length."""
    pairs = zip(tokens.prompt_ids, tokens.answer_ids)
    return [(tuple(np.concatenate(pair)[: T + 1].tolist()), len(pair[0])) for pair in pairs]


def rows_of(laid: windows.Windows):
    """Walk the sequences of the windows: (window, first row, stop row)."""
    for number, positions in enumerate(laid.positions):
        starts = np.flatnonzero(positions == 0)
        for begin, stop in zip(starts, [*starts[1:], T]):
            if laid.end[number, begin:stop].any():
                yield number, begin, stop


def test_every_sequence_is_in_one_window_with_its_tokens_and_targets():
    tokens = token_set(40)
    laid = windows.cut(tokens, T)
    batch = laid.batch(np.arange(len(laid)), K, len(laid))
    expected = sorted(sequences_of(tokens))
    found = []
    for number, begin, stop in rows_of(laid):
        flat = number * T
        first = begin + int(np.argmax(laid.end[number, begin:stop] > 0))
        last = batch.tokens[0, flat + stop - 1]
        found.append(((*batch.ids[number, begin:stop].tolist(), int(last)), first - begin + 1))
        ids = [*batch.ids[number, begin:stop], last]
        for row in range(begin, stop):
            for k in range(K + 1):
                place = row - begin + 1 + k
                wanted = ids[place] if row >= first and place < len(ids) else NO_TARGET
                assert batch.tokens[k, flat + row] == wanted
                if k and wanted != NO_TARGET:  # the row that predicts this token next
                    assert batch.tokens[0, batch.teacher_row[k - 1, flat + row]] == wanted
    assert sorted(found) == expected
    assert (laid.end > 0).sum() == sum(len(ids) - prompt for ids, prompt in expected)


def test_a_query_sees_the_keys_on_its_own_path_and_nothing_else():
    laid = windows.cut(token_set(40), T)
    for window in (None, 5):
        batch = laid.batch(np.arange(len(laid)), K, len(laid), window)
        for number, positions in enumerate(batch.positions):
            for i in range(T):
                for j in range(T):
                    path = i - positions[i] <= j <= i and (window is None or i - j < window)
                    assert batch.mask[number, i, j] == path


def test_a_packed_sequence_gets_the_hidden_states_it_has_alone():
    short = token_set(6)
    short = dataclasses.replace(short, answer_ids=[answer[:4] for answer in short.answer_ids])
    laid = windows.cut(short, 40)
    assert len(laid) < 6
    base = llama.Llama(*tiny(), "float32")
    batch = laid.batch(np.arange(len(laid)), K, len(laid))
    packed = base(batch.ids, batch.positions, batch.mask).numpy()
    for number in range(len(laid)):
        starts = [*np.flatnonzero(laid.positions[number] == 0), 40]
        for begin, stop in zip(starts, starts[1:]):
            length = stop - begin
            ids = batch.ids[number, begin:stop]
            alone = base(ids[None], np.arange(length)[None], masks.causal(length)).numpy()[0]
            np.testing.assert_allclose(packed[number, begin:stop], alone, atol=1e-5)


def test_missing_windows_are_filled_without_targets():
    laid = windows.cut(token_set(40), T)
    batch = laid.batch(np.array([2, 0]), K, 4)
    assert batch.ids.shape == (4, T) and batch.mask.shape == (4, T, T)
    whole = laid.batch(np.array([2, 0]), K, 2)
    assert np.array_equal(batch.tokens[:, : 2 * T], whole.tokens)
    assert (batch.tokens[:, 2 * T :] == NO_TARGET).all()


def test_packing_fills_windows_and_splits_nothing():
    lengths = np.random.default_rng(0).permutation(np.r_[51:100, 1:50]).tolist()  # 49 pairs that make 100
    bins = windows._pack(lengths, 100)
    assert sorted(item for members in bins for item in members) == list(range(98))
    assert [sum(lengths[item] for item in members) for members in bins] == [100] * 49


def test_a_prompt_as_long_as_a_window_leaves_its_last_row_the_first_answer_token():
    ids = {"prompt_ids": [np.array([1, 2, 3, 4])], "answer_ids": [np.array([5, 6])]}
    laid = windows.cut(dataclasses.replace(token_set(1), **ids), 4)
    assert laid.ids.tolist() == [[1, 2, 3, 4]]
    assert laid.target.tolist() == [[0, 0, 0, 5]] and (laid.end > 0).sum() == 1


def test_a_window_no_prompt_fits_in_is_refused():
    tokens = token_set(3)
    with pytest.raises(DataError, match="no prompt of the 3 fits into a window of 0 tokens"):
        windows.cut(tokens, 0)
    longest = max(map(len, tokens.prompt_ids))
    kept = [prompt for prompt in tokens.prompt_ids if len(prompt) < longest]
    assert (windows.cut(tokens, longest - 1).end > 0).sum() >= len(kept)
