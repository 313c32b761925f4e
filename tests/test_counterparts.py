"""Published figures stand beside the heads of their kind, once each, with a reason why they differ."""

from medusa_core import counterparts


def result(*heads):
    rows = [{"name": name, "kind": kind, "adapted_base": adapted} for name, kind, adapted in heads]
    speed = [
        {"name": name, "acceptance": "greedy", "tokens_per_step": 1.5, "speedup": 1.2} for name, _, _ in heads
    ]
    return {
        "heads": rows,
        "bench": {"summary": [*speed, {**speed[0], "acceptance": "exact", "speedup": 9.0}]},
    }


def test_each_kind_is_followed_by_what_others_published_for_it():
    found = counterparts.rows(result(("a", "medusa", False), ("b", "medusa", True), ("c", "lstm", False)))
    who = [row["who"] for row in found]
    assert who[0] == "here: a" and found[0]["overhead"] == 1.5 / 1.2
    second, third = who.index("here: b"), who.index("here: c")
    assert all(name.startswith("medusa-1") for name in who[1:second]) and "medusa-1, 3 heads: seed" in who
    assert who[second + 1 : third] == ["medusa-2, 5 heads, A100-80GB: Medusa paper"]
    assert {name.split(":")[0].split(",")[0] for name in who[third + 1 :]} == {"eagle", "eagle-2"}
    assert len(set(who)) == len(who) and all(row["why it differs"] for row in found)


def test_every_kind_of_heads_is_known_and_every_method_is_published():
    from medusa_core.heads import KINDS
    from medusa_core.published import RECORDS

    assert set(KINDS) <= set(counterparts.METHODS)
    methods = {method for kind in counterparts.METHODS.values() for method, _ in kind}
    assert methods <= {record.method for record in RECORDS}
    assert all(list(counterparts._records(method)) for method in methods)
