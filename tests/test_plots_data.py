"""Figures of weights and answers hold the numbers they are given, and escape text that they did not write."""

import numpy as np

from medusa_core import plots
from medusa_core.plots.tokens import html_labels


def test_bytes_are_bars_in_megabytes_with_their_share():
    figure = plots.fig_bytes(
        {"file": {"attention": 3_000_000, "MLP": 1_000_000}, "memory": {"attention": 8_000_000}}
    )
    first, second = figure.data
    assert list(first.x) == [3.0, 1.0] and list(first.y) == ["attention", "MLP"]
    assert list(first.text) == ["3.0 MB, 75.0%", "1.0 MB, 25.0%"]
    assert first.name == "file: 4 MB" and second.name == "memory: 8 MB"
    assert figure.layout.xaxis.range[1] > 8  # room for the label of the longest bar


def test_rounding_errors_are_binned_around_zero():
    figure = plots.fig_rounding(np.array([-0.2, 0.0, 0.0, 0.2]), bins=3)
    (bars,) = figure.data
    assert np.allclose(bars.x, [-0.4 / 3, 0, 0.4 / 3], atol=1e-5)
    assert list(bars.y) == [0.25, 0.5, 0.25]


def test_rounding_that_is_exact_is_one_bar():
    (bars,) = plots.fig_rounding(np.zeros(5), bins=3).data
    assert list(bars.y) == [0, 1, 0]


def test_answer_lengths_are_shares_in_bins():
    figure = plots.fig_lengths({"greedy": np.array([1, 4, 5, 8]), "sampled": np.array([12])}, width=4)
    greedy, sampled = figure.data
    assert list(greedy.x) == [2.5, 6.5, 10.5]
    assert list(greedy.y) == [0.5, 0.5, 0]  # 1 and 4 share a bin, 5 and 8 the next
    assert list(sampled.y) == [0, 0, 1]
    assert greedy.customdata[0] == "1 to 4 tokens, 2 answers"


def test_coverage_is_a_line_over_sizes():
    figure = plots.fig_coverage([10, 1000], {"held-out": np.array([0.5, 0.91234])}, vocab_size=2000)
    (line,) = figure.data
    assert list(line.x) == [10, 1000] and list(line.y) == [0.5, 0.9123]
    assert line.customdata[1] == "1,000 tokens, 50% of the vocabulary"
    assert figure.layout.xaxis.ticktext == ("10", "1,000")


def test_labelled_tokens_are_escaped_and_learnt_ones_bold():
    page = html_labels(["<b>", " a&b", "\n"], [True, False, False])
    assert "<b>" not in page and "&lt;b&gt;" in page and "a&amp;b" in page
    assert page.count("font-weight:bold") == 1
    assert page.index("font-weight:bold") < page.index("&lt;b&gt;")
    assert page.endswith("\\n</span><br></div>")
