"""What a benchmark's samples sum up to, against numbers worked out by hand."""

import pytest

from medusa_core import summary


def sample(category, tokens, steps, repeats, ids=(1,)):
    """A sample whose repeats are (seconds, prefill) of the same tokens."""
    return {
        "category": category,
        "tokens": tokens,
        "steps": steps,
        "seconds": sorted(repeats)[(len(repeats) - 1) // 2][0],
        "token_ids": list(ids),
        "repeats": [{"tokens": tokens, "steps": steps, "seconds": s, "prefill": p} for s, p in repeats],
    }


def two_runs():
    plain = [
        sample("a", 11, 11, [(2.0, 1.0), (3.0, 1.0), (7.0, 2.0)], [1, 2]),
        sample("b", 21, 21, [(4.0, 1.0), (4.0, 1.0), (6.0, 1.0)]),
    ]
    fast = [
        sample("a", 11, 6, [(1.5, 0.5), (1.0, 0.5), (9.0, 1.0)], [1, 3]),
        sample("b", 21, 8, [(1.5, 0.5), (1.0, 0.5), (9.0, 1.0)]),
    ]
    labels = {"acceptance": "greedy", "temperature": 0.0}
    return [{"name": "plain", **labels, "samples": plain}, {"name": "fast", **labels, "samples": fast}]


def test_summary_rows_are_as_worked_out_by_hand():
    plain, fast = summary.summarise(two_runs())
    # 32 tokens in 6, 7 and 13 seconds, of which 4, 5 and 10 are for the 30 steps after the prompts.
    assert plain["tokens_per_second"] == pytest.approx(32 / 7)
    assert (plain["tokens_per_second_min"], plain["tokens_per_second_max"]) == pytest.approx(
        (32 / 13, 32 / 6)
    )
    assert plain["decode_tokens_per_second"] == pytest.approx(30 / 5)
    assert plain["step_ms"] == plain["plain_step_ms"] == pytest.approx(5e3 / 30)
    assert (plain["tokens_per_step"], plain["overhead"], plain["speedup"]) == (1.0, 1.0, 1.0)
    assert plain["identical"] is None
    # 32 tokens in 3, 2 and 18 seconds, of which 2, 1 and 16 are for 12 steps that give 30 tokens.
    assert fast["prompts"] == 2 and fast["tokens"] == 32 and fast["tokens_per_step"] == pytest.approx(2.5)
    assert fast["tokens_per_second"] == pytest.approx(32 / 3)
    assert fast["step_ms"] == pytest.approx(2e3 / 12) and fast["plain_step_ms"] == plain["step_ms"]
    assert fast["overhead"] == pytest.approx(1.0)
    assert fast["speedup"] == pytest.approx(7 / 3)
    # By the middle repeats, 3.0 and 4.0 seconds against 1.5 and 1.5: both questions are "a", or both "b".
    assert (fast["speedup_low"], fast["speedup_high"]) == pytest.approx((3.0 / 1.5, 4.0 / 1.5))
    assert fast["identical"] == 1


def test_category_rows_cover_their_own_samples_only():
    rows = summary.by_category(two_runs())
    assert [(row["name"], row["category"]) for row in rows] == [
        ("plain", "a"),
        ("plain", "b"),
        ("fast", "a"),
        ("fast", "b"),
    ]
    assert rows[2]["tokens_per_step"] == pytest.approx(2.0) and rows[3]["tokens_per_step"] == pytest.approx(
        20 / 7
    )
    assert rows[2]["speedup"] == pytest.approx((11 / 1.5) / (11 / 3.0))


def test_answers_of_one_token_have_no_step_time():
    runs = [
        {
            "name": "plain",
            "acceptance": "greedy",
            "temperature": 0.0,
            "samples": [sample("a", 1, 1, [(0.5, 0.4)])],
        }
    ]
    (row,) = summary.summarise(runs)
    assert row["tokens_per_second"] == 2.0
    assert [row[key] for key in ("tokens_per_step", "step_ms", "overhead", "decode_tokens_per_second")] == [
        None
    ] * 4
    assert "-" in summary.table([row]).splitlines()[1]


def test_the_table_shows_speed_and_equality():
    lines = summary.table(summary.summarise(two_runs())).splitlines()
    assert lines[0].split()[:2] == ["acceptance", "T"] and len(lines) == 3
    assert " ".join(lines[2].split()) == "fast greedy 0 2.50 10.67 166.67 1.00 2.33 2.00 to 2.67 1/2"
