"""The answers file: layout, chat prompts, going on after an interruption, errors that name their cause."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_decoding import END, FakeBase, FakeDrafter, tokenizer

from medusa_core import answers, convert, data, generate, text, tree
from medusa_core.answers import Drafting, Settings, SettingsError

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = [
    {"question_id": 5, "category": "a", "turns": ["Hi there.", "And then?"]},
    {"question_id": 2, "category": "b", "turns": ["What is 2 + 2?", "Why?"]},
    {"question_id": 9, "category": "b", "turns": ["One turn only."]},
]
TREE = tree.Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])
TOKENIZER = tokenizer()


def write(out, questions=QUESTIONS, base=None, drafter=None, turns=2, **settings):
    base = base or FakeBase()
    settings = Settings(**{"max_new_tokens": 12, **settings})
    generate.generate(base, TOKENIZER, Drafting(drafter, drafter and TREE), questions, settings, turns, out)
    return read(out)


def read(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def without_times(rows):
    for row in rows:
        del row["choices"][0]["wall_time"]
    return rows


def test_a_line_holds_an_entry_for_every_turn(tmp_path):
    rows = write(tmp_path / "o.jsonl")
    assert [row["question_id"] for row in rows] == [5, 2, 9]
    assert list(rows[0]) == ["question_id", "choices"] and len(rows[0]["choices"]) == 1
    choice = rows[0]["choices"][0]
    keys = ["index", "turns", "token_ids", "prompt_tokens", "new_tokens", "steps", "wall_time"]
    assert list(choice) == keys and choice["index"] == 0
    assert all(len(choice[key]) == 2 for key in keys[1:]) and len(rows[2]["choices"][0]["turns"]) == 1
    assert choice["new_tokens"] == [12, 12] == [len(ids) for ids in choice["token_ids"]] == choice["steps"]
    assert choice["turns"] == [TOKENIZER.decode(ids) for ids in choice["token_ids"]]
    assert all(seconds > 0 for seconds in choice["wall_time"])


def test_the_second_prompt_holds_the_first_turn_and_its_answer(tmp_path):
    asked = []

    class Recording(FakeBase):
        def __call__(self, ids, positions, mask, cache=None, rows=None):
            if cache is not None and not cache.length[0]:
                asked.append(TOKENIZER.decode(ids))
            return super().__call__(ids, positions, mask, cache, rows)

    rows = write(tmp_path / "o.jsonl", QUESTIONS[:1], Recording())
    answer = rows[0]["choices"][0]["turns"][0]
    assert asked[-2:] == [
        "<user>Hi there.<assistant>",
        f"<user>Hi there.<assistant>{answer}<user>And then?<assistant>",
    ]
    assert rows[0]["choices"][0]["prompt_tokens"] == [11, 11 + 12 + 11]


def test_one_turn_can_be_asked_for(tmp_path):
    assert [len(row["choices"][0]["turns"]) for row in write(tmp_path / "o.jsonl", turns=1)] == [1, 1, 1]


def test_an_answer_that_ends_at_once_is_empty_and_the_second_turn_goes_on(tmp_path):
    rows = write(tmp_path / "o.jsonl", QUESTIONS[:1], FakeBase(end_bias=1e6))
    assert rows[0]["choices"][0]["turns"] == ["", ""]
    assert rows[0]["choices"][0]["token_ids"] == [[END], [END]]


def test_medusa_writes_the_same_greedy_answers_in_fewer_steps(tmp_path):
    plain = write(tmp_path / "plain.jsonl")
    base = FakeBase()
    drafted = write(tmp_path / "drafted.jsonl", base=base, drafter=FakeDrafter(base))
    for one, other in zip(plain, drafted, strict=True):
        assert one["choices"][0]["token_ids"] == other["choices"][0]["token_ids"]
        assert sum(other["choices"][0]["steps"]) < sum(one["choices"][0]["steps"])


@pytest.mark.parametrize(
    ("arguments", "acceptance"),
    [
        ([], "greedy"),
        (["--temperature", "0.7"], "exact"),
        (["--temperature", "0.7", "--acceptance", "typical"], "typical"),
    ],
)
def test_no_text_is_changed_unless_it_is_asked_for(arguments, acceptance):
    assert generate.settings_of(generate.parser().parse_args(arguments)).acceptance == acceptance


def test_thresholds_of_typical_acceptance_are_those_asked_for(tmp_path):
    asked = ["--temperature", "0.7", "--acceptance", "typical", "--epsilon", "0.2", "--delta", "0.4"]
    settings = generate.settings_of(generate.parser().parse_args(asked))
    assert (settings.epsilon, settings.delta) == (0.2, 0.4)
    base, typical = FakeBase(), {"acceptance": "typical", "temperature": 0.7}
    drafter = FakeDrafter(base, skill=0.3)
    steps = [
        sum(
            row["choices"][0]["steps"][0]
            for row in write(
                tmp_path / f"{bar}.jsonl", base=base, drafter=drafter, epsilon=bar, delta=bar, **typical
            )
        )
        for bar in (0.0, 1.0)
    ]
    assert steps[0] < steps[1], "a guess of any probability passes, or none but a certain one"


def test_exact_acceptance_draws_what_plain_sampling_draws(tmp_path):
    settings = {"acceptance": "exact", "temperature": 0.8, "seed": 4}
    plain = write(tmp_path / "plain.jsonl", **settings)
    base = FakeBase()
    drafted = write(tmp_path / "drafted.jsonl", base=base, drafter=FakeDrafter(base), **settings)
    ids = [[row["choices"][0]["token_ids"] for row in rows] for rows in (plain, drafted)]
    assert ids[0] == ids[1]
    other = write(tmp_path / "other.jsonl", **{**settings, "seed": 5})
    assert ids[0] != [row["choices"][0]["token_ids"] for row in other]


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("tail", ["", '{"question_id": 2, "choi'])
def test_an_interrupted_run_goes_on_to_the_same_file(tmp_path, tail):
    settings = {"acceptance": "typical", "temperature": 0.7}
    whole = write(tmp_path / "whole.jsonl", **settings)
    out = tmp_path / "part.jsonl"
    write(out, QUESTIONS[:1], **settings)
    first = out.read_text()
    out.write_text(first + tail)
    resumed = write(out, **settings)
    assert out.read_text().startswith(first), "finished answers are not made again"
    assert without_times(resumed) == without_times(whole)


def test_a_finished_file_is_left_alone(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out)
    before, base = out.read_bytes(), FakeBase()
    write(out, base=base)
    assert out.read_bytes() == before and base.forwards == 0


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(lines[0] + "{oops\n" + lines[2])
    with pytest.raises(ValueError, match=r"o\.jsonl:2: not valid JSON"):
        write(out)
    out.write_text(lines[0] + "[]\n" + lines[2])
    with pytest.raises(ValueError, match=r"o\.jsonl:2: not an answer"):
        write(out)


# ---------------------------------------------------------------- settings and prompts that cannot work


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; at least 1"),
        ({"temperature": 0.7}, "greedy acceptance takes the likeliest token, but the temperature is 0.7"),
        ({"acceptance": "typical"}, "typical acceptance samples, but the temperature is 0"),
        ({"acceptance": "exact"}, "exact acceptance samples, but the temperature is 0"),
        (
            {"temperature": -1.0, "acceptance": "exact"},
            "temperature is -1.0; expected 0 or a positive number",
        ),
        ({"temperature": float("nan"), "acceptance": "exact"}, "temperature is nan"),
        ({"epsilon": float("nan")}, "epsilon nan and delta 0.3: expected a number from 0 to 1"),
        ({"delta": -0.1}, "delta -0.1: expected"),
        ({"acceptance": "lucky"}, "acceptance 'lucky' is unknown: expected one of greedy, typical, exact"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**{"max_new_tokens": 5, **settings})


def test_first_turns_longer_than_the_context_are_all_named_before_any_answer(tmp_path):
    base = FakeBase(context=11)
    message = (
        r"holds 11 tokens, too few for question 5 \(11 tokens\), 2 \(16 tokens\), 9 \(16 tokens\): shorten"
    )
    with pytest.raises(SettingsError, match=message):
        write(tmp_path / "o.jsonl", base=base)
    assert base.forwards == 0


def test_a_chat_that_outgrows_the_context_ends_there_and_the_next_question_goes_on(tmp_path, capsys):
    rows = write(tmp_path / "o.jsonl", base=FakeBase(context=30))
    assert len(rows) == len(QUESTIONS)
    assert len(rows[0]["choices"][0]["turns"]) == len(rows[0]["choices"][0]["steps"]) == 1
    assert "question 5 ends before turn 2, whose prompt has 34 tokens" in capsys.readouterr().err


def test_an_empty_prompt_and_a_tree_deeper_than_the_heads_are_refused():
    base = FakeBase()
    with pytest.raises(SettingsError, match="the prompt is empty"):
        answers.answer(base, Drafting(), [], Settings(4))
    with pytest.raises(tree.TreeError, match="4 deep but there are 3 heads"):
        answers.answer(base, Drafting(FakeDrafter(base, heads=3), tree.chain(4)), [3, 4], Settings(4))


def test_a_prompt_that_fills_the_context_still_gets_one_token():
    trace = answers.answer(FakeBase(context=10), Drafting(), list(range(3, 12)), Settings(50))
    assert 1 <= len(trace.tokens) <= 2


# ---------------------------------------------------------------- command line


def command(capsys, *arguments):
    """Run the command line in this process: exit code, standard output, standard error."""
    try:
        code = generate.main(list(map(str, arguments)))
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--temperature", "0.7", "--acceptance", "greedy"], "greedy acceptance takes the likeliest token"),
        (["--acceptance", "typical"], "the temperature is 0"),
        (["--limit", "0"], "--limit is 0"),
        (["--tree", "chain-2"], "--tree chain-2 needs heads"),
        (["--heads", "nobody"], "no heads called 'nobody'"),
    ],
)
def test_the_command_line_refuses_before_it_loads_a_model(capsys, tmp_path, questions, arguments, message):
    out = tmp_path / "o.jsonl"
    code, _, errors = command(capsys, "--questions", questions, "--out", out, *arguments)
    assert code == 1 and errors.startswith("error: ") and message in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.jsonl"]


def test_a_malformed_question_line_is_named(capsys, tmp_path, questions):
    questions.write_text(questions.read_text() + '{"question_id": 11, "category": "c", "turns"\n')
    code, _, errors = command(capsys, "--questions", questions, "--out", tmp_path / "o.jsonl")
    assert code == 1 and f"error: {questions}:4: not valid JSON" in errors


def test_every_seed_question_and_turn_draws_numbers_of_its_own():
    seeds = [
        answers.turn_seed(seed, name, turn) for seed in (0, 1) for name in (1, 11, "b") for turn in (1, 2)
    ]
    assert len(set(seeds)) == len(seeds)
    assert (
        answers.turn_seed(0, 1, 1) == 1115114384
    )  # answers files of before are continued with the same numbers


@pytest.mark.parametrize("asked", [["--epsilon", "0.2"], ["--delta", "0.1", "--temperature", "0.7"]])
def test_thresholds_that_no_acceptance_reads_are_refused(capsys, tmp_path, questions, asked):
    code, _, errors = command(capsys, "--questions", questions, "--out", tmp_path / "o.jsonl", *asked)
    assert code == 1 and "are typical acceptance's, and acceptance is " in errors


@pytest.mark.parametrize(("dtype", "same"), [("bfloat16", False), ("float32", True)])
def test_answers_of_another_order_of_sums_are_not_mixed(monkeypatch, tmp_path, questions, dtype, same):
    options = generate.parser().parse_args(["--questions", str(questions), "--dtype", dtype])
    records = []
    for order in "01":
        monkeypatch.setenv("MEDUSA_AMX", order)
        records.append(generate.record(options, Settings(12)))
    assert (records[0] == records[1]) == same


def test_a_change_is_told_in_words_and_of_files_by_name():
    before = {"seed": 0, "files_sha256": {"base": "1", "plan.json": "2"}, "turns": 1}
    now = {"seed": 1, "files_sha256": {"base": "1", "plan.json": "3", "tree": "4"}, "turns": 1}
    assert answers.changes(before, now) == [
        "seed was 0 and is now 1",
        "files_sha256 differs in plan.json, tree",
    ]
    assert answers.changes(now, now) == []


def test_other_settings_than_those_of_the_file_are_refused_by_name(capsys, tmp_path, questions):
    out = tmp_path / "o.jsonl"
    arguments = ["--questions", questions, "--out", out, "--max-new-tokens", 12]
    recorded = generate.record(generate.parser().parse_args(list(map(str, arguments))), Settings(12))
    out.write_text("")
    code, _, errors = command(capsys, *arguments)
    assert code == 1 and "o.jsonl.settings.json does not, so it cannot be continued" in errors
    for damaged in ("[]", "{"):
        generate.settings_file(out).write_text(damaged)
        code, _, errors = command(capsys, *arguments)
        assert code == 1 and "o.jsonl.settings.json: " in errors and "Choose another --out" in errors
    generate.settings_file(out).write_text(json.dumps({**recorded, "seed": 1}))
    code, _, errors = command(capsys, *arguments)
    assert code == 1 and "begun with other settings: seed was 1 and is now 0. Choose another --out" in errors
    generate.settings_file(out).write_text(json.dumps(recorded))
    write(out)
    code, output, _ = command(capsys, *arguments)
    assert code == 0 and "is complete" in output


def test_heads_are_listed_and_needed_arguments_are_named(capsys):
    code, output, _ = command(capsys, "--heads", "list")
    assert code == 0 and output.strip()
    code, _, errors = command(capsys, "--heads", "none")
    assert code == 2 and "--questions FILE and --out FILE are needed" in errors


def test_the_embedded_model_answers_through_the_command_line(tmp_path):
    out = tmp_path / "o.jsonl"
    arguments = ["--questions", "artifacts/data/questions.jsonl", "--limit", "2", "--max-new-tokens", "8"]
    command = [sys.executable, "-m", "medusa_core.generate", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    real = text.load_tokenizer(convert.resolve("embedded"))
    questions = list(data.read_questions(ROOT / "artifacts" / "data" / "questions.jsonl"))
    for row, question in zip(read(out), questions[:2], strict=True):
        assert row["question_id"] == question["question_id"]
        choice = row["choices"][0]
        assert choice["new_tokens"] == [8, 8] == choice["steps"]
        assert choice["turns"] == [real.decode(ids) for ids in choice["token_ids"]]
        first, second = question["turns"]
        prompts = [[first], [first, choice["turns"][0], second]]
        assert choice["prompt_tokens"] == [len(answers.prompt(real, turns)) for turns in prompts]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "is complete" in again.stdout


@pytest.mark.parametrize("program", ["generate", "record", "compare"])
def test_a_program_that_does_not_share_its_work_refuses_mpirun(program):
    environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", f"medusa_core.{program}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "leave mpirun out" in done.stderr
