"""The CPU kernels: a row has the same bits in any company, and the value the plain ops compute."""

import numpy as np
import pytest
from ml_dtypes import bfloat16
from random_trees import random_tree
from tiny_model import tiny

from medusa_core import machine, masks, tree
from medusa_core.kernels.model import ROWS_AT_ONCE, KernelModel
from medusa_core.kernels.ops import Kernels
from medusa_core.kernels.pack import pack, unpack_rows
from medusa_core.kernels.walk import walks
from medusa_core.llama import Llama, jt

SETS = {512: "AVX-512", 256: "AVX2", 1: None}
FORCED = [
    pytest.param(
        isa,
        marks=pytest.mark.skipif(
            bool(name) and name not in machine.instruction_sets(), reason=f"no {name} here"
        ),
    )
    for isa, name in SETS.items()
]


def alone(model, ids):
    """Hidden states (T, d) of a text fed one token a call."""
    cache = model.new_cache(1, len(ids))
    rows = []
    for place, token in enumerate(ids):
        rows.append(model([[token]], [[place]], masks.causal(1, place), cache).numpy()[0, 0])
        cache.advance(1)
    return np.stack(rows)


@pytest.mark.parametrize("isa", FORCED)
@pytest.mark.parametrize(("dtype", "tiles"), [("bfloat16", False), ("bfloat16", True), ("float32", False)])
def test_prefill_of_any_length_gives_the_bits_of_single_steps(isa, dtype, tiles):
    config, weights = tiny()
    model = KernelModel(config, weights, dtype, isa, tiles=tiles)
    ids = np.random.default_rng(1).integers(0, 160, 64)
    expected = alone(model, ids)
    for rows in (*range(1, 27), 48, 64):
        hidden = model(ids[None, :rows], np.arange(rows)[None], masks.causal(rows)).numpy()[0]
        assert np.array_equal(hidden, expected[:rows]), rows


@pytest.mark.parametrize("past", [1, 15, 16, 40])
def test_a_tree_node_has_the_bits_of_its_path_fed_alone(past):
    config, weights = tiny()
    model = KernelModel(config, weights, "bfloat16")
    rng = np.random.default_rng(past)
    prefix = rng.integers(0, 160, past)
    for _ in range(4):
        shape = random_tree(int(rng.integers(2, 40)), 5, 6, rng)
        tokens = rng.integers(0, 160, shape.size)
        cache = model.new_cache(1, past + shape.size)
        model(prefix[None], np.arange(past)[None], masks.causal(past), cache)
        cache.advance(past)
        hidden = model(tokens, masks.positions(shape, past), masks.tree_mask(shape, past), cache)
        logits = model.logits(hidden).numpy()[0]
        for node in rng.choice(shape.size, min(4, shape.size), replace=False):
            path = [*prefix, *tokens[list(shape.path_to(node))]]
            lone = alone(model, path)[-1]
            assert np.array_equal(hidden.numpy()[0, node], lone)
            assert np.array_equal(model.logits(jt.array(lone[None])).numpy()[0], logits[node])


@pytest.mark.parametrize(("isa", "dot"), [(256, False), (512, False), (512, True)])  # beside portable
def test_all_processors_compute_the_same_bits(isa, dot):
    needed = "AVX-512 bf16" if dot else SETS[isa]
    if needed and needed not in machine.instruction_sets():
        pytest.skip(f"no {needed} here")
    config, weights = tiny()
    rng = np.random.default_rng(9)
    ids = rng.integers(0, 160, 30)
    arguments = ids[None], np.arange(30)[None], masks.causal(30)
    portable, model = (
        KernelModel(config, weights, "bfloat16", 1, False),
        KernelModel(config, weights, "bfloat16", isa, dot),
    )
    hidden = rng.standard_normal((30, config.hidden_size)).astype(np.float32)
    # Attention is float32, whose multiply-adds the portable path rounds twice: one product of matrices shows the bits.
    assert np.array_equal(model.logits(jt.array(hidden)).numpy(), portable.logits(jt.array(hidden)).numpy())
    assert np.allclose(model(*arguments).numpy(), portable(*arguments).numpy(), atol=0.05)


@pytest.mark.parametrize("isa", [None, *FORCED])  # None: the matrix unit, where there is one
@pytest.mark.parametrize("depth", [16, 64, 80])
def test_tiles_are_added_up_in_the_matrix_units_order(isa, depth):
    rng = np.random.default_rng(depth)
    x = rng.standard_normal((37, depth)).astype(np.float32)
    weight = rng.standard_normal((48, depth)).astype(np.float32)
    kernels = Kernels("bfloat16", isa, tiles=True)
    out = kernels.logits(jt.array(x), jt.array(pack(weight, "bfloat16")), len(weight)).numpy()
    x, weight = (each.astype(bfloat16).astype(np.float32) for each in (x, weight))
    expected = np.zeros_like(out)
    for begin in range(0, depth, 32):  # a product of two bfloat16 is exact in float32
        even, odd = np.zeros_like(out), np.zeros_like(out)
        for k in range(begin, min(begin + 32, depth), 2):
            even += np.outer(x[:, k], weight[:, k])
            odd += np.outer(x[:, k + 1], weight[:, k + 1])
        expected += even + odd
    assert np.array_equal(out, expected)


def test_a_sequence_has_the_same_bits_in_a_batch_of_other_lengths():
    config, weights = tiny()
    model = KernelModel(config, weights, "bfloat16")
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 160, length) for length in (3, 17, 30)]
    cache = model.new_cache(3, 48)
    for row, ids in enumerate(texts):
        model(ids[None, :-1], np.arange(len(ids) - 1)[None], masks.causal(len(ids) - 1), cache, rows=[row])
        cache.advance(len(ids) - 1, row)
    length = cache.length[:, None]
    see = np.arange(length.max() + 1) <= length
    hidden = model([[ids[-1]] for ids in texts], length, see[:, None], cache).numpy()[:, 0]
    for row, ids in enumerate(texts):
        assert np.array_equal(hidden[row], alone(model, ids)[-1])


def test_committed_path_gives_the_bits_of_the_same_text_prefilled():
    config, weights = tiny()
    model = KernelModel(config, weights, "float32")
    rng = np.random.default_rng(4)
    prefix, shape = rng.integers(0, 160, 10), tree.dense([3, 2, 2])
    tokens = rng.integers(0, 160, shape.size)
    path = shape.path_to(shape.size - 1)
    cache = model.new_cache(1, 64)
    model(prefix[None], np.arange(10)[None], masks.causal(10), cache)
    cache.advance(10)
    model(tokens, masks.positions(shape, 10), masks.tree_mask(shape, 10), cache)
    cache.commit(path)
    assert cache.length[0] == 10 + len(path)
    after = model([[7]], [[cache.length[0]]], masks.causal(1, int(cache.length[0])), cache).numpy()[0, 0]
    assert np.array_equal(after, alone(model, [*prefix, *tokens[list(path)], 7])[-1])


@pytest.mark.parametrize("isa", FORCED)
def test_kernels_agree_with_plain_ops(isa):
    config, weights = tiny(attention_bias=True, model_type="qwen2")
    ids = np.random.default_rng(5).integers(0, 160, (2, 24))
    arguments = ids, np.tile(np.arange(24), (2, 1)), masks.causal(24)
    kernel, plain = KernelModel(config, weights, "float32", isa), Llama(config, weights, "float32")
    hidden = plain(*arguments)
    assert np.allclose(kernel(*arguments).numpy(), hidden.numpy(), atol=2e-5)
    logits = plain.logits(hidden).numpy()
    assert np.allclose(kernel.logits(hidden).numpy(), logits, atol=2e-5)


def test_top_is_the_sorted_head_of_the_logits_on_both_backends():
    config, weights = tiny(vocab_size=155)  # the last block of 16 is partly padding
    model, plain = KernelModel(config, weights, "float32"), Llama(config, weights, "float32")
    hidden = model(np.arange(14)[None], np.arange(14)[None], masks.causal(14))
    logits = model.logits(hidden).numpy()[0]
    expected = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 7, 155):
        ids, values = model.top(hidden[0], k)
        assert np.array_equal(ids, expected[:, :k])
        assert np.array_equal(values, np.take_along_axis(logits, ids, 1))
        assert np.array_equal(plain.top(hidden[0], k)[0], ids)


def test_long_prefill_in_pieces_equals_the_whole():
    config, weights = tiny()
    model = KernelModel(config, weights, "bfloat16")
    ids = np.random.default_rng(6).integers(0, 160, 250)  # more rows than go through at once
    whole = model(ids[None], np.arange(250)[None], masks.causal(250)).numpy()[0]
    assert np.array_equal(whole[-1], alone(model, ids)[-1])


def test_packing_keeps_every_row():
    weight = np.random.default_rng(7).standard_normal((37, 32)).astype(np.float32)
    assert np.array_equal(unpack_rows(pack(weight, "float32"), np.arange(37)), weight)
    rounded = unpack_rows(pack(weight, "bfloat16"), np.arange(37))
    assert np.abs(rounded - weight).max() <= np.abs(weight).max() / 256
    assert pack(weight, "bfloat16").shape == (3, 16, 16, 2)


def test_packing_refuses_an_odd_width():
    with pytest.raises(ValueError, match="multiple of 16"):
        pack(np.zeros((16, 30), np.float32), "float32")


def test_walks_are_the_open_cells_in_order():
    rng = np.random.default_rng(8)
    mask = rng.random((50, 23)) < 0.4
    mask[0] = mask[:, -1] = True
    start, end, count, extra = walks(mask)
    for row in range(50):
        seen = [*range(start[row], end[row]), *extra[row, : count[row]]]
        assert seen == np.flatnonzero(mask[row]).tolist()


@pytest.mark.parametrize("backend", [KernelModel, Llama])
def test_a_row_that_sees_nothing_is_refused(backend):
    mask = masks.causal(3)
    mask[1] = False
    with pytest.raises(ValueError, match="a row of the mask sees nothing"):
        backend(*tiny(), "float32")(np.ones((1, 3), int), np.arange(3)[None], mask)


def test_a_row_may_not_see_what_a_later_part_of_a_long_call_fills():
    model, rows = KernelModel(*tiny(), "float32"), ROWS_AT_ONCE + 8
    ids, positions = np.ones((1, rows), int), np.arange(rows)[None]
    mask = masks.causal(rows)
    model(ids, positions, mask)
    mask[3, rows - 1] = True
    with pytest.raises(ValueError, match="sees one that comes after it, among more than 192"):
        model(ids, positions, mask)


@pytest.mark.parametrize("rows", [[-1], [2], [0, 0], [0]])
def test_rows_that_are_not_different_sequences_of_the_cache_are_refused(rows):
    model = KernelModel(*tiny(), "float32")
    batch = 2 if rows in ([0, 0], [0]) else 1
    ids = np.ones((batch, 1), int)
    with pytest.raises(ValueError, match="different numbers from 0 to 1"):
        model(ids, ids * 0, masks.causal(1), model.new_cache(2, 16), rows)


def test_a_mask_over_slots_behind_a_sequences_own_is_refused():
    model = KernelModel(*tiny(), "float32")
    cache = model.new_cache(2, 16)
    model(np.ones((1, 3), int), np.arange(3)[None], masks.causal(3), cache, rows=[1])
    cache.advance(3, 1)
    ids, positions = np.ones((2, 1), int), np.array([[0], [3]])
    own = np.array([[[True, False, False, False]], [[True] * 4]])
    model(ids, positions, own, cache)
    with pytest.raises(ValueError, match="slots behind its sequence's own"):
        model(ids, positions, masks.causal(1, 3), cache)


@pytest.mark.parametrize("k", [0, 161])
def test_no_more_tokens_than_there_are_can_be_the_best(k):
    model = KernelModel(*tiny(), "float32")
    hidden = model(np.ones((1, 2), int), np.arange(2)[None], masks.causal(2))[0]
    assert model.top(hidden, 160)[0].shape == (2, 160)
    with pytest.raises(ValueError, match=f"the {k} best of 160 tokens"):
        model.top(hidden, k)


@pytest.mark.parametrize(
    ("ids", "positions", "message"),
    [
        ([[160]], [[0]], "token id"),
        ([[-1]], [[0]], "token id"),
        ([[1]], [[256]], "position"),
        ([[]], [[]], "token id"),
    ],
)
def test_out_of_range_input_is_refused_before_the_kernel_reads_it(ids, positions, message):
    model = KernelModel(*tiny(), "float32")
    with pytest.raises(ValueError, match=message):
        model(np.array(ids, int), np.array(positions, int), masks.causal(len(ids[0])))


def test_a_full_cache_is_an_error_that_says_so():
    model = KernelModel(*tiny(), "float32")
    cache = model.new_cache(1, 16)
    with pytest.raises(ValueError, match="17 more do not fit in 16 slots"):
        model(np.ones((1, 17), int), np.arange(17)[None], masks.causal(17), cache)
