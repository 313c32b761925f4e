"""Recorded traces to test with: of the NumPy base, and one made by hand with every source and awkward texts."""

import numpy as np
from fake_decoding import FakeBase, FakeDrafter, tokenizer

from medusa_core.answers import Drafting, Settings
from medusa_core.record import Recorder
from medusa_core.trace import Step, Trace
from medusa_core.tree import Tree

TREE = Tree.from_paths([(0,), (1,), (2,), (0, 0), (0, 1), (0, 0, 0)])
QUESTION = "What is <b>2</b> + $2 or $3?"


def recorder(**settings) -> Recorder:
    base = FakeBase(**settings)
    return Recorder(base, tokenizer(), Drafting(FakeDrafter(base, skill=0.4), TREE), {"heads": "fake"})


def recorded(acceptance: str = "greedy", tokens: int = 30, **settings) -> Trace:
    temperature = 0.0 if acceptance == "greedy" else 0.7
    return recorder(**settings).record(QUESTION, Settings(tokens, acceptance, temperature))


def by_hand() -> Trace:
    """The prefill, a step that accepts all of three sources, and one that accepts nothing; no readings."""
    nan, four = np.nan, Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])
    one = {"node_logprob": np.zeros(1), "probability": np.ones(1), "threshold": np.zeros(1)}
    steps = [
        Step([1], (-1,), ("root",), np.array([9]), path=(0,), reason=("root",), length=0, **one),
        Step(
            tokens=[2, 3, 4, 5],
            parents=four.parents,
            source=("root", "heads", "heads", "both", "context"),
            node_tokens=np.array([1, 2, 7, 3, 4]),
            node_logprob=np.log([1, 0.5, 0.2, 0.5, 0.9]),
            path=(0, 1, 3, 4),
            probability=np.array([1.0, 0.6, 0.01, 0.5, 0.4]),
            threshold=np.array([0.0, 0.09, 0.09, 0.05, 0.07]),
            reason=("root", "accepted", "rejected", "accepted", "accepted"),
            length=3,
            times={"verify": 0.010, "draft": 0.002},
        ),
        Step(
            tokens=[6],
            parents=four.parents,
            source=("root", "heads", "heads", "heads", "heads"),
            node_tokens=np.array([5, 7, -1, 3, 4]),
            node_logprob=np.log([1, 0.5, 0.2, 0.5, 0.9]),
            path=(0,),
            probability=np.array([1.0, 0.02, 0.0, nan, nan]),
            threshold=np.array([0.0, 0.03, 0.03, nan, nan]),
            reason=("root", "rejected", "empty", "parent rejected", "parent rejected"),
            length=7,
            times={"verify": 0.011, "draft": 0.002},
        ),
    ]
    texts = {1: "<script>", 2: " a\n", 3: "$x$", 4: "&amp;", 5: "é", 6: "<b>", 7: "no", 9: "\n"}
    settings = {"acceptance": "typical", "temperature": 0.7, "question": QUESTION}
    return Trace([8, 8, 9], steps, settings, 0.1, texts, plain_seconds=[0.1, *[0.01] * 5])
