"""Self-distillation: what is asked and answered, and runs that survive an interruption."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from medusa_core import decode, distill, llama
from medusa_core.data import DataError
from medusa_core.distill import Settings
from medusa_core.text import TEMPLATES, chat_ids, load_tokenizer
from medusa_core.token_set import read_tokens

PROMPTS = ["Name a colour.", "Say hello."]
SETTINGS = Settings(self_prompts=3, samples=2, max_new_tokens=6)


@pytest.fixture(scope="module")
def base():
    return llama.load("embedded")


def rows(tokens):
    return [(p.tolist(), a.tolist()) for p, a in zip(tokens.prompt_ids, tokens.answer_ids, strict=True)]


def test_template_parts_put_together_are_the_template(base):
    tokenizer = load_tokenizer(base.folder)
    before, after = distill.template_parts(tokenizer)
    middle = tokenizer("Hello there", add_special_tokens=False)["input_ids"]
    assert before + middle + after == list(chat_ids(tokenizer, [{"role": "user", "content": "Hello there"}]))


def test_token_set_holds_the_models_own_answers(base, tmp_path):
    distill.distill(base, PROMPTS, SETTINGS, tmp_path / "set.parquet", batch=4)
    tokens = read_tokens(tmp_path / "set.parquet")
    tokenizer = load_tokenizer(base.folder)
    prompts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens.prompt_ids]
    assert sum(PROMPTS[0] in text for text in prompts) == 2  # two samples; answer 0 greedy, answer 1 sampled
    assert all(0 < len(ids) <= 6 for ids in tokens.answer_ids)
    assert tokens.sample[:4].tolist() == [0, 1, 0, 1]
    assert tokens.metadata["temperatures"] == [0.0, 0.7] and tokens.metadata["seed"] == 0
    greedy = chat_ids(tokenizer, [{"role": "user", "content": PROMPTS[0]}])
    (answer,) = [a for p, a in rows(tokens) if p == list(greedy)][:1]
    assert answer == [t for step in decode.plain(base, greedy, 6) for t in step.tokens]


def test_the_seed_of_the_settings_is_that_of_every_answer(base):
    asked = distill.requests(load_tokenizer(base.folder), (2,), PROMPTS, replace(SETTINGS, seed=7))
    assert [request.seed for request in asked] == [7] * 7


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_and_gives_the_same_rows(base, tmp_path):
    whole = distill.distill(base, PROMPTS, SETTINGS, tmp_path / "whole.parquet", batch=4)

    def stop_after_two(*arguments):
        for number, request in enumerate(generate(*arguments)):
            if number == 2:
                raise Interrupted
            yield request

    generate, distill.generate = distill.generate, stop_after_two
    try:
        with pytest.raises(Interrupted):
            distill.distill(base, PROMPTS, SETTINGS, tmp_path / "cut.parquet", batch=4)
    finally:
        distill.generate = generate
    journal = tmp_path / "cut.parquet.journal.jsonl"
    assert len(journal.read_text().splitlines()) == 3
    journal.write_text(journal.read_text() + '{"key": 5, "prompt_i')  # what a crash leaves
    resumed = distill.distill(base, PROMPTS, SETTINGS, tmp_path / "cut.parquet", batch=3)
    assert rows(resumed) == rows(whole)
    assert not journal.exists()


@pytest.fixture
def unwritten(base, tmp_path, monkeypatch):
    """The output of a run that was interrupted when all answers stood in its journal; no model made them."""

    def answered(base, requests, *_):
        for request in requests:
            for stretch in request.stretches:
                stretch.tokens = [5 + request.key]
            yield request

    def interrupted(*_):
        raise Interrupted

    out = tmp_path / "set.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(distill, "generate", answered)
        patch.setattr(distill, "write_tokens", interrupted)
        with pytest.raises(Interrupted):
            distill.distill(base, PROMPTS, SETTINGS, out)
    return out


def test_a_run_made_shorter_leaves_out_the_answers_that_it_no_longer_asks_for(base, unwritten):
    tokens = distill.distill(base, PROMPTS, replace(SETTINGS, self_prompts=1), unwritten)
    assert [answer.tolist() for answer in tokens.answer_ids] == [[5 + key] for key in range(4 + 1)]


def test_a_journal_of_another_model_is_refused(base, unwritten, tmp_path):
    folder = shutil.copytree(base.folder, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    manifest = folder / distill.MANIFEST
    manifest.write_text(manifest.read_text() + " ")
    other = SimpleNamespace(folder=folder, config=base.config)
    with pytest.raises(DataError, match="set.parquet.journal.jsonl: made with other settings"):
        distill.distill(other, PROMPTS, SETTINGS, unwritten)


def test_a_journal_of_other_settings_is_refused(base, tmp_path):
    journal = tmp_path / "set.parquet.journal.jsonl"
    journal.write_text(json.dumps({"digest": "of something else"}) + '\n{"key": 0}\n')
    with pytest.raises(DataError, match="set.parquet.journal.jsonl: made with other settings"):
        distill.distill(base, PROMPTS, SETTINGS, tmp_path / "set.parquet")


def test_a_journal_without_an_answer_stops_no_other_settings(tmp_path):
    path = tmp_path / "journal"
    distill.Journal(path, {"seed": 0})
    distill.Journal(path, {"seed": 1}).add({"key": 4})
    assert distill.Journal(path, {"seed": 1}).rows == [{"key": 4}]


def test_a_damaged_line_of_a_journal_is_named(tmp_path):
    path = tmp_path / "journal"
    distill.Journal(path, {}).add({"key": 4})
    path.write_text(path.read_text() + '{"key": 5, \n{"key": 6}\n')
    with pytest.raises(DataError, match=r"journal:3: not valid JSON"):
        distill.Journal(path, {})


def test_a_prompt_that_is_too_long_leaves_no_journal(base, tmp_path):
    with pytest.raises(DataError, match="answer 0 may come to"):
        distill.distill(base, ["word " * 9000], SETTINGS, tmp_path / "long.parquet")
    assert list(tmp_path.iterdir()) == []


def test_answers_that_could_not_tell_their_temperature_are_refused():
    with pytest.raises(
        DataError, match="samples is 3; a multiple of 2 was expected, one for each of .* 0, 0.7"
    ):
        Settings(samples=3)
    assert Settings(samples=4, temperatures=(0.0, 0.5)).samples == 4


def test_a_folder_is_no_output(base, tmp_path):
    with pytest.raises(DataError, match="a folder; expected the name of a Parquet file"):
        distill.distill(base, PROMPTS, SETTINGS, tmp_path)


def test_the_command_line_replaces_no_token_set(tmp_path, capsys):
    out = tmp_path / "kept.parquet"
    out.write_text("kept")
    with pytest.raises(SystemExit):
        distill.main(["--self-prompts", "1", "--out", str(out)])
    assert "kept.parquet already exists" in capsys.readouterr().err
    assert out.read_text() == "kept"


def test_evaluation_prompts_are_left_out(base, tmp_path):
    questions = [{"question_id": 1, "turns": ["Name a colour."]}]
    tokens = distill.distill(base, PROMPTS, SETTINGS, tmp_path / "set.parquet", batch=4, exclude=questions)
    tokenizer = load_tokenizer(base.folder)
    assert not any("Name a colour" in tokenizer.decode(ids) for ids in tokens.prompt_ids)
    assert any("Say hello" in tokenizer.decode(ids) for ids in tokens.prompt_ids)


def test_command_line_names_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "medusa_core.distill", "--out", str(tmp_path / "x.parquet")]
    nothing = subprocess.run(command, capture_output=True, text=True)
    assert nothing.returncode == 2 and "nothing to answer" in nothing.stderr
    missing = subprocess.run([*command, "--prompts", "nowhere.jsonl"], capture_output=True, text=True)
    assert missing.returncode == 1 and "nowhere.jsonl: no such file" in missing.stderr


def test_prompts_of_its_own_need_a_token_that_ends_a_users_turn(base):
    tokenizer = load_tokenizer(base.folder)
    tokenizer.chat_template = TEMPLATES["vicuna"]
    with pytest.raises(DataError, match="ends a user's turn with ' ASSISTANT:' .* give --prompts FILE"):
        list(distill.requests(tokenizer, (2,), PROMPTS, SETTINGS))
    given = list(distill.requests(tokenizer, (2,), PROMPTS, replace(SETTINGS, self_prompts=0)))
    assert len(given) == 4


def test_a_prompt_that_leaves_no_room_for_its_answer_is_named_before_anything_runs(base, tmp_path):
    settings = replace(SETTINGS, self_prompts=0, max_new_tokens=base.config.max_position_embeddings)
    with pytest.raises(DataError, match="answer 0 may come to .* lower max_new_tokens"):
        distill.distill(base, PROMPTS, settings, tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"samples": 0}, "samples is 0; at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; at least 1"),
        ({"temperatures": (0.0, -0.7)}, "from 0 up were expected"),
        ({"temperatures": ()}, "one or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(SETTINGS, **change)
