"""Answering one prompt, plainly or with Medusa: the answers file, the benchmark and the notebooks call it."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from medusa_core import accept, decode, heads, runtime, text, tree, tree_files
from medusa_core import plan as plans
from medusa_core.convert import resolve
from medusa_core.heads import PLAN_FILE, corpus
from medusa_core.model_folder import MANIFEST, sha256
from medusa_core.plan import Plan
from medusa_core.token_set import read_tokens
from medusa_core.trace import PHASES, Step, Trace
from medusa_core.tree import Tree

ACCEPTANCE = ("greedy", "typical", "exact")
# Who guesses, by name: the heads, n-grams of this text (context.py), n-grams of the model's other answers (corpus.py).
DRAFTS = {
    "heads": ("heads",),
    "context": ("context",),
    "corpus": ("corpus",),
    "text": ("context", "corpus"),
    "both": ("heads", "context"),
    "all": ("heads", "context", "corpus"),
}
DRAFTS_HELP = (
    "the heads; n-grams of the context, of the corpus of the model's other answers, or of both texts; "
    "both heads and context; or all three"
)
DEFAULT_HEADS = "medusa1"  # whose measurements of this machine count where no heads are named
WARM_UP = ("Name three colours.",)


class SettingsError(ValueError):
    """Settings that contradict each other, or a prompt that cannot be answered with them."""


@dataclass(frozen=True)
class Settings:
    """How to continue a prompt; epsilon and delta are typical acceptance's.

    Plain decoding samples whenever the temperature is above 0, whatever the acceptance.
    """

    max_new_tokens: int
    acceptance: str = "greedy"
    temperature: float = 0.0
    epsilon: float = accept.EPSILON
    delta: float = accept.DELTA
    seed: int = 0

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise SettingsError(
                f"max_new_tokens is {self.max_new_tokens}; at least 1 token must be asked for"
            )
        if self.acceptance not in ACCEPTANCE:
            raise SettingsError(
                f"acceptance {self.acceptance!r} is unknown: expected one of {', '.join(ACCEPTANCE)}"
            )
        if self.seed < 0:
            raise SettingsError(f"seed is {self.seed}; expected 0 or more")
        if not (0 <= self.epsilon <= 1 and 0 <= self.delta < float("inf")):
            raise SettingsError(
                f"epsilon {self.epsilon} and delta {self.delta}: expected a number from 0 to 1, and one from 0 up"
            )
        if not 0 <= self.temperature < float("inf"):
            raise SettingsError(f"temperature is {self.temperature}; expected 0 or a positive number")
        if self.temperature > 0 and self.acceptance == "greedy":
            raise SettingsError(
                f"greedy acceptance takes the likeliest token, but the temperature is {self.temperature}: "
                "use temperature 0, or acceptance typical or exact"
            )
        if self.temperature == 0 and self.acceptance != "greedy":
            raise SettingsError(
                f"{self.acceptance} acceptance samples, but the temperature is 0: "
                "use a temperature above 0, or acceptance greedy"
            )


class Drafting(NamedTuple):
    """Who guesses: heads along a tree, or what a plan picks of the heads' and the context's; by default nobody."""

    drafter: object | None = None
    tree: Tree | None = None
    plan: Plan | None = None


def answer(base, drafting: Drafting, prompt_ids: Sequence[int], settings: Settings) -> Trace:
    """Continue a prompt with guesses ahead, or plainly where nobody guesses.

    Returns the trace, its texts left empty; prefill is the time to the first token.
    Raises SettingsError for an empty prompt or one that leaves no room in the context, TreeError for a tree
    deeper than the heads.
    """
    begin, steps, prefill = time.perf_counter(), [], 0.0
    for step in stream(base, drafting, prompt_ids, settings):
        if not steps:
            prefill = time.perf_counter() - begin
        steps.append(step)
    return Trace(list(prompt_ids), steps, asdict(settings), prefill)


def stream(base, drafting: Drafting, prompt_ids: Sequence[int], settings: Settings) -> Iterator[Step]:
    """The steps of `answer` as they are decoded; the same errors."""
    check_prompt(prompt_ids, base.config.max_position_embeddings)
    drafter, draft_tree, plan = drafting
    if drafter is None and plan is None:
        return decode.plain(
            base, prompt_ids, settings.max_new_tokens, temperature=settings.temperature, seed=settings.seed
        )
    if drafter is not None:
        tree.check_depth(draft_tree or plan.tree, drafter.config.num_heads)
    shape = draft_tree or decode.ROOT_ONLY
    return decode.medusa(base, drafter, shape, prompt_ids, **asdict(settings), plan=plan)


def prompt(tokenizer, turns: Sequence[str]) -> list[int]:
    """Token ids of a chat whose user and assistant turns alternate, up to where the next answer begins."""
    # Templates refuse empty turns, but a model may answer with its end token at once.
    messages = [
        {
            "role": "assistant" if index % 2 else "user",
            "content": turn if turn.strip() or not index % 2 else "...",
        }
        for index, turn in enumerate(turns)
    ]
    return text.chat_ids(tokenizer, messages)


def check_prompt(prompt_ids: Sequence[int], context: int) -> None:
    """Raise SettingsError unless the prompt has a token and leaves room for another."""
    if not len(prompt_ids):
        raise SettingsError("the prompt is empty; it needs at least one token")
    if len(prompt_ids) >= context:
        raise SettingsError(
            f"the prompt has {len(prompt_ids)} tokens, but the model's context holds {context}: shorten it"
        )


def measures(trace: Trace) -> dict:
    """A trace in numbers: tokens, steps, seconds of each phase, how many steps gave 1, 2, ... tokens.

    The first step is the prompt's own forward, which gives one token; it is counted in tokens and steps, and
    left out of the histogram.
    """
    times = {phase: sum(step.times.get(phase, 0.0) for step in trace.steps) for phase in PHASES}
    produced = Counter(len(step.tokens) for step in trace.steps[1:])
    return {
        "tokens": len(trace.tokens),
        "steps": len(trace.steps),
        "times": {"prefill": trace.prefill, **times},
        "tokens_per_step_histogram": {str(count): produced[count] for count in sorted(produced)},
    }


def turn_seed(seed: int, question_id: int | str, turn: int) -> int:
    """A turn's own seed: a run that was interrupted draws the same numbers as one that was not."""
    digest = hashlib.sha256(f"{seed}/{question_id}/{turn}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def fingerprints(model: str, heads_name: str, tree_name: str, drafts: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file that decides an answer or its time, by what it is: a run goes on only with the same.

    drafts: ways of guessing, of DRAFTS. Raises HeadsError where there are no such heads, SettingsError as `check_tree`.
    """
    check_tree(heads_name, tree_name, drafts)
    found = {"base": resolve(model) / MANIFEST}  # the embedded model may have to be made first
    drafts = [each for each in drafts if not nobody_guesses(heads_name, each)]
    folder = heads.resolve(DEFAULT_HEADS if heads_name == "none" else heads_name) if drafts else None
    if heads_name != "none":
        found |= {name: folder / name for name in (heads.WEIGHTS_FILE, heads.ADAPTERS_FILE)}
        found["tree"] = tree_files.path_of(tree_name, folder)
    if drafts and (tree_name == "dynamic" or set(drafts) != {"heads"}):
        found[PLAN_FILE] = folder / PLAN_FILE
        if found[PLAN_FILE].is_file() and (counted := plans.load(found[PLAN_FILE]).data):
            found["corpus"] = runtime.ROOT / counted
    return {name: sha256(path) for name, path in found.items() if path.is_file()}


def changes(before: Mapping, now: Mapping) -> list[str]:
    """In words, which values of `now` differ from what was recorded before; of `fingerprints`, which files."""
    said = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            names = [name for name in {**old, **value} if old.get(name) != value.get(name)]
            said += [f"{key} differs in {', '.join(names)}"] if names else []
        elif old != value:
            said.append(f"{key} was {json.dumps(old)} and is now {json.dumps(value)}")
    return said


def load_base(model: str, heads_name: str, dtype: str = "bfloat16"):
    """Load the base that these heads draft for, merged with the adapters that they learned with, if they did.

    heads_name "none" means the base as it is. Raises HeadsError when there are no such heads, else as `llama.load`.
    """
    from medusa_core import llama  # importing it starts Jittor

    adapters = None if heads_name == "none" else heads.adapters(heads_name)
    return llama.load(model, dtype, adapters=adapters)


def check_tree(heads_name: str, tree_name: str, drafts: Sequence[str]) -> None:
    """Raise SettingsError for a tree that none of the ways of drafting would ask heads to fill."""
    if tree_name in ("auto", "dynamic"):
        return
    if heads_name == "none" or not any("heads" in DRAFTS[each] for each in drafts):
        raise SettingsError(
            f"--tree {tree_name} needs heads that draft along it: give --heads NAME, and --drafts that ask them"
        )


def nobody_guesses(heads_name: str, drafts: str) -> bool:
    """Whether this way of drafting is plain decoding: it asks heads, and there are none."""
    return heads_name == "none" and "heads" in DRAFTS[drafts]


def load_drafting(name: str, tree_name: str, drafts: str, base) -> Drafting:
    """Load what `--heads NAME --tree NAME --drafts DRAFTS` asks for.

    drafts, of DRAFTS: "heads" are the heads alone, along the tree, or along the plan's own choice at every step where
    the tree is "dynamic"; all others follow the plan. Raises HeadsError or TreeError when there are no such heads or
    tree or the tree is deeper than the heads, SettingsError or PlanError when there is no plan to choose by.
    """
    if drafts not in DRAFTS:
        raise SettingsError(f"drafts {drafts!r} is unknown: expected one of {', '.join(DRAFTS)}")
    sources = DRAFTS[drafts]
    if nobody_guesses(name, drafts):
        return Drafting()
    folder = heads.resolve(DEFAULT_HEADS if name == "none" else name)
    if "heads" not in sources:
        if "corpus" in sources:
            _check_corpus(folder, base, drafts)
        return Drafting(plan=load_plan(folder, sources))
    drafter, plan, draft_tree = heads.load(name, base), None, None
    if drafts != "heads" or tree_name == "dynamic":
        plan = load_plan(folder, sources)
        chosen = plan.tree if tree_name in ("auto", "dynamic") else tree_files.find(tree_name, folder)
        plan = replace(plan, tree=chosen)
    else:
        draft_tree = tree_files.find(tree_name, folder)
    tree.check_depth(draft_tree or plan.tree, drafter.config.num_heads)
    return Drafting(drafter, draft_tree, plan)


def _check_corpus(folder: Path, base, drafts: str) -> None:
    try:
        heads.check_base(folder, base)
    except heads.HeadsError as error:
        raise SettingsError(
            f"--drafts {drafts} counts answers of the model that {folder.name} was made for, which has other tokens "
            f"({error}); name heads of this model, or --drafts context"
        ) from None


def who(heads_name: str, drafts: str) -> str:
    """What a way of drafting is called in results: who guesses, the heads by their name."""
    return " + ".join(heads_name if source == "heads" else source for source in DRAFTS[drafts])


def load_plan(folder: Path, sources: Sequence[str]) -> Plan:
    """The plan of a heads folder, from its PLAN_FILE, for guesses of `sources` only.

    Raises SettingsError naming the file that is missing, and how to make it.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise SettingsError(
            f"{path}: no such file; chapter 08 and `compare --write-plans` measure it, and --drafts heads does without"
        )
    plan = plans.load(path)
    counted = None
    if "corpus" in sources:
        data = runtime.ROOT / plan.data
        if not (plan.data and data.is_file()):
            raise SettingsError(
                f"{path}: key data names {plan.data or 'no file'!r}, expected a token set whose n-grams can be "
                "counted; chapter 08 writes it, and --drafts both does without"
            )
        counted = corpus.of_answers(read_tokens(data))
    return replace(plan, rates=plan.rates if "context" in sources else None, corpus=counted)
