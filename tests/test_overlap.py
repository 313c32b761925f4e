"""Evaluation prompts are recognised in training prompts, whatever their spelling and surroundings."""

from pathlib import Path

from medusa_core.data import read_prompts, read_questions
from medusa_core.overlap import overlaps, unique_prompts

DATA = Path(__file__).resolve().parents[1] / "artifacts" / "data"


def test_overlap_finds_eight_words_in_a_row_and_short_turns_as_a_whole():
    questions = [
        {
            "question_id": 5,
            "turns": ["One two three four five six seven eight nine ten.", "Why does ice float?"],
        }
    ]
    prompts = [
        "zero one two three four five six seven",  # seven words in a row
        "THREE, four: five six seven eight nine - ten!",  # eight, in another spelling
        "Please tell me why does ice float on milk",  # the short turn as a whole
        "why does wood float",
    ]
    assert overlaps(prompts, questions) == [
        (1, 5, 1, "three four five six seven eight nine ten"),
        (2, 5, 2, "why does ice float"),
    ]


def test_every_evaluation_turn_is_recognised_inside_a_chat():
    questions = list(read_questions(DATA / "questions.jsonl"))
    turns = [turn for row in questions for turn in row["turns"]]
    found = overlaps([f"system\nBe kind.\nuser\n{turn.upper()}\nassistant\n" for turn in turns], questions)
    assert [hit.prompt for hit in found] == list(range(160))


def test_unique_prompts_ignore_case_spaces_and_the_mark_at_the_end():
    different = ["What is it?", "What is that?", "What is 3 + 4?", "What is 3 - 4?"]
    assert unique_prompts([different[0], "what  is it", *different[1:], "WHAT IS 3 + 4"]) == different


def test_the_shipped_seed_prompts_are_distinct_and_hold_no_evaluation_prompt():
    prompts = read_prompts(DATA / "prompts.jsonl")
    assert len(prompts) == len(unique_prompts(prompts)) >= 250
    assert overlaps(prompts, read_questions(DATA / "questions.jsonl")) == []
