"""What can be said of trained heads before they race: size, training, accuracy, tokens a step, time to draft."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medusa_core import answers, batch, checkpoint, decode, heads, meter, runtime, text_ranks
from medusa_core.answers import Drafting, Settings
from medusa_core.path_shares import PathShares
from medusa_core.text_ranks import TextRanks
from medusa_core.token_set import TokenSet
from medusa_core.tree import Tree


class Contestant(NamedTuple):
    """Trained heads and the base that they draft for."""

    name: str
    base: object
    drafter: object


@dataclass(frozen=True)
class Counted:
    """What heads guess of their base's own greedy answers; trees are chosen on one half and judged on the other."""

    texts: TokenSet
    judged: TextRanks  # of every other text, from the second on
    accuracy: np.ndarray  # (K, 10) over all texts
    shares: PathShares  # of the other half
    trees: dict[int, Tree]  # by number of nodes below the root

    def tokens_per_step(self) -> dict[int, float]:
        """Tokens a step of each tree on the half that it was not chosen on."""
        return {nodes: self.judged.tokens_per_step(tree) for nodes, tree in self.trees.items()}


def load(names: Iterable[str], model: str = "embedded") -> list[Contestant]:
    """Load heads by name, and each base that they need once. Raises HeadsError for heads that do not exist."""
    bases, found = {}, []
    for name in names:
        own = heads.adapters(name)
        if own not in bases:
            bases[own] = answers.load_base(model, name)
        found.append(Contestant(name, bases[own], heads.load(name, bases[own])))
    return found


# ---------------------------------------------------------------- size and training


def learned(name: str) -> dict:
    """Kind, parameters, megabytes of the files and training of heads by name.

    positions: places of the data that updates learned from, a pass of the data counted each time. Times and positions
    of heads that others were trained on from (Medusa-2's first stage) are included; training_seconds is None where no
    history tells it, and so are positions of heads that come from elsewhere (convert_heads).
    """
    folder = heads.resolve(name)
    tensors, header = checkpoint.load(folder / heads.WEIGHTS_FILE)
    files = [folder / heads.WEIGHTS_FILE]
    adapters = heads.adapters(name)
    if adapters:
        files.append(adapters)
        tensors |= {f"lora.{key}": value for key, value in checkpoint.load(adapters)[0].items()}
    own = {
        "kind": heads.read_config(folder).kind,
        "parameters": sum(value.size for key, value in tensors.items() if key != "draft_ids"),
        "megabytes": sum(path.stat().st_size for path in files) / 1e6,
        "positions": None,
        "training_seconds": None,
    }
    if (config := header.get("config")) is None:
        return own
    own["positions"] = header["held_out"]["step"] * config["batch_positions"]
    own["training_seconds"] = _training_seconds(config)
    if config.get("recipe") == "two-stage":
        first = learned(config["heads"])
        for key in ("positions", "training_seconds"):
            both = own[key], first[key]
            own[key] = None if None in both else sum(both)
    return own


def _training_seconds(config: Mapping) -> float | None:
    """Seconds of the updates of the run that `config` describes."""
    for history in _histories(runtime.ROOT / config["run"]):
        if history.get("config") == config and history.get("train"):
            return history["train"][-1]["seconds"]
    return None


def _histories(run: Path) -> Iterator[dict]:
    """The history in a run's folder, then those that result files keep."""
    if (path := run / "history.json").is_file():
        yield json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((runtime.ARTIFACTS / "results").glob("train_*.json")):
        yield from json.loads(path.read_text(encoding="utf-8")).get("histories", {}).values()


# ---------------------------------------------------------------- guesses along texts


def count(contestant: Contestant, held_out: TokenSet, nodes: Sequence[int]) -> Counted:
    """Rank the tokens of held-out answers in the heads' lists, and choose trees of so many nodes.

    held_out: greedy answers of the base as it is; one that learned with its heads answers the same prompts itself.
    """
    from medusa_core import hidden  # starts Jittor

    texts = own_answers(contestant.base, held_out)
    ranks = text_ranks.measure(contestant.drafter, hidden.compute(contestant.base, texts))
    chosen, judged = ranks.halves()
    shares = chosen.shares()
    return Counted(texts, judged, ranks.accuracy(), shares, {n: shares.best(n) for n in nodes})


def own_answers(base, held_out: TokenSet, sequences: int = 48) -> TokenSet:
    """Greedy answers of at least two tokens: those given, or the base's own where adapters changed it."""
    given = [answer.tolist() for answer in held_out.answer_ids]
    if getattr(base, "adapters", None):
        given = _greedy(base, held_out.prompt_ids, max(map(len, given)), sequences)
    kept = [place for place, answer in enumerate(given) if len(answer) > 1]
    own = replace(held_out, answer_ids=[np.array(answer, np.int32) for answer in given])
    return own.rows(np.array(kept, int))


def _greedy(base, prompts: Sequence[np.ndarray], most: int, sequences: int) -> list[list[int]]:
    stops = tuple(base.config.eos_token_ids)
    requests = [
        batch.Request(key, [batch.Stretch(prompt.tolist(), most, stops)], seed=0)
        for key, prompt in enumerate(prompts)
    ]
    slots = max(map(len, prompts)) + most
    done = batch.generate(base, requests, min(sequences, len(requests)), slots)
    return [request.stretches[0].tokens for request in sorted(done, key=lambda request: request.key)]


def check(contestant: Contestant, counted: Counted, tree: Tree, prompts: int) -> dict:
    """Answer some of the judged texts' prompts with a tree, and compare the steps with those counted along the answers.

    Returns {"texts", "same": answers equal to the texts counted on, which a base that rounds otherwise may have
    written, "decoded" and "counted": tokens a step}. Drafts are rounded to bfloat16: a rank may differ now and then.
    """
    from medusa_core import hidden  # starts Jittor

    places = np.unique(np.linspace(0, len(counted.judged.texts) - 1, prompts).astype(int))
    texts = counted.texts.rows(2 * places + 1)  # the judged half is every other text
    decoded, written = np.zeros(2, int), []
    for prompt, answer in zip(texts.prompt_ids, texts.answer_ids):
        drafting = Drafting(contestant.drafter, tree)
        trace = answers.answer(contestant.base, drafting, prompt.tolist(), Settings(len(answer)))
        decoded += (len(trace.tokens) - 1, len(trace.steps) - 1)
        written.append(np.array(trace.tokens, np.int32))
    own = replace(texts, answer_ids=written)
    ranks = text_ranks.measure(contestant.drafter, hidden.compute(contestant.base, own))
    return {
        "texts": len(places),
        "same": sum(map(np.array_equal, written, texts.answer_ids)),
        "decoded": float(decoded[0] / decoded[1]),
        "counted": ranks.tokens_per_step(tree),
    }


# ---------------------------------------------------------------- time to draft


def draft_seconds(
    contestants: Sequence[Contestant], trees: Mapping[str, Mapping[int, Tree]], past: int, repeats: int
) -> dict[str, dict[int, float]]:
    """Median seconds to fill each tree, by name of the heads and number of nodes.

    Heads and trees take turns, and a plain step comes between drafts: it pushes the heads out of the processor's
    caches, as decoding does.
    """
    times = {name: {nodes: [] for nodes in shapes} for name, shapes in trees.items()}
    base = contestants[0].base
    cache = base.new_cache(1, past + 1)
    decode.prefill(base, meter.filler(base, past), cache)
    criterion = decode.Greedy(base)
    for repeat in range(repeats + 1):
        for name, _, drafter in contestants:
            for nodes, shape in trees[name].items():
                rows, _ = decode.verify(base, decode.ROOT_ONLY, [1], past, cache, criterion)
                begin = time.perf_counter()
                drafter.draft(rows[0], 1, shape)
                if repeat:  # the first round compiles and packs
                    times[name][nodes].append(time.perf_counter() - begin)
    return {n: {size: float(np.median(each)) for size, each in own.items()} for n, own in times.items()}
