"""Questions that several modes of decoding answer in turns, as one result; what is finished outlives a crash."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from medusa_core import answers, ranks, room
from medusa_core.answers import Drafting, Settings, SettingsError
from medusa_core.differences import first_difference
from medusa_core.files import append_line, finished_lines
from medusa_core.machine import resident_mib
from medusa_core.stamp import processor_differences, stamp
from medusa_core.summary import PLAIN, by_category, summarise

VERSION = 1


class Mode(NamedTuple):
    """One way of decoding that takes part in a benchmark."""

    name: str
    acceptance: str
    drafts: str | None  # None for plain decoding
    settings: Settings
    plain: str = PLAIN  # name of the plain decoding that it is compared with


class Player(NamedTuple):
    """What a mode decodes with."""

    base: object
    drafting: Drafting


def asked(questions: Sequence[Mapping]) -> list[dict]:
    """What a result keeps of the questions."""
    return [{key: question[key] for key in ("question_id", "category", "turns")} for question in questions]


def in_turn(questions: Sequence[Mapping]) -> list[int]:
    """Places of the questions, every category in turn."""
    place, seen = [], {}
    for question in questions:
        seen[question["category"]] = seen.get(question["category"], 0) + 1
        place.append(seen[question["category"]])
    return sorted(range(len(place)), key=lambda index: (place[index], index))


def spread(questions: Sequence[Mapping], limit: int | None) -> list[Mapping]:
    """At most `limit` questions, taken from every category in turn, in their original order."""
    return [questions[index] for index in sorted(in_turn(questions)[:limit])]


def play(
    players: Mapping[str, Player],
    modes: Sequence[Mode],
    questions: Sequence[Mapping],
    settings,
    tokenizer,
    config: dict,
    partial: Path | None = None,
    progress: bool = True,
) -> dict:
    """Decode every question in every mode by the player of its name; the first mode's answers continue a chat.

    A chat that outgrows the model's context ends before that turn; SettingsError names questions whose first turn does.
    settings: something with turns, repeats and seed. config: all that the result depends on. partial: JSON lines of
    finished questions; a run that finds one of the same config and processor goes on from it. Several processes
    (ranks.py) share the questions; the result's config says how many shared the machine.
    """
    if ranks.size() > 1:
        config = {**config, "processes": ranks.size()}
    partial = partial and ranks.own_path(partial)
    machine, done = begin(partial, config)
    bench = _Bench(players, modes, tokenizer, settings)
    room.check_first(tokenizer, questions, bench.context)
    warm_up = answers.prompt(tokenizer, answers.WARM_UP)
    for mode in modes:
        bench.decode(mode, warm_up, replace(mode.settings, max_new_tokens=8))
    resident = [resident_mib()]
    silent = ranks.quiet() if progress else {"disable": True}
    # In turn, so that a slow minute of the machine is not one category's. Where the file holds one category after the
    # other, its order lets each category's questions begin with every mode.
    for place in tqdm(ranks.share(in_turn(questions)), desc="questions", **silent):
        name = questions[place]["question_id"]
        if name not in done:
            done[name] = bench.question(questions[place], first=place)
            if partial:
                append_line(partial, {"question_id": name, **done[name]})
    done = {name: record for part in ranks.everyones(done) for name, record in part.items()}
    records = [done[question["question_id"]] for question in questions]
    resident.append(resident_mib())
    runs = [
        {
            "name": mode.name,
            "acceptance": mode.acceptance,
            "temperature": mode.settings.temperature,
            "plain": mode.plain,
            "samples": [sample for record in records for sample in record["samples"][number]],
        }
        for number, mode in enumerate(modes)
    ]
    return {
        "version": VERSION,
        "config": config,
        "machine": machine,
        "runs": runs,
        "summary": summarise(runs),
        "categories": by_category(runs),
        "resident_mib": [round(each, 1) for each in resident],  # before the first question and after the last
        "differences": [difference for record in records for difference in record["differences"]],
    }


class _Bench:
    """What every question of a benchmark is decoded with."""

    def __init__(self, players: Mapping[str, Player], modes, tokenizer, settings):
        self.players, self.modes, self.tokenizer, self.settings = players, modes, tokenizer, settings
        self.context = min(player.base.config.max_position_embeddings for player in players.values())

    def decode(self, mode: Mode, prompt_ids: list[int], settings: Settings) -> dict:
        """One timed generation."""
        begin = time.perf_counter()
        trace = answers.answer(*self.players[mode.name], prompt_ids, settings)
        seconds = time.perf_counter() - begin
        return {"token_ids": trace.tokens, "seconds": seconds, **answers.measures(trace)}

    def question(self, question: Mapping, first: int) -> dict:
        """Decode all turns in all modes; returns {"samples": a list a mode, one a turn; "differences"}."""
        samples: list[list[dict]] = [[] for _ in self.modes]
        differences, history = [], []
        for turn, asked in enumerate(question["turns"][: self.settings.turns], 1):
            history.append(asked)
            ids = answers.prompt(self.tokenizer, history)
            if room.is_outgrown(ids, self.context, question["question_id"], turn):
                break
            labels = {"question_id": question["question_id"], "category": question["category"], "turn": turn}
            seed = answers.turn_seed(self.settings.seed, question["question_id"], turn)
            for own, repeats in zip(samples, self._interleaved(ids, seed, first)):
                own.append({**labels, "prompt_tokens": len(ids), **self._sample(repeats)})
            differences += [{**labels, **found} for found in self._compare(ids, [own[-1] for own in samples])]
            history.append(samples[0][-1]["text"])
        return {"samples": samples, "differences": differences}

    def _interleaved(self, ids: list[int], seed: int, first: int) -> list[list[dict]]:
        """Generations by mode and repeat; the modes take turns in beginning, so none always runs first."""
        done: list[list[dict]] = [[] for _ in self.modes]
        for round_ in range(self.settings.repeats):
            for offset in range(len(self.modes)):
                number = (first + round_ + offset) % len(self.modes)
                mode = self.modes[number]
                done[number].append(self.decode(mode, ids, replace(mode.settings, seed=seed)))
        return done

    def _compare(self, ids: list[int], samples: list[dict]) -> Iterator[dict]:
        """Put plain decoding's text beside that of the heads; yield where greedy answers part."""
        pairs = list(zip(self.modes, samples))
        plain = {(mode.name, mode.settings.temperature): s for mode, s in pairs if not mode.drafts}
        for mode, sample in pairs:
            if not mode.drafts:
                continue
            other = plain[mode.plain, mode.settings.temperature]
            sample["plain_text"] = other["text"]
            if mode.acceptance == "greedy" and sample["token_ids"] != other["token_ids"]:
                base = self.players[mode.name].base
                found = first_difference(base, ids, other["token_ids"], sample["token_ids"])
                yield {"name": mode.name, **found}

    def _sample(self, repeats: list[dict]) -> dict:
        """The repeat of median duration stands for all; what the spread is computed from is kept of each."""
        middle = sorted(repeats, key=lambda each: each["seconds"])[(len(repeats) - 1) // 2]
        keys = ("tokens", "steps", "seconds")
        kept = [{**{key: each[key] for key in keys}, "prefill": each["times"]["prefill"]} for each in repeats]
        text = self.tokenizer.decode(middle["token_ids"], skip_special_tokens=True)
        return {"text": text, **middle, "repeats": kept}


# ---------------------------------------------------------------- going on after an interruption


def begin(partial: Path | None, config: Mapping, key: str = "question_id") -> tuple[dict, dict]:
    """The machine's stamp and the finished rows by `key`, of `partial` where that has been begun.

    Raises SettingsError naming what differs when it is of another config or processor.
    """
    machine, config = stamp(), json.loads(json.dumps(config))  # as a file gives it back
    rows = [] if partial is None else finished_lines(partial)
    if not rows:
        if partial is not None:
            append_line(partial, {"config": config, "machine": machine})
        return machine, {}
    before = rows[0]
    begun = before.get("config", {})
    differ = [name for name in {**begun, **config} if begun.get(name) != config.get(name)]
    differ += processor_differences(before.get("machine", {}), machine)
    if differ:
        raise SettingsError(
            f"{partial} holds part of a measurement with other {', '.join(differ)}: "
            "finish that one, delete the file, or choose another --name"
        )
    return before["machine"], {row.pop(key): row for row in rows[1:]}
