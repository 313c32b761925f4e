"""Turns of a chat against the model's context: first ones are checked before any work, later ones can outgrow it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from medusa_core import answers


def check_first(tokenizer, questions: Sequence[Mapping], context: int) -> None:
    """Raise SettingsError naming the questions whose first turn leaves no room for an answer in the context."""
    lengths = {each["question_id"]: len(answers.prompt(tokenizer, each["turns"][:1])) for each in questions}
    if long := [f"{name} ({length} tokens)" for name, length in lengths.items() if length >= context]:
        more = f" and {len(long) - 10} more" if len(long) > 10 else ""
        raise answers.SettingsError(
            f"the model's context holds {context} tokens, too few for question {', '.join(long[:10])}{more}: "
            "shorten the first turn, or leave them out"
        )


def is_outgrown(prompt_ids: Sequence[int], context: int, question_id, turn: int) -> bool:
    """Whether a chat leaves no room in the context at this turn, where it ends; says so above the progress bar."""
    if len(prompt_ids) < context:
        return False
    tqdm.write(
        f"note: question {question_id} ends before turn {turn}, whose prompt has {len(prompt_ids)} tokens; "
        f"the model's context holds {context}",
        file=sys.stderr,
    )
    return True
