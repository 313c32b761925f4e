"""The benchmark of peers: turns, absent and dying workers, resume, the protocol, and what its numbers say."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_decoding import END, FakeBase, FakeDrafter, tokenizer

from medusa_core import (
    answers,
    bench,
    convert,
    files,
    heads,
    peer_process,
    peer_summary,
    peer_worker,
    peers,
    plots,
    readme,
    runtime,
    text,
    tree,
)
from medusa_core.peer_process import PeerError, PeerProcess
from medusa_core.runtime import ROOT

FAKE = Path(__file__).with_name("fake_peer.py")
NAMES = ["ours plain", "ours", "transformers float32", "llama.cpp 4-bit"]
QUESTIONS = [
    {"question_id": 3, "category": "a", "turns": ["Hello.", "More."]},
    {"question_id": 1, "category": "b", "turns": ["How many?"]},
    {"question_id": 8, "category": "a", "turns": ["Once."]},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place for results in which every peer's worker is the fake one, and nothing is loaded or fetched."""
    base = FakeBase()
    (tmp_path / "config.json").write_text(json.dumps(base.config.to_hf()))
    (tmp_path / heads.WEIGHTS_FILE).write_bytes(b"weights")
    for question in QUESTIONS:
        files.append_line(tmp_path / "questions.jsonl", question)
    monkeypatch.setattr(peers, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(runtime, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(peers, "PAUSE", 0)
    monkeypatch.setattr(peers, "BANDWIDTH_EVERY", 2)
    monkeypatch.setattr(peers, "gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(convert, "embedded", lambda: tmp_path)
    monkeypatch.setattr(text, "load_tokenizer", lambda _: tokenizer())
    monkeypatch.setattr(heads, "resolve", lambda _: tmp_path)
    monkeypatch.setattr(
        peer_process, "command", lambda name, *_: [sys.executable, str(FAKE), name, str(tmp_path)]
    )
    return tmp_path


def run(folder, *more, names=NAMES):
    arguments = ["peers", "--questions", folder / "questions.jsonl", "--max-new-tokens", 5, "--peers", *names]
    arguments += ["--name", "peers"]
    return bench.main([str(each) for each in [*arguments, *more]])


def result(folder):
    return json.loads((folder / "results" / "peers.json").read_text())


def asked(folder, key):
    """(name, request) of the requests that have `key`, in order."""
    lines = map(json.loads, (folder / "log").read_text().splitlines())
    return [(name, request) for name, request in lines if key in request]


# ---------------------------------------------------------------- a run


def test_every_peer_answers_every_question_in_turns(folder):
    assert run(folder) == 0
    generations = asked(folder, "ids")
    a, b, c, d = NAMES
    assert [name for name, _ in generations] == [a, b, c, d, *(a, b, c, d), *(b, c, d, a), *(c, d, a, b)]
    prompts = [answers.prompt(tokenizer(), question["turns"][:1]) for question in QUESTIONS]
    assert [request["ids"] for _, request in generations[4:]] == [ids for ids in prompts for _ in NAMES]
    assert {request["max_new_tokens"] for _, request in generations[4:]} == {5}
    assert [name for name, _ in asked(folder, "bandwidth")] == [a, a], (
        "before the first and the third question"
    )


def test_the_result_file_says_who_answered_what_how_fast(folder, capsys):
    run(folder)
    found = result(folder)
    assert [peer["name"] for peer in found["peers"]] == NAMES
    for peer in found["peers"]:
        assert [(s["question_id"], s["category"]) for s in peer["samples"]] == [(3, "a"), (1, "b"), (8, "a")]
        assert all(s["tokens"] == 5 and s["text"] and s["seconds"] for s in peer["samples"])
    rows = {row["name"]: row for row in found["summary"]}
    assert (
        rows["ours"]["tokens_per_second"] == 20.0 and rows["transformers float32"]["tokens_per_second"] == 2.5
    )
    odd = [sum(answers.prompt(tokenizer(), question["turns"][:1])) % 2 for question in QUESTIONS]
    assert rows["llama.cpp 4-bit"]["same"] == sum(odd) < 3 == rows["ours"]["same"]
    assert found["config"]["versions"]["ours"] == {"fake": "1.0"} and found["config"]["heads_sha256"]
    assert found["config"]["questions"][0] == {"question_id": 3, "category": "a", "turns": ["Hello."]}
    assert [each["question_id"] for each in found["bandwidth"]] == [3, 8] and found["machine"]["threads"]
    out = folder / "results" / "peers.json"
    assert capsys.readouterr().out == f"{peer_summary.table(found)}\n\nThe result: {out}\n"
    assert not list((folder / "results").glob("*.partial.jsonl"))


def test_workers_are_told_what_to_load(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run(folder, "--heads", "medusa1", "--tree", "chain-2", "--drafts", "both")
    loads = {name: request["load"] for name, request in asked(folder, "load")}
    assert list(loads) == NAMES
    for options in loads.values():
        assert (options["heads"], options["tree"], options["drafts"]) == ("medusa1", "chain-2", "both")
        assert (options["threads"], options["end_tokens"]) == (3, [END])
        longest = max(len(request["ids"]) for _, request in asked(folder, "ids"))
        most = 10  # that a peer looks ahead at once
        assert options["context"] >= longest + peers.WARM_UP_TOKENS + most
    assert loads["llama.cpp 4-bit"]["gguf"] == str(folder / "model.gguf")


def test_a_peer_that_is_not_installed_is_listed_with_the_way_to_install_it(folder, monkeypatch, capsys):
    (folder / "absent").write_text('["llama.cpp 4-bit"]')
    monkeypatch.setattr(peers, "gguf", lambda: pytest.fail("fetched for nobody"))
    assert run(folder) == 0
    found = result(folder)
    assert [peer["name"] for peer in found["peers"]] == NAMES[:3]
    (absent,) = found["config"]["absent"]
    assert (
        absent["name"] == "llama.cpp 4-bit"
        and "torch" in absent["reason"]
        and ".[peers]" in absent["install"]
    )
    assert "Absent: llama.cpp 4-bit (No module named 'torch'); pip install" in capsys.readouterr().out


def test_a_worker_that_dies_is_named_and_the_same_command_goes_on(folder, capsys):
    (folder / "dies").write_text(
        '{"transformers float32": 3}'
    )  # load, warm-up, the first question, the second
    assert run(folder) == 1
    error = capsys.readouterr().err
    assert "error: question 1: transformers float32: its process ended with status 1" in error
    assert "out of memory, says the fake" in error and "1 finished questions are kept" in error
    partial = folder / "results" / "peers.partial.jsonl"
    assert [row.get("question_id") for row in files.finished_lines(partial)] == [None, 3]

    (folder / "dies").unlink()
    (folder / "log").unlink()
    assert run(folder) == 0
    prompts = [answers.prompt(tokenizer(), question["turns"][:1]) for question in QUESTIONS[1:]]
    again = [request["ids"] for name, request in asked(folder, "ids") if name == "ours"][1:]
    assert again == prompts, "the finished question is not asked again"
    assert [s["question_id"] for s in result(folder)["peers"][0]["samples"]] == [3, 1, 8]
    assert not partial.exists()


def test_part_of_another_benchmark_is_refused_naming_what_differs(folder, capsys):
    (folder / "dies").write_text('{"ours": 3}')
    run(folder)
    (folder / "dies").unlink()
    (folder / "absent").write_text('["llama.cpp 4-bit"]')
    capsys.readouterr()
    assert run(folder, "--drafts", "heads") == 1
    error = capsys.readouterr().err
    assert "peers.partial.jsonl holds part of a measurement with other drafts, versions, absent" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "ours plain", "vllm"], "peer 'vllm' is unknown: expected some of ours plain, ours"),
        (["--peers", "ours"], "peers lack 'ours plain'"),
        (["--limit", "0"], "--limit is 0"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--heads", "nobody"], "no heads called 'nobody'"),
        (["--python", "no/such/python"], "--python no/such/python: no such program"),
        (["--questions", "absent.jsonl"], "absent.jsonl: no such file"),
    ],
)
def test_the_command_line_refuses_before_anything_starts(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(peers, "PeerProcess", lambda *_: pytest.fail("started"))
    assert bench.main(["peers", *arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors


# ---------------------------------------------------------------- workers

NOISY = """
import sys
from medusa_core import peer_worker
class Noisy:
    modules, packages = ({module!r},), ()
    def load(self, options): print("loading", options["model"])
    def generate(self, ids, limit):
        print("generating")
        return {{"tokens": ids[:limit]}}
peer_worker.PEERS["noisy"] = Noisy()
peer_worker.main("noisy")
"""


def start(module="json"):
    command = [sys.executable, "-c", NOISY.format(module=module)]
    return PeerProcess("noisy", command, peer_process.environment(1, ROOT))


def test_a_worker_answers_line_by_line_whatever_its_libraries_print():
    worker = start()
    assert worker.hello == {"versions": {}}
    assert worker.ask(load={"model": "m"}) == {"ready": True}
    answer = worker.ask(ids=[4, 5, 6], max_new_tokens=2)
    assert answer["tokens"] == [4, 5] and answer["seconds"] >= 0
    assert worker.cpu_seconds() >= 0
    worker.close()


def test_a_worker_whose_module_is_missing_says_so():
    worker = start(module="no_such_module")
    assert worker.hello == {"absent": "No module named 'no_such_module'"}
    worker.close()


def test_a_worker_that_fails_or_babbles_is_an_error_that_names_it():
    worker = start()
    with pytest.raises(PeerError, match="noisy: its process ended with status 1(.|\n)*KeyError: 'model'"):
        worker.ask(load={})
    with pytest.raises(PeerError, match="noisy: its process ended"):
        worker.ask(load={})
    with pytest.raises(PeerError, match="noisy: its process said 'hello"):
        PeerProcess("noisy", [sys.executable, "-c", "print('hello')"], dict(os.environ))


def test_ours_answers_as_it_does_without_a_process():
    base = FakeBase()
    drafting = answers.Drafting(FakeDrafter(base), tree.chain(2))
    for peer, own in ((peer_worker.Ours(False), answers.Drafting()), (peer_worker.Ours(True), drafting)):
        peer.base, peer.drafting = base, own
        answer = peer_worker.reply(peer, {"ids": [5, 6, 7], "max_new_tokens": 9})
        expected = answers.answer(base, answers.Drafting(), [5, 6, 7], answers.Settings(9)).tokens
        assert answer["tokens"] == expected and answer["prefill"] <= answer["seconds"]


def test_llama_cpp_starts_afresh_and_stops_at_the_end_token_or_the_limit():
    calls = []

    def generate(ids, temp):
        calls.append((ids, temp))
        yield from (7, 8, 2, 9)

    peer = peer_worker.LlamaCpp()
    peer.model, peer.ends = SimpleNamespace(reset=lambda: calls.append("reset"), generate=generate), [2]
    assert peer.generate([1], 10) == {"tokens": [7, 8, 2]}
    assert peer.generate([1], 2) == {"tokens": [7, 8]}
    assert calls == ["reset", ([1], 0.0)] * 2


def test_the_gguf_file_is_fetched_once_and_again_when_it_is_damaged(tmp_path, monkeypatch):
    fetched = []

    def fetch(folder):
        fetched.append(folder)
        (folder / "file").write_bytes(b"weights")
        return folder / "file"

    (tmp_path / "w").write_bytes(b"weights")
    monkeypatch.setattr(peers, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(convert, "GGUF_SHA256", peers.sha256(tmp_path / "w"))
    monkeypatch.setattr(convert, "fetch_gguf", fetch)
    path = peers.gguf()
    assert path == peers.gguf() and path.read_bytes() == b"weights" and len(fetched) == 1
    path.write_bytes(b"damaged")
    assert peers.gguf().read_bytes() == b"weights" and len(fetched) == 2


# ---------------------------------------------------------------- numbers, table and figure


def three_peers():
    """A result of two peers and an absent one, its numbers easy to work out by hand."""

    def sample(tokens, seconds, same=True, **more):
        return {"tokens": tokens, "seconds": seconds, "same": same, **more}

    plain = [sample(11, 1.1, prefill=0.1), sample(21, 1.05, prefill=0.05), sample(1, 0.1, prefill=0.1)]
    for name, each in enumerate(plain):
        each["question_id"] = name
    found = {
        "config": {
            "bytes_per_token": 100_000_000,
            "heads": "medusa1",
            "drafts": "both",
            "max_new_tokens": 21,
            "versions": {"ours plain": {"jittor": "1"}, "ours": {"jittor": "1"}},
            "absent": [
                {"name": name, "reason": "No module", "install": "pip install it"}
                for name in ("llama.cpp 4-bit", "llama.cpp 4-bit lookup")
            ],
        },
        "machine": {"cpu": "Test CPU", "threads": 2, "instruction_sets": ["AVX2"]},
        "peers": [
            {"name": "ours plain", "samples": plain},
            {"name": "ours", "samples": [sample(10, 0.5), sample(20, 0.5, False), sample(1, 0.05)]},
        ],
        "bandwidth": [
            {"question_id": name, "bytes_per_second": passes}
            for name, passes in enumerate([[2e9, 4e9, 3e9], [1e9, 2.5e9, 1e9], [8.5e9, 8e9, 7e9]])
        ],
        "waiting_seconds": 0.033,
    }
    return {**found, **peer_summary.summarise(found)}


def test_summary_rows_are_as_worked_out_by_hand():
    found = three_peers()
    plain, ours = found["summary"]
    assert (plain["questions"], plain["tokens"], plain["same"]) == (3, 33, 3)
    assert plain["tokens_per_second"] == pytest.approx(10)  # of 10, 20 and 10
    assert (plain["low"], plain["high"]) == pytest.approx((10, 18))
    assert ours["tokens_per_second"] == pytest.approx(20) and ours["same"] == 2  # of 20, 40 and 20
    roofline = found["roofline"]
    assert roofline["bytes_per_second"] == 5e9 and roofline["tokens_per_second"] == pytest.approx(50)
    assert (roofline["low"], roofline["high"]) == (2.5e9, 8.5e9)
    assert roofline["decode_tokens_per_second"] == pytest.approx(15)  # of 10 and 20; one token tells nothing
    assert roofline["share"] == pytest.approx((10 / 40 + 20 / 25) / 2), "each by the memory of its own minute"
    assert found["waiting_share"] == pytest.approx(0.01)


def test_answers_of_one_token_have_no_share_of_the_roofline():
    found = three_peers()
    for peer in found["peers"]:
        peer["samples"] = peer["samples"][2:]
    found |= peer_summary.summarise(found)
    assert found["roofline"]["share"] is None
    assert "allows 25 to 85 tokens/s." in peer_summary.table(found)


def test_the_table_shows_speeds_equality_the_bound_and_who_is_absent():
    lines = peer_summary.table(three_peers()).splitlines()
    assert lines[2].split() == ["ours,", "medusa1", "+", "context", "20.0", "20.0", "36.0", "31", "2/3"]
    assert lines[4] == (
        "Reading the bfloat16 weights moves 100 MB a token. Measured beside 3 of the questions, the memory gave 2 to 8 "
        "GB/s, which allows 25 to 85 tokens/s; after the prompt, plain decoding made 52% of what it allowed at the "
        "time (median of 2 questions; 25% to 80%)."
    )
    assert lines[6:] == [
        "Versions: jittor 1.",
        "Absent: llama.cpp 4-bit, llama.cpp 4-bit lookup (No module); pip install it.",
    ]


def test_readme_has_the_table_once_there_is_a_result(tmp_path):
    results = tmp_path / "artifacts" / "results"
    results.mkdir(parents=True)
    for name in ("benchmark.json", "train_medusa1.json"):
        shutil.copy(ROOT / "artifacts" / "results" / name, results)
    without = readme.tables(tmp_path)
    (results / "peers.json").write_text(json.dumps(three_peers()))
    with_peers = readme.tables(tmp_path)
    assert with_peers.startswith(without + "\n\n")
    assert "| ours plain | 10.0 | 10.0 to 18.0 | 33 |  |" in with_peers
    assert "| ours, medusa1 + context | 20.0 | 20.0 to 36.0 | 31 | 2 of 3 |" in with_peers
    assert (
        "the same 3 questions" in with_peers
        and "Test CPU" in with_peers
        and "Absent: llama.cpp" in with_peers
    )


def test_the_figure_shows_medians_spread_and_roofline():
    figure = plots.fig_peers(three_peers())
    (bars,) = figure.data
    assert list(bars.y) == ["ours, medusa1 + context", "ours plain"] and list(bars.x) == [20.0, 10.0]
    assert list(bars.error_x.array) == [16.0, 8.0] and list(bars.error_x.arrayminus) == [0.0, 0.0]
    assert list(bars.marker.pattern.shape) == ["/", ""], "stripes mean drafts"
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == 50.0
    assert any(note.text == "reading the bfloat16 weights: 50" for note in figure.layout.annotations)
    assert json.loads(figure.to_json())
