"""Heads that learned together with their base: every way in by name decodes with the base as they changed it."""

import json
import shutil

import numpy as np
import pytest
from fake_decoding import END, VOCABULARY, tokenizer
from tiny_model import folder_of

from medusa_core import answers, bench, generate, heads, llama, lora, peer_worker, runtime, text
from medusa_core.answers import Drafting, Settings
from medusa_core.config import HeadsConfig
from medusa_core.lora import Adapters, LoraConfig
from medusa_core.model_folder import sha256

QUESTION = {"question_id": 1, "category": "a", "turns": ["Hi there."]}
LENGTH = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny base's folder, and one of heads with adapters that change what the base says."""
    root = tmp_path_factory.mktemp("adapted")
    model = folder_of(root / "model", vocab_size=len(VOCABULARY), eos_token_ids=(END,))
    base = llama.load(model)
    adapters = Adapters(base.config, LoraConfig(rank=4))
    rng = np.random.default_rng(0)
    adapters.load_tensors({n: 0.2 * rng.standard_normal(p.shape) for n, p in adapters.state_dict().items()})
    lora.save(root / "heads" / heads.ADAPTERS_FILE, adapters, model)
    shape = HeadsConfig(base.config.hidden_size, base.config.vocab_size, 2, output="shared")
    heads.save(root / "heads", heads.create(shape, base))
    return model, root / "heads"


@pytest.fixture(scope="module")
def expected(folders):
    """What the adapted base and the base as it was say to QUESTION, decoding plainly."""
    model, folder = folders
    ids = answers.prompt(tokenizer(), QUESTION["turns"])
    bases = [llama.load(model, adapters=adapters) for adapters in (folder, None)]
    adapted, own = (answers.answer(base, Drafting(), ids, Settings(LENGTH)).tokens for base in bases)
    assert adapted != own and len(adapted) > 4
    return adapted, own


@pytest.fixture
def questions(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "load_tokenizer", lambda _: tokenizer())
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n")
    return path


def test_generate_writes_what_the_adapted_base_says(folders, expected, questions, tmp_path):
    model, folder = folders
    out = tmp_path / "o.jsonl"
    arguments = ["--model", model, "--heads", folder, "--tree", "chain-2", "--drafts", "heads"]
    arguments += ["--questions", questions, "--out", out, "--max-new-tokens", LENGTH]
    assert generate.main(list(map(str, arguments))) == 0
    assert json.loads(out.read_text())["choices"][0]["token_ids"] == [expected[0]]
    recorded = json.loads(generate.settings_file(out).read_text())["files_sha256"]
    assert recorded[heads.ADAPTERS_FILE] == sha256(folder / heads.ADAPTERS_FILE)


def test_a_benchmark_compares_with_the_adapted_base_and_says_so(
    folders, expected, questions, tmp_path, monkeypatch
):
    model, folder = folders
    monkeypatch.setattr(runtime, "ARTIFACTS", tmp_path)
    arguments = ["--model", model, "--heads", folder, "--tree", "chain-2", "--drafts", "heads"]
    arguments += [
        "--acceptance",
        "greedy",
        "--questions",
        questions,
        "--max-new-tokens",
        LENGTH,
        "--name",
        "b",
    ]
    assert bench.main(list(map(str, arguments))) == 0
    result = json.loads((tmp_path / "results" / "b.json").read_text())
    assert result["config"]["adapters_sha256"] == sha256(folder / heads.ADAPTERS_FILE)
    assert [run["samples"][0]["token_ids"] for run in result["runs"]] == [expected[0]] * 2
    assert result["differences"] == []


@pytest.mark.parametrize("drafts", [True, False])
def test_both_of_our_ways_among_the_peers_load_the_adapted_base(folders, expected, drafts):
    model, folder = folders
    peer = peer_worker.Ours(drafts)
    peer.load({"model": str(model), "heads": str(folder), "tree": "chain-2", "drafts": "heads"})
    ids = answers.prompt(tokenizer(), QUESTION["turns"])
    assert peer.generate(ids, LENGTH)["tokens"] == expected[0]


def test_heads_without_adapters_and_no_heads_leave_the_base_as_it_is(folders, expected, tmp_path):
    model, folder = folders
    heads.save(tmp_path / "h", heads.load(folder, llama.load(model, adapters=folder)))
    ids = answers.prompt(tokenizer(), QUESTION["turns"])
    for name in ("none", tmp_path / "h"):
        base = answers.load_base(model, name)
        assert base.adapters is None
        assert answers.answer(base, Drafting(), ids, Settings(LENGTH)).tokens == expected[1]


def test_a_base_without_the_adapters_is_refused(folders):
    model, folder = folders
    base = answers.load_base(model, "none")
    with pytest.raises(heads.HeadsError, match=r"learned together with their base.*adapters="):
        answers.load_drafting(folder, "chain-2", "heads", base)


def test_heads_whose_adapters_are_gone_are_refused(tmp_path):
    folder = tmp_path / "medusa2"
    shutil.copytree(heads.resolve("medusa2"), folder)
    (folder / heads.ADAPTERS_FILE).unlink()
    base = answers.load_base("embedded", str(folder))
    with pytest.raises(
        heads.HeadsError, match=r"medusa2: .* lora\.safetensors, which holds its changes, is missing"
    ):
        answers.load_drafting(str(folder), "auto", "all", base)
