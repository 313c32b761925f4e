"""Result files are read whole, or named with what is wrong at which place."""

import json

import fake_results as fake
import pytest

from medusa_core import results

KINDS = {
    "benchmark": fake.benchmark,
    "train_medusa1": fake.training,
    "search_trees": fake.search,
    "peers": fake.peers,
    "comparison": fake.comparison,
}


def test_every_kind_of_file_is_read(tmp_path):
    found = results.read(fake.write(tmp_path))
    assert found.problems == []
    assert list(found.benches) == ["benchmark.json", "comparison.json"]
    assert found.accuracy == {"medusa1": ([0.4, 0.2], [0.6, 0.4]), "gru": ([0.5, 0.3], [0.7, 0.5])}
    sweep = found.sweeps["medusa1"]
    assert sweep.tokens == pytest.approx([1.0, 1.4, 1.6, 1.7])
    assert sweep.speedup == pytest.approx([1.0, 1.4 / 1.2, 1.6 / 1.3, 1.7 / 1.5])
    assert found.sweeps["gru"].speedup == pytest.approx([1.0, 1.4 / 1.2, 1.6 / 1.3])
    assert found.peers["config"]["heads"] == "medusa1"


def test_a_training_that_names_no_kept_run_made_heads_in_each(tmp_path):
    one = fake.training()["histories"]["kept"]
    file = tmp_path / "train_several.json"
    for content, names in (
        ({"histories": {"gru": one, "lstm": one}}, {"gru", "lstm"}),
        ({"histories": {"moe": one, "trial": one}, "kept": "moe"}, {"several"}),
    ):
        file.write_text(json.dumps(content))
        assert set(results.read(tmp_path).accuracy) == names
    file.write_text(json.dumps({"histories": {"trial": one}, "kept": "moe"}))
    assert '"histories" has no "moe"' in " ".join(results.read(tmp_path).problems)


@pytest.mark.parametrize("stem", KINDS)
@pytest.mark.parametrize(
    "text",
    ["", '{"summary": [', "[]", "null", "{}", '{"bench": 1, "runs": [], "histories": {"kept": 2}}', "\x00"],
)
def test_a_broken_file_is_named_and_the_others_are_read(tmp_path, stem, text):
    found = results.read(fake.write(tmp_path, **{stem: text}))
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{tmp_path / stem}.json: ")
    assert found.benches


@pytest.mark.parametrize("stem", KINDS)
def test_no_value_of_a_wrong_kind_gets_through(tmp_path, stem):
    """Each value of each file in turn becomes an object that fits nowhere: it is refused, or nobody reads it."""
    content = KINDS[stem]()
    unread = {"text", "plain_text"}
    for path in places(content):
        if unread & set(path):
            continue
        found = results.read(fake.write(tmp_path, **{stem: replaced(content, path, {"": None})}))
        assert [p for p in found.problems if p.startswith(f"{tmp_path / stem}.json: ")], path


def test_the_place_of_a_wrong_value_is_said(tmp_path):
    broken = replaced(fake.benchmark(), ("runs", 1, "samples", 0, "seconds"), "fast")
    found = results.read(fake.write(tmp_path, benchmark=broken))
    assert 'runs[1], samples[0], seconds: a number above 0 was expected, not "fast"' in found.problems[0]


def test_missing_files_are_named(tmp_path):
    found = results.read(tmp_path)
    for name in ("benchmark.json", "search_trees.json", "peers.json", "train_NAME.json"):
        assert any(f"{tmp_path / name} is not there" in problem for problem in found.problems)


@pytest.mark.parametrize("change", ["no reference", "slow prefill"])
def test_peers_without_what_they_are_compared_with_are_refused(tmp_path, change):
    content = fake.peers()
    if change == "no reference":
        content["peers"] = content["peers"][1:]
    else:
        content["peers"][0]["samples"][0]["prefill"] = 2.0
    found = results.read(fake.write(tmp_path, peers=content))
    assert found.peers is None and "ours plain" in found.problems[0]


def places(value, path=()):
    """The paths to all values within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


def replaced(content, path, value):
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy
