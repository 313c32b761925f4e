"""What lies under artifacts/ in the repository, by name: a user's own heads and traces lie beside it."""

HEADS = ("gated", "gru", "lstm", "medusa1", "medusa2", "moe", "redrafter")
QUESTIONS = {
    "writing": 1,
    "roleplay": 11,
    "reasoning": 21,
    "math": 31,
    "coding": 41,
    "extraction": 51,
    "stem": 61,
    "humanities": 71,
}  # the first question of each category


def traces_shipped() -> list[str]:
    """Names of the traces: of medusa1 two questions a category, greedy and typical; of the others one, greedy."""
    names = []
    for heads in HEADS:
        for acceptance in ("greedy", "typical") if heads == "medusa1" else ("greedy",):
            for category, first in QUESTIONS.items():
                questions = (first, first + 1) if heads == "medusa1" else (first,)
                names += [f"{heads}-{acceptance}-{category}-{question}" for question in questions]
    return names
