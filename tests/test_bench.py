"""The benchmark: layout, resume, and what counts as equal."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_decoding import FakeBase, FakeDrafter, tokenizer

from medusa_core import bench, bench_play, files, runtime, summary, tree
from medusa_core.answers import Drafting, Settings, SettingsError, answer
from medusa_core.bench import BenchSettings
from medusa_core.differences import first_difference

TOKENIZER = tokenizer()
TREE = tree.Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])
QUESTIONS = [
    {"question_id": 3, "category": "a", "turns": ["Hello.", "More."]},
    {"question_id": 1, "category": "b", "turns": ["How many?", "Sure?"]},
    {"question_id": 8, "category": "a", "turns": ["Once."]},
]
SETTINGS = BenchSettings(heads="fake", drafts=("heads",), max_new_tokens=20, turns=2, repeats=3)


def run(questions=QUESTIONS, settings=SETTINGS, base=None, skill=0.7, **more):
    base = base or FakeBase()
    guess = {"heads": Drafting(FakeDrafter(base, skill=skill), TREE)}
    return bench.run(base, guess, questions, settings, TOKENIZER, progress=False, **more)


def without_times(result):
    """What a result says apart from the clock."""
    return [
        [
            {key: sample[key] for key in ("question_id", "turn", "token_ids", "text", "steps")}
            for sample in each["samples"]
        ]
        for each in result["runs"]
    ]


# ---------------------------------------------------------------- layout


def test_a_result_holds_every_mode_turn_and_number_and_survives_json():
    result = json.loads(json.dumps(run(), allow_nan=False))
    assert result["version"] == 1 and result["config"]["choices"]["heads"] == [[0], [1], [0, 0], [0, 0, 0]]
    assert result["config"]["questions"] == QUESTIONS and result["config"]["max_new_tokens"] == 20
    assert {"cpu", "cores", "threads", "memory_gib", "compiler", "python", "jittor", "numpy"} <= result[
        "machine"
    ].keys()
    assert {"git_commit", "git_dirty"} <= result["machine"].keys()
    labels = [(each["name"], each["acceptance"], each["temperature"]) for each in result["runs"]]
    assert labels == [
        ("plain", "greedy", 0.0),
        ("plain", "sampling", 0.7),
        ("fake", "greedy", 0.0),
        ("fake", "typical", 0.7),
        ("fake", "exact", 0.7),
    ]
    for each in result["runs"]:
        turns = [(sample["question_id"], sample["category"], sample["turn"]) for sample in each["samples"]]
        assert turns == [(3, "a", 1), (3, "a", 2), (1, "b", 1), (1, "b", 2), (8, "a", 1)]
        for sample in each["samples"]:
            histogram = {int(k): v for k, v in sample["tokens_per_step_histogram"].items()}
            assert sum(histogram.values()) == sample["steps"] - 1
            assert (
                sum(k * v for k, v in histogram.items())
                == sample["tokens"] - 1
                == len(sample["token_ids"]) - 1
            )
            assert set(sample["times"]) == {"prefill", "verify", "accept", "commit", "draft"}
            assert sum(sample["times"].values()) <= sample["seconds"]
            assert len(sample["repeats"]) == 3
            assert sample["seconds"] == sorted(repeat["seconds"] for repeat in sample["repeats"])[1]
    assert len(result["summary"]) == 5 and len(result["categories"]) == 10 and result["differences"] == []


def test_all_modes_of_a_turn_continue_the_same_prompt():
    result = run()
    lengths = [[sample["prompt_tokens"] for sample in each["samples"]] for each in result["runs"]]
    assert all(own == lengths[0] for own in lengths)
    first = result["runs"][0]["samples"][0]
    assert lengths[0][1] == first["prompt_tokens"] + first["tokens"] + len("More.") + 2


def test_modes_warm_up_first_take_turns_in_beginning_and_go_on_from_plain_text(monkeypatch):
    asked, decode = [], bench_play._Bench.decode

    def recorded(self, mode, ids, settings):
        asked.append(((mode.name, mode.settings.acceptance), list(ids)))
        return decode(self, mode, ids, settings)

    monkeypatch.setattr(bench_play._Bench, "decode", recorded)
    result = run(settings=replace(SETTINGS, repeats=2))
    modes = [mode for mode, _ in asked[:5]]
    assert len(set(modes)) == 5
    assert all(ids == TOKENIZER.encode("<user>Name three colours.<assistant>") for _, ids in asked[:5])
    rounds = [[mode for mode, _ in asked[i : i + 5]] for i in range(5, len(asked), 5)]
    assert all(sorted(each) == sorted(modes) for each in rounds)
    # Question by question and round by round another mode begins: questions of two, two and one turns.
    begins = [modes.index(each[0]) for each in rounds]
    assert begins == [0, 1, 0, 1, 1, 2, 1, 2, 2, 3]
    plain = result["runs"][0]["samples"][0]["text"]
    second = TOKENIZER.encode(f"<user>Hello.<assistant>{plain}<user>More.<assistant>")
    assert all(ids == second for _, ids in asked[15:25])


def test_a_chat_that_outgrows_the_context_ends_there_in_every_mode_and_first_turns_are_checked(capsys):
    result = run(base=FakeBase(context=37))
    turns = [[(each["question_id"], each["turn"]) for each in mode["samples"]] for mode in result["runs"]]
    assert all(own == [(3, 1), (3, 2), (1, 1), (8, 1)] for own in turns)
    assert "question 1 ends before turn 2" in capsys.readouterr().err
    base = FakeBase(context=10)
    with pytest.raises(SettingsError, match=r"too few for question 1 \(11 tokens\): shorten"):
        run(base=base)
    assert base.forwards == 0


def test_greedy_and_exact_answers_equal_plain_ones_and_stand_beside_them():
    result = run()
    plain, sampled, greedy, _, exact = result["runs"]
    for own, other in ((greedy, plain), (exact, sampled)):
        for one, two in zip(own["samples"], other["samples"], strict=True):
            assert one["token_ids"] == two["token_ids"] and one["plain_text"] == two["text"] == one["text"]
    assert [row["identical"] for row in result["summary"]] == [None, None, 5, None, None]
    rows = result["summary"]
    assert rows[0]["tokens_per_step"] == rows[1]["tokens_per_step"] == 1.0
    assert rows[2]["tokens_per_step"] > 1.3


def test_heads_of_another_base_are_compared_with_that_base_alone():
    base, other = FakeBase(), FakeBase()
    other.head = other.head[::-1]  # which says other things
    shared = replace(SETTINGS, drafts=("heads",), acceptance=("greedy", "exact"), repeats=1, turns=1)
    own = bench.modes(replace(shared, heads="own"), plain="plain own")
    found = [*bench.modes(shared), *own]
    draftings = {name: Drafting(FakeDrafter(each), TREE) for name, each in (("fake", base), ("own", other))}
    players = {
        name: bench_play.Player(each, Drafting()) for name, each in (("plain", base), ("plain own", other))
    }
    players |= {
        "fake": bench_play.Player(base, draftings["fake"]),
        "own": bench_play.Player(other, draftings["own"]),
    }
    result = bench_play.play(
        players, found, bench_play.asked(QUESTIONS), shared, TOKENIZER, {}, progress=False
    )
    runs = {(each["name"], each["acceptance"]): each["samples"] for each in result["runs"]}
    texts = {key: [sample["token_ids"] for sample in samples] for key, samples in runs.items()}
    assert texts["plain", "greedy"] != texts["plain own", "greedy"]
    assert texts["fake", "greedy"] == texts["plain", "greedy"]
    assert texts["own", "greedy"] == texts["plain own", "greedy"]
    assert texts["own", "exact"] == texts["plain own", "sampling"]
    identical = {row["name"]: row["identical"] for row in result["summary"] if row["acceptance"] == "greedy"}
    assert identical["own"] == identical["fake"] == len(QUESTIONS) and result["differences"] == []


def test_only_the_modes_asked_for_run():
    result = run(settings=replace(SETTINGS, acceptance=("greedy",)))
    assert [(row["name"], row["acceptance"]) for row in result["summary"]] == [
        ("plain", "greedy"),
        ("fake", "greedy"),
    ]


# ---------------------------------------------------------------- differences


class Unsteady(FakeBase):
    """A base whose forwards of several rows behind a prompt are a little off, as if summed otherwise."""

    def __call__(self, ids, positions, mask, cache=None, rows=None):
        hidden = super().__call__(ids, positions, mask, cache, rows)
        if np.size(ids) > 1 and cache is not None and cache.length[0]:
            hidden = hidden + 0.3 * np.sin(np.arange(hidden.shape[-1]))
        return hidden


def test_where_greedy_answers_part_the_two_best_logits_are_recorded():
    base = Unsteady()
    result = run(QUESTIONS[:2], replace(SETTINGS, turns=1, repeats=1, acceptance=("greedy",)), base)
    plain, drafted = result["runs"]
    unequal = [
        (a, b) for a, b in zip(plain["samples"], drafted["samples"]) if a["token_ids"] != b["token_ids"]
    ]
    assert unequal and result["summary"][1]["identical"] == 2 - len(unequal)
    for (one, other), row in zip(unequal, result["differences"], strict=True):
        assert (row["name"], row["question_id"], row["turn"]) == ("fake", one["question_id"], 1)
        at = row["position"]
        assert one["token_ids"][:at] == other["token_ids"][:at]
        assert (row["plain_token"], row["drafted_token"]) == (one["token_ids"][at], other["token_ids"][at])
        assert row["top_tokens"][0] == row["plain_token"], (
            "one forward over the text gives what plain decoding gave"
        )
        assert row["gap"] == row["top_logits"][0] - row["top_logits"][1] > 0


def test_a_shorter_answer_differs_where_it_ends():
    base = FakeBase()
    plain = answer(base, Drafting(), [5, 6], Settings(6)).tokens
    row = first_difference(base, [5, 6], plain, plain[:4])
    assert (row["position"], row["plain_token"], row["drafted_token"]) == (4, plain[4], None)
    assert row["top_tokens"][0] == plain[4]


def test_a_difference_is_looked_at_through_the_models_window():
    base = FakeBase()
    base.config = replace(base.config, model_type="mistral", sliding_window=2)
    prompt = [5, 6, 7, 8, 9, 10]
    plain = answer(base, Drafting(), prompt, Settings(6)).tokens
    full = FakeBase()
    assert plain != answer(full, Drafting(), prompt, Settings(6)).tokens, "the window matters here"
    for cut in range(1, 6):
        assert first_difference(base, prompt, plain, plain[:cut])["top_tokens"][0] == plain[cut]


# ---------------------------------------------------------------- interruption


class Interrupted(FakeDrafter):
    """A drafter during whose n-th draft the user presses Ctrl-C."""

    def __init__(self, base, drafts):
        super().__init__(base)
        self.left = drafts

    def draft(self, hidden, token, draft_tree):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().draft(hidden, token, draft_tree)


def test_an_interrupted_benchmark_goes_on_from_its_finished_questions(tmp_path):
    partial = tmp_path / "results" / "x.partial.jsonl"
    whole = run()
    base = FakeBase()
    with pytest.raises(KeyboardInterrupt):
        bench.run(
            base,
            {"heads": Drafting(Interrupted(base, 200), TREE)},
            QUESTIONS,
            SETTINGS,
            TOKENIZER,
            partial=partial,
            progress=False,
        )
    finished = partial.read_text()
    assert 2 <= finished.count("\n") <= 3, "the header and at least one question, not all"
    partial.write_text(finished + '{"question_id": 8, "samp')
    resumed = run(partial=partial)
    assert without_times(resumed) == without_times(whole)
    kept = json.loads(finished.splitlines()[1])["samples"][0][0]["repeats"]
    assert resumed["runs"][0]["samples"][0]["repeats"] == kept, "finished questions are not measured again"


def test_another_benchmarks_partial_file_is_refused(tmp_path):
    partial = tmp_path / "x.partial.jsonl"
    run(QUESTIONS[:1], partial=partial)
    for differs, changed in (
        ("seed", {"settings": replace(SETTINGS, seed=1)}),
        ("heads_sha256", {"recorded": {"heads_sha256": "0"}}),
        ("questions", {"questions": QUESTIONS}),
    ):
        with pytest.raises(
            SettingsError, match=f"x.partial.jsonl holds part of a measurement with other {differs}:"
        ):
            run(**{"questions": QUESTIONS[:1], **changed}, partial=partial)


def test_a_partial_file_goes_on_at_another_commit_and_on_no_other_processor(tmp_path, monkeypatch):
    partial, here = tmp_path / "x.partial.jsonl", bench_play.stamp()
    bench_play.begin(partial, {"seed": 0})
    monkeypatch.setattr(bench_play, "stamp", lambda: {**here, "git_commit": "another"})
    assert bench_play.begin(partial, {"seed": 0}) == (here, {})
    with pytest.raises(SettingsError, match="with other processes:"):
        bench_play.begin(partial, {"seed": 0, "processes": 2})
    with pytest.raises(SettingsError, match="with other seed:"):  # what was begun had a setting more
        bench_play.begin(partial, {})
    monkeypatch.setattr(bench_play, "stamp", lambda: {**here, "cpu": "another"})
    with pytest.raises(SettingsError, match="x.partial.jsonl holds part of a measurement with other cpu:"):
        bench_play.begin(partial, {"seed": 0})


# ---------------------------------------------------------------- choice of questions and command line


def test_categories_take_turns_and_the_result_keeps_the_order_of_the_file(tmp_path):
    questions = [{"question_id": n, "category": "ab"[n > 2], "turns": ["Hi."]} for n in (1, 2, 3, 4)]
    result = run(questions, replace(SETTINGS, turns=1, repeats=1), partial=tmp_path / "part.jsonl")
    asked = [
        json.loads(line)["question_id"] for line in (tmp_path / "part.jsonl").read_text().splitlines()[1:]
    ]
    assert asked == [1, 3, 2, 4]
    assert [sample["question_id"] for sample in result["runs"][0]["samples"]] == [1, 2, 3, 4]


def test_a_limit_takes_questions_from_every_category_in_turn():
    questions = [{"question_id": i, "category": "aabbbc"[i]} for i in range(6)]
    chosen = {
        limit: [q["question_id"] for q in bench_play.spread(questions, limit)] for limit in (1, 3, 4, 5, None)
    }
    assert chosen == {1: [0], 3: [0, 2, 5], 4: [0, 1, 2, 5], 5: [0, 1, 2, 3, 5], None: [0, 1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats 0"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--temperature", "0"], "exact acceptance samples, but the temperature is 0"),
        (
            ["--acceptance", "greedy", "exact", "--delta", "0.1"],
            "and acceptance is greedy and exact: leave them out",
        ),
        (["--heads", "none"], "name heads"),
        (["--heads", "nobody"], "no heads called 'nobody'"),
        (["--limit", "0"], "--limit is 0"),
        (["--questions", "absent.jsonl"], "absent.jsonl: no such file"),
    ],
)
def test_the_command_line_refuses_before_it_loads_a_model(capsys, arguments, message):
    assert bench.main(arguments) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors


def test_the_command_writes_one_result_file_and_prints_its_table(tmp_path, monkeypatch, capsys):
    from medusa_core import answers, heads, text

    base = FakeBase()
    monkeypatch.setattr(runtime, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(answers, "load_base", lambda *_: base)
    monkeypatch.setattr(answers, "load_drafting", lambda *_: Drafting(FakeDrafter(base), TREE))
    monkeypatch.setattr(text, "load_tokenizer", lambda folder: TOKENIZER)
    monkeypatch.setattr(heads, "resolve", lambda name: tmp_path)
    base.folder, base.adapters = tmp_path, None
    (tmp_path / heads.WEIGHTS_FILE).write_bytes(b"weights")
    questions = tmp_path / "q.jsonl"
    for question in QUESTIONS:
        files.append_line(questions, question)
    arguments = ["--questions", questions, "--limit", 2, "--max-new-tokens", 9, "--name", "quick"]
    assert bench.main(list(map(str, arguments))) == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["quick.json"]
    result = json.loads((tmp_path / "results" / "quick.json").read_text())
    assert [q["question_id"] for q in result["config"]["questions"]] == [3, 1]
    out = tmp_path / "results" / "quick.json"
    assert capsys.readouterr().out == f"{summary.table(result['summary'])}\n\nThe result: {out}\n"
    before = out.read_bytes()
    assert bench.main(list(map(str, arguments))) == 1
    assert f"error: {out} is there already: choose another --name" in capsys.readouterr().err
    assert out.read_bytes() == before
