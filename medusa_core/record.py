"""Records how answers were decoded, so that every step can be looked at and decided again without a model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from medusa_core import accept, answers, commands, data, decode, ranks, stamp, text
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.runtime import ARTIFACTS
from medusa_core.trace import Reading, Step, Trace

TEMPERATURE = 0.7  # of readings, where the recorded run itself had none
TREE = "replay-8"  # more than pays on a CPU, but enough to see something
EPILOG = """\
A trace is one file, OUT/HEADS-ACCEPTANCE-CATEGORY-ID.json, about 30 kB. Beside the steps of the run it holds what
greedy and typical acceptance need to decide them again (at --temperature, whatever the run's own), and the seconds
of plain decoding. Traces that are there are kept, so the same command goes on after an interruption; delete one to
record it again. Times are medians of --repeats runs: let nothing else run meanwhile. Chapter 10 shows every trace
in artifacts/traces.

examples:
  python -m medusa_core.record --heads gru medusa2
  python -m medusa_core.record --heads medusa1 --drafts all --acceptance greedy --out my-traces \\
      --prompt "Name the four largest moons of Jupiter."
"""


@dataclass(frozen=True)
class Recorder:
    """A model with somebody who guesses, ready to record; about: what every trace's settings should say of them."""

    base: object
    tokenizer: object
    drafting: Drafting
    about: Mapping = field(default_factory=dict)

    def record(
        self, question: str, settings: Settings, temperature: float = TEMPERATURE, repeats: int = 1
    ) -> Trace:
        """Answer a question with guesses and plainly, in turns, and return the trace with readings and texts.

        temperature: of the readings where the run's own is 0. Raises SettingsError for a question that is empty or too
        long.
        """
        if not question.strip():
            raise SettingsError("the question is empty: write something to answer")
        ids = answers.prompt(self.tokenizer, [question])
        plainly = replace(settings, acceptance="exact" if settings.temperature else "greedy")
        runs, plain_runs = [], []
        for _ in range(repeats):
            runs.append(answers.answer(self.base, self.drafting, ids, settings))
            plain_runs.append(answers.answer(self.base, Drafting(), ids, plainly))
        trace = runs[0]
        for step, *again in zip(trace.steps, *(run.steps for run in runs[1:]), strict=True):
            for phase in step.times:
                seconds = [step.times[phase], *(other.times[phase] for other in again)]
                step.times[phase] = round(float(np.median(seconds)), 6)
        plain_seconds = [[sum(step.times.values()) for step in run.steps] for run in plain_runs]
        trace.plain_seconds = np.median(plain_seconds, axis=0).round(6).tolist()
        temperature = settings.temperature or temperature
        trace.settings |= {"question": question, "reading_temperature": temperature, "repeats": repeats}
        trace.settings |= self.about
        read_steps(self.base, trace, temperature)
        for step in trace.steps:
            step.node_logprob = step.node_logprob.astype(float).round(4)
        trace.texts = token_texts(self.tokenizer, trace)
        return trace


def load(model: str, heads: str, tree: str = TREE, drafts: str = "heads") -> Recorder:
    """A recorder for what `--model`, `--heads`, `--tree` and `--drafts` name (answers.load_drafting), warmed up."""
    base = answers.load_base(model, heads)
    about = _named(model, heads, tree, drafts)
    about |= {key: value for key, value in stamp.stamp().items() if key in ("cpu", "threads", "git_commit")}
    tokenizer, drafting = text.load_tokenizer(base.folder), answers.load_drafting(heads, tree, drafts, base)
    for how in (Settings(8), Settings(8, "typical", TEMPERATURE)):
        for who in (drafting, Drafting()):
            answers.answer(base, who, answers.prompt(tokenizer, answers.WARM_UP), how)
    return Recorder(base, tokenizer, drafting, about)


def read_steps(base, trace: Trace, temperature: float) -> None:
    """Fill in what the base says about every node of a trace, at temperature 1 and the given one.

    The trees run through the base again after the run, so that its times are not those of a run that was watched. Rows
    have the same bits in every call, so these are the logits that decided.
    """
    most = max((len(step.parents) for step in trace.steps), default=0)
    cache = base.new_cache(1, len(trace.prompt_ids) + len(trace.tokens) + most)
    for step in trace.steps:
        if step.length:
            _, logits = decode.verify(base, step.tree, step.node_tokens, step.length, cache, _Logits(base))
            cache.commit(step.path)
        else:
            logits = _Logits(base).read(decode.prefill(base, trace.prompt_ids, cache))
        step.reading = reading(step, logits, temperature)


def reading(step: Step, logits: np.ndarray, temperature: float) -> Reading:
    """Reading of a step from the logits (n, V) of its nodes."""
    shape, tokens = step.tree, step.node_tokens
    tempered, tempered_entropy = accept.read_logits(shape, tokens, logits, temperature)
    _, entropy = accept.read_logits(shape, tokens, logits, 1.0)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))  # (n,)
    logprob = np.full(shape.size, np.nan)
    for node in np.flatnonzero(tokens >= 0)[1:]:  # the root was chosen before
        parent = shape.parents[node]
        logprob[node] = shifted[parent, tokens[node]] - total[parent]
    best = logits.argmax(axis=1).astype(np.int32)
    # Four decimals of what is only looked at; what decides keeps its digits.
    return Reading(best, logprob.round(4), entropy.round(4), tempered, tempered_entropy)


def token_texts(tokenizer, trace: Trace) -> dict[int, str]:
    """The text of every token id of a trace: prompt, guesses, answer, and the base's own choices."""
    ids = {*trace.prompt_ids, *trace.tokens}
    for step in trace.steps:
        ids.update(step.node_tokens.tolist())
        ids.update([] if step.reading is None else step.reading.best.tolist())
    return {token: tokenizer.decode([token]) for token in sorted(ids) if token >= 0}


def chosen(questions: Sequence[Mapping], per_category: int) -> list[Mapping]:
    """The first `per_category` questions of each category, in the order of the file."""
    counts: dict[str, int] = {}
    kept = []
    for question in questions:
        counts[question["category"]] = counts.get(question["category"], 0) + 1
        if counts[question["category"]] <= per_category:
            kept.append(question)
    return kept


class _Logits:
    """A criterion of decode.verify that decides nothing: all logits (n, V)."""

    def __init__(self, base):
        self._base = base

    def read(self, hidden) -> np.ndarray:
        return self._base.logits(hidden).numpy()


def _named(model: str, heads: str, tree: str, drafts: str) -> dict:
    return {"model": model, "heads": heads, "tree": tree, "drafts": drafts}


# ---------------------------------------------------------------- command line


class Task(NamedTuple):
    """A trace to record: its file, the question, how to answer it, and what else its settings should say."""

    path: Path
    question: str
    settings: Settings
    about: dict


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.record",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, meaning: str, **how) -> None:
        cli.add_argument(name, help=f"{meaning} (default: %(default)s)", **how)

    add("--heads", "shipped names or folders", nargs="+", default=["medusa1"], metavar="NAME")
    add(
        "--acceptance", "one or several", nargs="+", choices=answers.ACCEPTANCE, default=["greedy", "typical"]
    )
    add("--drafts", "who guesses", choices=answers.DRAFTS, default="heads")
    cli.add_argument(
        "--tree", help=f"of guesses, as in medusa_core.generate (default: {TREE}, where heads fill one)"
    )
    add("--model", '"embedded" or a model folder', default="embedded")
    cli.add_argument("--prompt", help="one question to answer, instead of --questions")
    add(
        "--questions",
        "MT-bench .jsonl; first turns are asked",
        type=Path,
        default=ARTIFACTS / "data" / "questions.jsonl",
    )
    add("--per-category", "questions of each category", type=int, default=1)
    add(
        "--temperature",
        "of typical and exact acceptance, and of the readings",
        type=float,
        default=TEMPERATURE,
    )
    add("--max-new-tokens", "length limit of an answer", type=int, default=40)
    add("--repeats", "runs to time", type=int, default=3)
    add("--seed", "of the sampling", type=int, default=0)
    add("--out", "folder", type=Path, default=ARTIFACTS / "traces")
    return cli


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return commands.finish(lambda: _run(options), f"finished traces are kept, and {commands.GOES_ON}")


def _run(options: argparse.Namespace) -> None:
    if options.repeats < 1 or options.per_category < 1:
        raise SettingsError("--repeats and --per-category must be at least 1")
    if not 0 < options.temperature < float("inf"):
        raise SettingsError(f"--temperature is {options.temperature}; readings need a positive number")
    options.tree = options.tree or (TREE if "heads" in answers.DRAFTS[options.drafts] else "auto")
    for heads in options.heads:
        named = _named(options.model, heads, options.tree, options.drafts)
        known = {**named, "reading_temperature": options.temperature, "repeats": options.repeats}
        known["files_sha256"] = answers.fingerprints(options.model, heads, options.tree, [options.drafts])
        missing = [task for task in _tasks(heads, options) if not _is_there(task, known)]
        if not missing:
            print(f"{heads}: all traces are there.")
            continue
        recorder = load(**named)
        for path, question, settings, about in tqdm(missing, desc=heads):
            trace = recorder.record(question, settings, options.temperature, options.repeats)
            trace.settings |= {**about, "files_sha256": known["files_sha256"]}
            path.parent.mkdir(parents=True, exist_ok=True)
            trace.save(path)


def _tasks(heads: str, options: argparse.Namespace) -> list[Task]:
    """A task for each question and acceptance."""
    if options.prompt is not None:
        asked = [{"question_id": "prompt", "turns": [options.prompt]}]
    else:
        asked = chosen(list(data.read_questions(options.questions)), options.per_category)
    who = Path(heads).name + ("" if options.drafts == "heads" else f"-{options.drafts}")
    tasks = []
    for acceptance in options.acceptance:
        temperature = 0.0 if acceptance == "greedy" else options.temperature
        settings = Settings(options.max_new_tokens, acceptance, temperature, seed=options.seed)
        for each in asked:
            about = {key: each[key] for key in ("question_id", "category") if key in each}
            parts = [who, acceptance, *map(str, reversed(about.values()))]
            name = "-".join(re.sub(r"\W+", "-", part) for part in parts)
            tasks.append(Task(options.out / f"{name}.json", each["turns"][0], settings, about))
    return tasks


def _is_there(task: Task, known: dict) -> bool:
    """Whether a task's trace was recorded. Raises SettingsError naming what differs where it is another one."""
    if not task.path.exists():
        return False
    wanted = {**asdict(task.settings), **known, **task.about, "question": task.question}
    before = Trace.load(task.path).settings
    if differ := answers.changes(before, wanted):
        raise SettingsError(
            f"{task.path} was recorded otherwise: {'; '.join(differ)}. Delete it, or choose another --out"
        )
    return True


if __name__ == "__main__":
    ranks.alone(main)
