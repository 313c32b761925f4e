"""The race: every way of guessing continues the same prompts, and its row says what that brought."""

import pytest
from fake_decoding import FakeBase, FakeDrafter

from medusa_core import race
from medusa_core.answers import Drafting
from medusa_core.tree import chain, dense

PROMPTS = [[5, 6, 7], [9, 8, 7, 6], [40]]


@pytest.fixture(scope="module")
def rows():
    base = FakeBase()
    ways = {
        "good": Drafting(FakeDrafter(base, skill=1.0), chain(3)),
        "poor": Drafting(FakeDrafter(base, skill=0.0), dense([2])),
    }
    return race.race(base, ways, PROMPTS, max_new_tokens=24, repeats=2)


def test_plain_decoding_comes_first_and_is_the_measure(rows):
    assert [row["name"] for row in rows] == ["plain", "good", "poor"]
    plain = rows[0]
    assert plain["tokens_per_step"] == plain["overhead"] == plain["speedup"] == plain["rows_per_step"] == 1.0


def test_a_way_has_its_tokens_rows_and_times_per_step(rows):
    _, good, poor = rows
    assert good["tokens_per_step"] > 3 and good["rows_per_step"] == pytest.approx(4, abs=0.3)
    assert poor["tokens_per_step"] < good["tokens_per_step"] and poor["rows_per_step"] <= 3
    for row in rows:
        assert row["step_ms"] > row["draft_ms"] >= 0
        assert row["tokens_per_second"] == pytest.approx(
            1e3 * row["tokens_per_step"] / row["step_ms"], rel=0.2
        )


def test_every_way_gives_plain_decodings_text(rows):
    assert [(row["identical"], row["prompts"]) for row in rows] == [(3, 3)] * 3


def test_what_comes_between_is_done_before_every_prompt():
    done = []
    race.race(FakeBase(), {}, PROMPTS, max_new_tokens=4, repeats=2, between=lambda: done.append(1))
    assert len(done) == len(PROMPTS)
