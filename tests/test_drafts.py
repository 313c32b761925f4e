"""--drafts: what each way of guessing loads from a heads folder's plan, and what is said when it cannot."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from medusa_core import answers, runtime
from medusa_core import plan as plans
from medusa_core.answers import DRAFTS, SettingsError
from medusa_core.config import HeadsConfig
from medusa_core.cost import StepCost
from medusa_core.files import write_json
from medusa_core.heads import CONFIG_FILE
from medusa_core.heads.context import LONGEST
from medusa_core.path_shares import PathShares
from medusa_core.plan import Plan
from medusa_core.token_set import write_tokens
from medusa_core.tree import Tree

RATES = (0.0, *(0.5,) * LONGEST)
BASE = SimpleNamespace(config=SimpleNamespace(hidden_size=8, vocab_size=20))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A heads folder with a plan that counts n-grams of `answers.parquet`."""
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    monkeypatch.setattr(runtime, "ARTIFACTS", tmp_path)
    rows = [
        {"prompt_ids": np.array([1, n]), "answer_ids": np.array([5, 6, 7, 5, 6, 7]), "sample": 0}
        for n in range(30)
    ]
    write_tokens(tmp_path / "answers.parquet", rows, {})
    folder = tmp_path / "heads" / "one"
    folder.mkdir(parents=True)
    write_json(folder / CONFIG_FILE, HeadsConfig(8, 20, output="shared").to_dict())
    plan = Plan(StepCost((1.0, 1.1, 1.2)), Tree.from_paths([(0,)]), RATES, data="answers.parquet")
    plans.save(folder / "plan.json", plan, PathShares({(0,): 0.5}))
    return folder


@pytest.mark.parametrize("drafts", [name for name, sources in DRAFTS.items() if "heads" not in sources])
def test_texts_guess_without_heads_by_the_plan(folder, drafts):
    drafter, tree, plan = answers.load_drafting(str(folder), "auto", drafts, BASE)
    assert drafter is None and tree is None
    assert (plan.rates == RATES) == ("context" in DRAFTS[drafts])
    assert (plan.corpus is not None) == ("corpus" in DRAFTS[drafts])
    if plan.corpus:
        assert next(iter(plan.corpus.next([5, 6]))) == 7


def test_a_corpus_of_another_models_tokens_is_refused_and_the_context_is_not(folder, monkeypatch):
    monkeypatch.setattr(answers, "DEFAULT_HEADS", "one")
    other = SimpleNamespace(config=SimpleNamespace(hidden_size=8, vocab_size=30))
    for drafts in ("text", "corpus"):
        with pytest.raises(
            SettingsError, match="that one was made for, .* with vocab_size 20 .* has 30.*--drafts context"
        ):
            answers.load_drafting("none", "auto", drafts, other)
    assert answers.load_drafting("none", "auto", "context", other).plan.corpus is None


def test_ways_are_called_by_who_guesses():
    assert answers.who("gru", "all") == "gru + context + corpus"
    assert [answers.who("gru", name) for name in ("heads", "text")] == ["gru", "context + corpus"]


@pytest.mark.parametrize("data", ["", "missing.parquet"])
def test_a_corpus_without_its_answers_is_refused_with_the_fix(folder, data):
    path = folder / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": data}))
    with pytest.raises(SettingsError, match=r"plan\.json: key data names .*; chapter 08 writes it"):
        answers.load_drafting(str(folder), "auto", "text", BASE)


def test_a_missing_plan_and_an_unknown_way_are_refused(folder):
    (folder / "plan.json").unlink()
    with pytest.raises(
        SettingsError, match=r"plan\.json: no such file; chapter 08 and `compare --write-plans`"
    ):
        answers.load_drafting(str(folder), "auto", "context", None)
    with pytest.raises(SettingsError, match="drafts 'none' is unknown: expected one of heads, context"):
        answers.load_drafting(str(folder), "auto", "none", None)


@pytest.mark.parametrize("heads_name, drafts", [("none", ["all"]), ("one", ["text", "corpus"])])
def test_a_tree_that_no_heads_draft_along_is_refused(heads_name, drafts):
    with pytest.raises(SettingsError, match="--tree chain-2 needs heads that draft along it"):
        answers.check_tree(heads_name, "chain-2", drafts)
    answers.check_tree(heads_name, "auto", drafts)
    answers.check_tree("one", "chain-2", [*drafts, "both"])


def test_fingerprints_tell_runs_apart_by_what_their_files_hold(folder, tmp_path, monkeypatch):
    model = tmp_path / "model"
    write_json(model / "manifest.json", {})
    monkeypatch.setattr(answers, "resolve", lambda name: model)

    def found(drafts="all"):
        return answers.fingerprints("a model", str(folder), "auto", [drafts])

    before = found()
    assert set(before) == {"base", "plan.json", "corpus"}
    for path in (model / "manifest.json", folder / "plan.json", tmp_path / "answers.parquet"):
        kept = path.read_bytes()
        path.write_bytes(kept + b" ")
        assert sum(before[name] != value for name, value in found().items()) == 1
        path.write_bytes(kept)
    assert found() == before
    assert set(found("heads")) == {"base"}, "the heads alone follow no plan"
    assert set(answers.fingerprints("a model", "none", "dynamic", ["all"])) == {"base"}, "nobody guesses"
    monkeypatch.setattr(answers, "DEFAULT_HEADS", "one")
    assert answers.fingerprints("a model", "none", "auto", ["text"]) == before
