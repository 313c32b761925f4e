"""The comparison of heads on a tiny model: what is counted is what decoding does, and an interrupted run goes on."""

import functools
import json

import numpy as np
import pytest
from fake_decoding import END, VOCABULARY, tokenizer
from tiny_model import folder_of

from medusa_core import answers, compare, contestants, lora, meter, runtime
from medusa_core import heads as head_kinds
from medusa_core.answers import SettingsError
from medusa_core.compare import CompareSettings
from medusa_core.config import HeadsConfig
from medusa_core.heads import HeadsError
from medusa_core.lora import Adapters, LoraConfig
from medusa_core.token_set import TokenSet

QUESTIONS = [
    {"question_id": number, "category": "ab"[number % 2], "turns": [f"Question {number}?"]}
    for number in range(3)
]
LENGTH = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, and heads of it by name: two kinds, and one that learned together with its base."""
    root = tmp_path_factory.mktemp("compare")
    model = folder_of(root / "model", vocab_size=len(VOCABULARY), eos_token_ids=(END,))
    base = contestants.answers.load_base(model, "none")
    size, vocabulary = base.config.hidden_size, base.config.vocab_size
    rng = np.random.default_rng(0)
    for name, kind in (("one", "medusa"), ("two", "gru"), ("joint", "medusa")):
        state = {"state_size": 16} if kind == "gru" else {}
        made = head_kinds.create(HeadsConfig(size, vocabulary, 2, kind=kind, output="shared", **state), base)
        noise = {key: 0.02 * rng.standard_normal(value.shape) for key, value in made.tensors().items()}
        made.load_tensors({key: value + noise[key] for key, value in made.tensors().items()})
        run = {"kind": kind, "batch_positions": 32, "run": f"runs/{name}"}
        if name == "joint":
            run |= {"recipe": "two-stage", "heads": str(root / "heads" / "one")}
        head_kinds.save(root / "heads" / name, made, {"config": run, "held_out": {"step": 10}})
        history = {"config": run, "train": [{"seconds": 1.0}, {"seconds": 60.0}]}
        (root / "runs" / name).mkdir(parents=True)
        (root / "runs" / name / "history.json").write_text(json.dumps(history))
    adapters = Adapters(base.config, LoraConfig(rank=4))
    values = {key: 0.2 * rng.standard_normal(value.shape) for key, value in adapters.state_dict().items()}
    adapters.load_tensors(values)
    lora.save(root / "heads" / "joint" / head_kinds.ADAPTERS_FILE, adapters, model)
    return root


@pytest.fixture
def names(root, monkeypatch):
    monkeypatch.setattr(runtime, "ROOT", root)
    monkeypatch.setattr(runtime, "ARTIFACTS", root)
    monkeypatch.setattr(meter, "measure", functools.partial(meter.measure, burst=0.005))
    return ["one", "two", "joint"]


@pytest.fixture
def found(root, names):
    return contestants.load(names, root / "model")


@pytest.fixture
def held_out(found):
    """Greedy answers of the base."""
    prompts = [answers.prompt(tokenizer(), [f"Prompt {number}!"]) for number in range(8)]
    texts = contestants._greedy(found[0].base, [np.array(ids, np.int32) for ids in prompts], LENGTH, 4)
    return TokenSet(
        [np.array(ids, np.int32) for ids in prompts],
        [np.array(ids, np.int32) for ids in texts],
        np.zeros(8, np.int32),
        np.full(8, "held-out"),
        {"samples": 1, "temperatures": [0.0]},
    )


def settings(names, **changes):
    small = {"nodes": (2, 4), "candidates": 4, "checked": 2, "past": 8, "cost_rounds": 1, "draft_repeats": 2}
    return CompareSettings(**{"heads": tuple(names), **small, "limit": 2, "max_new_tokens": 12, **changes})


def run(names, found, held_out, **more):
    return compare.compare(settings(names), found, held_out, QUESTIONS, tokenizer(), progress=False, **more)


def test_every_heads_row_holds_every_number_and_survives_json(names, found, held_out):
    result = json.loads(json.dumps(run(names, found, held_out), allow_nan=False))
    assert [row["name"] for row in result["heads"]] == names
    for row in result["heads"]:
        assert len(row["top1"]) == len(row["top5"]) == 2
        assert all(0 <= one <= five <= 1 for one, five in zip(row["top1"], row["top5"]))
        assert list(row["tokens_per_step"]) == ["2", "4"] and min(row["tokens_per_step"].values()) >= 1
        assert list(row["draft_ms"]) == ["2", "4"] and min(row["draft_ms"].values()) > 0
        assert row["checked"]["same"] == row["checked"]["texts"] == 2
    by_name = {row["name"]: row for row in result["heads"]}
    assert by_name["two"]["positions"] == 320 and by_name["two"]["training_seconds"] == 60.0
    assert by_name["joint"]["positions"] == 640 and by_name["joint"]["training_seconds"] == 120.0
    modes = {(row["name"], row["acceptance"]) for row in result["bench"]["summary"]}
    assert {("plain", "greedy"), ("plain joint", "sampling"), ("two", "typical")} <= modes
    assert {("two + context", "greedy"), ("joint + context", "greedy"), ("one", "exact")} <= modes
    assert len(modes) == 4 + 3 * 4
    assert "token_ids" not in json.dumps(result)
    assert result["summary"][1]["speed-up, greedy + context"] > 0
    assert "tokens/step, 4 nodes" in compare.table(result)


def test_heads_from_elsewhere_take_part_with_their_training_left_open(root, names, found, held_out):
    head_kinds.save(root / "heads" / "elsewhere", found[0].drafter)
    other = contestants.load(["elsewhere"], root / "model")
    result = json.loads(json.dumps(run(["elsewhere"], other, held_out), allow_nan=False))
    row = result["heads"][0]
    assert (row["kind"], row["positions"], row["training_seconds"]) == ("medusa", None, None)
    assert row["parameters"] > 0 and "elsewhere" in compare.table(result)


def test_greedy_and_exact_answers_are_those_of_the_base_that_the_heads_draft_for(names, found, held_out):
    result = run(names, found, held_out)
    for row in result["bench"]["summary"]:
        if not row["name"].startswith("plain") and row["acceptance"] != "typical":
            assert row["identical"] == 2, row
    assert result["bench"]["differences"] == []


def test_counted_tokens_per_step_are_those_of_decoding(found, held_out):
    for each in found:
        counted = contestants.count(each, held_out, (3,))
        checked = contestants.check(each, counted, counted.trees[3], prompts=4)
        assert checked["same"] == checked["texts"] == 4
        # Drafting rounds to bfloat16: a rank may differ now and then.
        assert checked["decoded"] == pytest.approx(checked["counted"], rel=0.05)
        assert checked["counted"] > 1


def test_a_base_that_changed_is_counted_on_its_own_answers(found, held_out):
    first, _, joint = found
    own = contestants.own_answers(joint.base, held_out)
    same = contestants.own_answers(first.base, held_out)
    assert [ids.tolist() for ids in same.answer_ids] == [ids.tolist() for ids in held_out.answer_ids]
    assert [ids.tolist() for ids in own.answer_ids] != [ids.tolist() for ids in held_out.answer_ids]
    ids, answer = own.prompt_ids[0], own.answer_ids[0]
    plain = answers.answer(joint.base, answers.Drafting(), ids.tolist(), answers.Settings(len(answer)))
    assert plain.tokens == answer.tolist()


def test_an_interrupted_comparison_goes_on_where_it_stopped(names, found, held_out, tmp_path, monkeypatch):
    partial = tmp_path / "c.partial.jsonl"
    counted = []
    count = contestants.count

    def stop_at_two(each, *rest):
        counted.append(each.name)
        if each.name == "two" and counted.count("two") == 1:
            raise KeyboardInterrupt
        return count(each, *rest)

    monkeypatch.setattr(contestants, "count", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        run(names, found, held_out, partial=partial)
    result = run(names, found, held_out, partial=partial)
    assert counted == ["one", "two", "two", "joint"]
    assert [row["name"] for row in result["heads"]] == names
    again = run(names, found, held_out, partial=partial)  # everything is there: times are read, not measured
    assert again == {**result, "machine": again["machine"]}
    with pytest.raises(SettingsError, match="other seed"):
        changed = settings(names, seed=1)
        compare.compare(changed, found, held_out, QUESTIONS, tokenizer(), partial=partial, progress=False)


def test_plans_are_written_where_decoding_finds_them(names, found, held_out):
    result = run(names, found, held_out)
    compare.write_plans(result)
    drafting = answers.load_drafting("two", "auto", "heads", found[1].base)
    assert [list(path) for path in drafting.tree.choices] == result["heads"][1]["tree"]
    plan = answers.load_drafting("two", "auto", "both", found[1].base).plan
    assert len(plan.tree.choices) == 4 and plan.cost.rows == 5


@pytest.mark.parametrize("name", ["candidates", "checked", "past", "cost_rounds", "limit", "max_new_tokens"])
def test_a_count_below_one_is_refused_by_name(name):
    with pytest.raises(SettingsError, match=f"{name} is -4, expected 1 or more"):
        CompareSettings(heads=("one",), **{name: -4})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidates": 65}, "candidates is 65, expected 64 or fewer"),
        ({"temperature": 0.0}, "temperature 0.0 and seed 0"),
        ({"seed": -1}, "temperature 0.7 and seed -1"),
    ],
)
def test_settings_that_only_the_race_would_refuse_are_refused_at_once(given, message):
    with pytest.raises(SettingsError, match=message):
        CompareSettings(heads=("one",), **given)


def test_heads_that_do_not_exist_or_come_twice_are_refused(names, root, capsys):
    with pytest.raises(SettingsError, match="once"):
        settings(["one", "one"])
    with pytest.raises(HeadsError, match="no heads called 'three'"):
        contestants.load(["three"], root / "model")
    assert compare.main(["--heads", "one", "--data", "nowhere.parquet"]) == 1
    assert "nowhere.parquet" in capsys.readouterr().err
