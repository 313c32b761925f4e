"""The tests of the paper's claims: families of trees, what answers cost, what heads are trained on."""

import json
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
from fake_base import token_set
from fake_decoding import FakeBase, FakeDrafter

from medusa_core import claims, plots, tree
from medusa_core.answers import Drafting
from medusa_core.cost import StepCost
from medusa_core.runtime import ROOT
from medusa_core.text_ranks import TextRanks

COST = StepCost(tuple(1.0 + 0.1 * n for n in range(300)), 0.2)


def texts(count, seed=0):
    """Ranks of heads that are often right, less often the deeper."""
    rng = np.random.default_rng(seed)
    return TextRanks([np.minimum(rng.geometric([0.6, 0.4, 0.3], (40, 3)) - 1, 30) for _ in range(count)])


def test_a_verdict_says_whether_a_claim_holds_or_why_nobody_knows():
    words = [claims.verdict("c", holds, "f")["verdict"] for holds in (True, False, None)]
    assert words == ["reproduced", "not reproduced", "not testable here"]
    assert claims.verdict("c", None, "f", claims.UNDECIDED)["verdict"] == "undecided"


def race(seconds):
    """Runs of a comparison: greedy answers of 10 tokens by name, each base with its plain decoding."""
    bases = {"plain": "plain", "a": "plain", "plain b": "plain b", "b": "plain b"}
    return [
        {"name": name, "acceptance": "greedy", "temperature": 0.0, "plain": bases[name],
         "samples": [{"tokens": 10, "seconds": each} for each in own]}
        for name, own in seconds.items()
    ]  # fmt: skip


def test_a_gain_is_measured_against_each_sets_own_base():
    even = race({"plain": [2.0, 2.0], "a": [1.0, 1.0], "plain b": [6.0, 6.0], "b": [2.0, 2.0]})
    assert claims.gain(even, "b", "a") == pytest.approx((1.0, 1.0))
    torn = race({"plain": [2.0, 2.0], "a": [1.0, 1.0], "plain b": [2.0, 2.0], "b": [0.5, 4.0]})
    low, high = claims.gain(torn, "b", "a")
    assert low < 0 < high


@pytest.mark.parametrize(("low", "high", "holds"), [(0.1, 0.2, True), (-0.2, -0.1, False), (-0.1, 0.1, None)])
def test_an_interval_that_holds_zero_decides_nothing(low, high, holds):
    assert claims.sign(low, high) is holds


def test_a_searched_tree_of_every_size_up_to_64_is_judged():
    chosen, judged = texts(60).halves()
    rows = claims.measured_trees(chosen, judged, COST, most=80)
    sizes = [row["nodes"] for row in rows if row["family"] == "searched"]
    assert sizes == [*range(1, 65), 72, 80]


def test_dense_trees_are_all_that_fit():
    widths = list(claims._widths(3, 20))
    assert (2,) in widths and (4, 4) in widths and (2, 2, 2) in widths and (1, 3, 4) in widths
    assert (4, 5) not in widths and len(set(widths)) == len(widths)
    for each in widths:
        assert tree.dense(each).size - 1 == np.cumprod(each).sum() <= 20
    assert set(claims._widths(3, 20, least=10)) == {w for w in widths if np.cumprod(w).sum() >= 10}


def test_the_best_dense_tree_is_looked_for_among_falling_widths():
    chosen, _ = texts(60).halves()
    sizes = {shape.size - 1 for family, shape in claims.shapes(chosen.shares(), 3, 12) if family == "dense"}
    assert sizes == {*range(2, 13)}  # among them 2 = (2,), 4 = (2, 1), 9 = (3, 2), but no chain
    names = [family for family, _ in claims.shapes(chosen.shares(), 3, 12)]
    assert names.count("dense") == sum(
        w[0] > 1 and list(w) == sorted(w, reverse=True) for w in claims._widths(3, 12)
    )


def test_every_family_is_judged_and_the_best_of_each_is_found():
    chosen, judged = texts(60).halves()
    rows = claims.measured_trees(chosen, judged, COST, most=40)
    assert {row["family"] for row in rows} == {"chain", "dense", "searched"}
    assert all(row["nodes"] <= 40 and row["depth"] <= 3 for row in rows)
    one = next(row for row in rows if row["family"] == "chain" and row["nodes"] == 1)
    assert one["tokens_per_step"] == judged.tokens_per_step(tree.chain(1))
    assert one["speedup"] == pytest.approx(one["tokens_per_step"] / (1.1 + 0.2))
    best = {
        family: claims.best_of(rows, family, "tokens_per_step") for family in ("chain", "dense", "searched")
    }
    assert (
        best["chain"]["tokens_per_step"]
        < best["dense"]["tokens_per_step"]
        <= best["searched"]["tokens_per_step"]
    )
    assert claims.best_of(rows, "searched", "tokens_per_step", most=8)["nodes"] <= 8
    plots.fig_claim_trees([*rows, *claims.random_trees(judged, 10, 40, 3, seed=0)])
    assert len(plots.fig_claim_steps(rows).data) == 3


def test_random_trees_are_dense_and_fixed_by_their_seed():
    judged = texts(10)
    first, again = (claims.random_trees(judged, 5, 50, 4, seed=3) for _ in range(2))
    assert first == again and len(first) == 4
    sizes = [row["nodes"] for row in first]
    assert sizes == sorted(sizes) and sizes[0] >= 5 and sizes[-1] <= 50
    everything = claims.random_trees(judged, 5, 9, 1000, seed=0)
    dense = [tree.dense(w) for w in claims._widths(3, 9, least=5)]
    assert sorted(row["tokens_per_step"] for row in everything) == sorted(map(judged.tokens_per_step, dense))


def test_what_texts_drawn_anew_would_turn_is_not_decided():
    better, worse = [(10, 5), (12, 6), (9, 5)], [(10, 8), (12, 9), (9, 7)]
    assert claims.apart(better, worse) is True and claims.apart(worse, better) is False
    assert (
        claims.apart(better, worse, (1.5, 1.0)) is None and claims.apart(better, worse, (3.0, 1.0)) is False
    )
    assert claims.apart([(10, 5), (10, 9)], [(10, 6), (10, 8)]) is None
    assert claims.apart(better, better) is None


def test_an_order_holds_where_every_step_of_it_does():
    low, high = (
        {"texts": [(10, 8), (12, 9)], "overhead": 1.0},
        {"texts": [(10, 5), (12, 6)], "overhead": 2.0},
    )
    assert claims.ascending([low, high]) is True and claims.ascending([low, high], speed=True) is False
    assert claims.ascending([low, high, high]) is None
    assert claims.ascending([low, high, high, low]) is False


def test_more_heads_never_bring_less_on_the_texts_a_tree_was_chosen_on():
    judged = texts(40)
    found = claims.by_depth(judged, judged, nodes=12)
    assert len(found) == 3 and found == sorted(found)
    assert found[0] == pytest.approx(judged.tokens_per_step(tree.dense([12])))


def test_loss_of_an_answer_is_that_of_its_own_tokens():
    class Even:
        """Gives every one of 8 tokens the same probability."""

        config = SimpleNamespace(sliding_window=None)

        def __call__(self, ids, positions, mask):
            assert mask.shape[-1] == ids.shape[1] == 5
            return np.zeros((1, 5, 4))

        def logits(self, states):
            assert len(states) == 3
            return SimpleNamespace(numpy=lambda: np.zeros((3, 8)))

    assert claims.answer_loss(Even(), [1, 2, 3], [4, 5, 6]) == pytest.approx(3 * log(8))


def test_repeats_are_counted_where_a_stretch_ends():
    assert claims.repeats([1, 2, 3, 4, 5]) == 0
    assert claims.repeats([1, 2, 3, 4, 1, 2, 3, 4]) == 1
    assert claims.repeats([7] * 6) == 2
    assert claims.repeats([1, 2]) == 0


def test_a_looser_threshold_accepts_more(monkeypatch):
    monkeypatch.setattr(claims, "answer_loss", lambda base, prompt, answer: log(2.0) * len(answer))
    base = FakeBase()
    drafting = Drafting(FakeDrafter(base, skill=0.0), tree.chain(2))  # always the second best
    rows = claims.thresholds(base, drafting, [[20, 31], [40, 41]], [0.0001, 0.9], 2.0, 40)
    assert [row["epsilon"] for row in rows] == [None, 0.0001, 0.9]
    assert rows[1]["tokens_per_step"] > rows[2]["tokens_per_step"] >= 1
    assert all(row["perplexity"] == pytest.approx(2.0) for row in rows)
    for row in rows:
        tokens, steps = np.sum(row["texts"], axis=0)
        assert row["tokens_per_step"] == tokens / steps and row["tokens"] == tokens + 2
        assert [tokens for _, tokens in row["losses"]] == [tokens + 1 for tokens, _ in row["texts"]]
    assert len(plots.fig_claim_epsilon(rows).data) == 3


def test_training_sets_share_the_held_out_texts_and_nothing_else():
    tokens = token_set(60)
    tokens = type(tokens)(
        tokens.prompt_ids, tokens.answer_ids, np.arange(60, dtype=np.int32) % 2, tokens.split,
        {"samples": 2, "temperatures": [0.0, 0.7]},
    )  # fmt: skip
    held_out = tokens.select("held-out").greedy()
    letters = lambda text, add_special_tokens: {"input_ids": [[ord(c) % 50 for c in part] for part in text]}  # noqa: E731
    others = claims.others_text(letters, 300, length=20)
    assert others.answer_tokens == 300 and all(len(prompt) == 1 for prompt in others.prompt_ids)
    sets = claims.training_sets(tokens, others, 200, held_out)
    assert list(sets) == ["its own answers, greedy", "its own answers, sampled", "others' text"]
    for each in sets.values():
        assert 150 < each.select("train").answer_tokens < 320
        found = each.select("held-out").answer_ids
        assert [ids.tolist() for ids in found] == [ids.tolist() for ids in held_out.answer_ids]
    with pytest.raises(ValueError, match="has .* tokens"):
        claims.others_text(letters, 10**9)


def test_bars_of_training_data_are_the_tokens_per_step_of_each_tree():
    tokens = {"its own": {"4": 1.61234, "16": 1.8}, "others": {"4": 1.4, "16": 1.5}}
    small, large = plots.fig_claim_data(tokens).data
    assert (small.name, large.name) == ("4 nodes", "16 nodes")
    assert list(small.x) == list(large.x) == ["its own", "others"]
    assert list(small.y) == [1.6123, 1.4] and list(large.y) == [1.8, 1.5]
    assert list(small.text) == ["1.61", "1.40"]


def test_a_line_of_heads_starts_at_the_first_head():
    lines = plots.fig_claim_depth({"medusa1": [1.4, 1.6, 1.65432], "gru": [1.5, 1.8]}).data
    assert [(line.name, list(line.x), list(line.y)) for line in lines] == [
        ("medusa1", [1, 2, 3], [1.4, 1.6, 1.6543]),
        ("gru", [1, 2], [1.5, 1.8]),
    ]


def test_chapter_09_says_how_often_answers_of_the_result_file_repeat_themselves():
    result = json.loads((ROOT / "artifacts" / "results" / "benchmark.json").read_text())
    shares = {}
    for run in result["runs"]:
        answers = [sample["token_ids"] for sample in run["samples"]]
        share = sum(map(claims.repeats, answers)) / sum(map(len, answers))
        shares[run["name"], run["acceptance"]] = f"{share:.0%}".replace("%", " %")
    (chapter,) = (ROOT / "notebooks").glob("09_*.ipynb")
    text = " ".join("".join(cell["source"]) for cell in json.loads(chapter.read_text())["cells"])
    text = " ".join(text.split())
    context, every = (shares[f"{who}context + corpus", "typical"] for who in ("", "medusa1 + "))
    assert f"{shares['plain', 'sampling']} of plain sampling's tokens end a stretch of four" in text
    assert f"it is {shares['medusa1', 'typical']} with the heads, {context[:-2]} and {every} with" in text
    assert f"and {shares['plain', 'greedy']} in greedy answers" in text
