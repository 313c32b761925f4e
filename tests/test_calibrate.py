"""Calibration: plans and trees follow the machine's times and keep the rest, all of them or none."""

import json

import numpy as np
import pytest
from tiny_model import folder_of

from medusa_core import answers, calibrate, contestants, cost, heads, runtime, tree_files
from medusa_core import plan as plans
from medusa_core.config import HeadsConfig
from medusa_core.cost import StepCost
from medusa_core.heads.context import LONGEST
from medusa_core.path_shares import PathShares
from medusa_core.plan import Plan, PlanError

SHARES = PathShares({(0,): 0.5, (0, 0): 0.3, (1,): 0.2})
PLAN = Plan(StepCost((9.0, 9.0), 9.0), SHARES.best(3), (0.0, *(0.5,) * LONGEST), data="answers.parquet")
ELSEWHERE = {"cpu": "Another CPU", "instruction_sets": [], "threads": 3, "gpu": None}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, and two sets of heads for it."""
    root = tmp_path_factory.mktemp("calibrate")
    base = answers.load_base(folder_of(root / "model"), "none")
    size, vocabulary = base.config.hidden_size, base.config.vocab_size
    for name in ("one", "two"):
        made = heads.create(HeadsConfig(size, vocabulary, 2, output="shared"), base)
        heads.save(root / "heads" / name, made)
    return root


@pytest.fixture
def folders(root, monkeypatch):
    """Folders of both, with plans of another machine; a step of n rows costs n, a draft 0.1."""
    monkeypatch.setattr(runtime, "ARTIFACTS", root)
    monkeypatch.setattr(calibrate, "_step_seconds", lambda *_: tuple(np.arange(1.0, 5.0)))
    monkeypatch.setattr(
        contestants, "draft_seconds", lambda found, shapes, *_: dict.fromkeys(shapes, {4: 0.1})
    )
    for folder in (folders := [root / "heads" / name for name in ("one", "two")]):
        plans.save(folder / "plan.json", PLAN, SHARES, machine=ELSEWHERE)
        tree_files.save(SHARES.best(3), folder / "tree.json")
    return folders


def test_plan_and_tree_follow_this_machine_and_keep_the_rest(root, folders):
    _, rows = calibrate.calibrate(["one", "two"], str(root / "model"), past=64)
    for folder in folders:
        plan, raw = plans.load(folder / "plan.json"), plans.read(folder / "plan.json")
        assert plan.cost == StepCost((1.0, 2.0, 3.0, 4.0), 0.1)
        assert (plan.tree.choices, plan.rates, plan.data) == (PLAN.tree.choices, PLAN.rates, PLAN.data)
        assert plans.read_shares(folder / "plan.json") == SHARES
        assert raw["heads"] == folder.name and raw["machine"]["cpu"] != "Another CPU"
        assert tree_files.load(folder / "tree.json").choices == ((0,),), "two rows cost twice as much as one"
    assert [(row["heads"], row["rows"]) for row in rows] == [("one", 2), ("two", 2)]
    assert rows[0]["expected speed-up"] == pytest.approx(1.5 / 2.1)


def test_steps_are_timed_by_rows(root, monkeypatch):
    monkeypatch.setattr(runtime, "ARTIFACTS", root)
    monkeypatch.setattr(cost, "ROWS", (1, 2, 4))
    seconds = calibrate._step_seconds(contestants.load(["one"], root / "model")[0], rounds=1, past=8)
    assert len(seconds) == 4 and min(seconds) > 0


def test_one_broken_plan_leaves_all_as_they_are(root, folders):
    before = (folders[0] / "plan.json").read_bytes()
    path = folders[1] / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shares": [[[0], 2]]}))
    with pytest.raises(PlanError, match="key shares"):
        calibrate.calibrate(["one", "two"], str(root / "model"))
    path.unlink()
    with pytest.raises(answers.SettingsError, match=r"plan\.json: no such file; chapter 08"):
        calibrate.calibrate(["one", "two"], str(root / "model"))
    assert (folders[0] / "plan.json").read_bytes() == before


def test_the_command_prints_tables_or_what_is_wrong(root, folders, monkeypatch, capsys):
    monkeypatch.setattr(cost, "ROWS", (1, 2, 4))
    assert calibrate.main(["--heads", "two", "--model", str(root / "model"), "--past", "64"]) == 0
    assert "expected speed-up" in capsys.readouterr().out
    for folder in folders:
        (folder / "plan.json").unlink()
    assert calibrate.main([]) == 1
    assert "no heads with a plan.json in" in capsys.readouterr().err
    assert calibrate.main(["--heads", "three"]) == 1
    assert "error: " in capsys.readouterr().err
    assert calibrate.main(["--rounds", "0"]) == 1
    assert "at least 1" in capsys.readouterr().err


def test_steps_behind_more_tokens_than_the_context_holds_are_refused(root, folders, capsys):
    assert calibrate.main(["--heads", "one", "--model", str(root / "model"), "--past", "193"]) == 1
    assert "--past is 193: with 64 rows behind it that is more than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "warned"),
    [
        (("one", "auto", ["heads"]), True),
        (("one", "chain-2", ["heads", "all"]), True),
        (("one", "chain-2", ["heads"]), False),
        (("none", "auto", ["all"]), False),
        (("none", "dynamic", ["heads", "all"]), False),
    ],
)
def test_a_plan_of_another_machine_is_named_where_it_counts(folders, asked, warned, capsys):
    calibrate.warn("a model", *asked)
    said = capsys.readouterr().err
    assert (
        "Another CPU" in said
        and "python -m medusa_core.calibrate --heads one --model 'a model' (runs" in said
    ) == warned


def test_a_plan_of_this_machine_needs_no_word(root, folders, capsys):
    calibrate.calibrate(["one"], str(root / "model"), past=64)
    capsys.readouterr()
    calibrate.warn("embedded", "one", "auto", ["all"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("family", "warned"), [("25", True), ("26", False), (None, False)])
def test_processors_of_one_name_are_told_apart_by_their_family(
    family, warned, root, folders, monkeypatch, capsys
):
    calibrate.calibrate(["one"], str(root / "model"), past=64)
    capsys.readouterr()
    path = folders[0] / "plan.json"
    raw = json.loads(path.read_text())
    raw["machine"]["cpu_family"] = family
    path.write_text(json.dumps(raw))
    here = {**calibrate.stamp(), "cpu_family": "26"}
    monkeypatch.setattr(calibrate, "stamp", lambda: here)
    calibrate.warn("embedded", "one", "auto", ["all"])
    said = capsys.readouterr().err
    assert (f"of family {family}" in said and "of family 26" in said) == warned == bool(said)
