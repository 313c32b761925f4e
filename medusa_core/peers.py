"""The same questions to this package and to its peers, in turns and each in its own process, in one JSON file."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from medusa_core import answers, bench_play, commands, convert, data, heads, machine, peer_process, room, text
from medusa_core.answers import SettingsError
from medusa_core.config import ModelConfig
from medusa_core.files import append_line, file_name, replacing, write_json
from medusa_core.model_folder import read_json, sha256
from medusa_core.peer_process import PeerError, PeerProcess
from medusa_core.peer_summary import REFERENCE, summarise, table
from medusa_core.peer_worker import PEERS, LlamaCpp, Ours
from medusa_core.runtime import ARTIFACTS, ROOT

VERSION = 2  # says which question each measurement of the memory belongs to
BYTES_PER_WEIGHT = 2  # bfloat16
WARM_UP_TOKENS = 32
ROOM = 16  # tokens behind the longest text: llama.cpp writes its candidates there, too
BANDWIDTH_EVERY = 7  # questions; shares no factor with 8 peers, or the same one would always come next
BANDWIDTH_PASSES = 8
PAUSE = 0.1  # seconds between generations, in which the threads of the last one stop spinning
INSTALL = "pip install -e '.[peers]', or name another environment's interpreter with --python"


@dataclass(frozen=True)
class PeerSettings:
    """What is compared: heads, tree and drafts are those of "ours"."""

    peers: tuple[str, ...] = tuple(PEERS)
    heads: str = "medusa1"
    tree: str = "auto"
    drafts: str = "all"
    max_new_tokens: int = 128

    def __post_init__(self):
        answers.Settings(self.max_new_tokens)
        if unknown := sorted(set(self.peers) - set(PEERS)):
            raise SettingsError(f"peer {unknown[0]!r} is unknown: expected some of {', '.join(PEERS)}")
        if REFERENCE not in self.peers:
            raise SettingsError(f"peers lack {REFERENCE!r}, with which the others are compared")


def run(
    workers: Mapping[str, PeerProcess],
    questions: Sequence[Mapping],
    prompts: Sequence[list[int]],
    settings: PeerSettings,
    tokenizer,
    recorded: Mapping,
    partial: Path,
) -> dict:
    """Let all loaded `workers` answer every question in turn, and return the result that goes to artifacts/results.

    recorded: what else decides the result, such as versions, absent peers and bytes_per_token. partial: JSON lines of
    finished questions; a run that finds one of the same config and processor goes on from it. Raises SettingsError
    when it is of another, PeerError when a worker dies: finished questions stay in `partial`.
    """
    labels = [{key: question[key] for key in ("question_id", "category")} for question in questions]
    asked = [{**own, "turns": question["turns"][:1]} for own, question in zip(labels, questions)]
    config = {**asdict(settings), "questions": asked, **recorded}
    stamped, done = bench_play.begin(partial, config)
    for number, ids in enumerate(tqdm(prompts, desc="questions")):
        name = labels[number]["question_id"]
        if name in done:
            continue
        try:
            record = _question(workers, ids, number, settings.max_new_tokens)
        except PeerError as error:
            raise PeerError(
                f"question {name}: {error}\n"
                f"{len(done)} finished questions are kept in {partial}; the same command goes on"
            ) from None
        for sample in record["samples"].values():
            sample["text"] = tokenizer.decode(sample.pop("token_ids"), skip_special_tokens=True)
        done[name] = record
        append_line(partial, {"question_id": name, **record})
    records = [done[label["question_id"]] for label in labels]
    result = {
        "version": VERSION,
        "config": config,
        "machine": stamped,
        "peers": [
            {"name": name, "samples": [{**own, **one["samples"][name]} for own, one in zip(labels, records)]}
            for name in workers
        ],
        "bandwidth": [
            {"question_id": own["question_id"], "bytes_per_second": record["bandwidth"]}
            for own, record in zip(labels, records)
            if "bandwidth" in record
        ],
        "waiting_seconds": sum(record["waiting_seconds"] for record in records),
    }
    return {**result, **summarise(result)}


def _question(workers: Mapping[str, PeerProcess], ids: list[int], number: int, limit: int) -> dict:
    """One question by all; the peers take turns in beginning, so none always runs first.

    waiting_seconds: processor time that waiting peers took while another generated.
    """
    record = {}
    names, found, waiting = list(workers), {}, 0.0
    first = number % len(names)
    for name in names[first:] + names[:first]:
        if name == REFERENCE and number % BANDWIDTH_EVERY == 0:  # just before what is compared with it
            time.sleep(PAUSE)
            record["bandwidth"] = workers[name].ask(bandwidth=BANDWIDTH_PASSES)["bytes_per_second"]
        time.sleep(PAUSE)
        others = [worker for other, worker in workers.items() if other != name]
        before = sum(worker.cpu_seconds() for worker in others)
        found[name] = workers[name].ask(ids=ids, max_new_tokens=limit)
        waiting += sum(worker.cpu_seconds() for worker in others) - before
    reference = found[REFERENCE]["tokens"]
    samples = {}
    for name in names:
        ids = found[name].pop("tokens")
        samples[name] = {"tokens": len(ids), "token_ids": ids, "same": ids == reference, **found[name]}
    return {"samples": samples, "waiting_seconds": round(waiting, 2), **record}


# ---------------------------------------------------------------- starting


def measure(settings: PeerSettings, questions: Sequence[Mapping], out: Path, python: str) -> dict:
    """Start the peers, run the benchmark, write the result file `out` and return it.

    python: the interpreter of the peers that are not ours. A peer that is not installed there is listed as absent.
    """
    recorded = {}
    if settings.heads != "none":  # a wrong name is told before the time that loading takes
        recorded["heads_sha256"] = sha256(heads.resolve(settings.heads) / heads.WEIGHTS_FILE)
        if adapters := heads.adapters(settings.heads):  # both of ours are then another model than the peers'
            recorded["adapters_sha256"] = sha256(adapters)
    recorded["files_sha256"] = answers.fingerprints(
        "embedded", settings.heads, settings.tree, [settings.drafts]
    )
    folder = convert.embedded()
    config = ModelConfig.from_hf(read_json(folder / "config.json"), str(folder / "config.json"))
    recorded["bytes_per_token"] = BYTES_PER_WEIGHT * config.parameters_read_per_token
    tokenizer = text.load_tokenizer(folder)
    room.check_first(tokenizer, questions, config.max_position_embeddings)
    prompts = [answers.prompt(tokenizer, question["turns"][:1]) for question in questions]
    warm_up = answers.prompt(tokenizer, answers.WARM_UP)
    threads = machine.threads()
    options = {
        **{key: getattr(settings, key) for key in ("heads", "tree", "drafts")},
        "model": str(folder),
        "threads": threads,
        "context": max(map(len, [*prompts, warm_up])) + max(settings.max_new_tokens, WARM_UP_TOKENS) + ROOM,
        "end_tokens": list(config.eos_token_ids),
    }
    partial = out.with_suffix(".partial.jsonl")
    environment = peer_process.environment(threads, ROOT)
    with ExitStack() as stack:
        workers, versions, absent = {}, {}, []
        for peer in tqdm(settings.peers, desc="starting peers"):
            command = peer_process.command(peer, isinstance(PEERS[peer], Ours), python)
            worker = stack.enter_context(closing(PeerProcess(peer, command, environment)))
            if "absent" in worker.hello:
                absent.append({"name": peer, "reason": worker.hello["absent"], "install": INSTALL})
                continue
            if isinstance(PEERS[peer], LlamaCpp):
                options["gguf"] = str(gguf())
            worker.ask(load=options)
            worker.ask(ids=warm_up, max_new_tokens=WARM_UP_TOKENS)
            workers[peer], versions[peer] = worker, worker.hello["versions"]
        recorded |= {"versions": versions, "absent": absent}
        result = run(workers, questions, prompts, settings, tokenizer, recorded, partial)
    write_json(out, result)
    partial.unlink()
    return result


def gguf() -> Path:
    """The embedded model's own file, for llama.cpp; the first call downloads it (93 MB) into artifacts/models.

    Raises ConvertError when the download fails or is not the file that is expected.
    """
    path = ARTIFACTS / "models" / Path(convert.GGUF).name
    if not path.is_file() or sha256(path) != convert.GGUF_SHA256:
        with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
            shutil.copyfile(convert.fetch_gguf(Path(folder)), temporary)
    return path


# ---------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    defaults = PeerSettings()
    cli = argparse.ArgumentParser(
        prog="python -m medusa_core.bench peers",
        description="Measure this package's decoding beside other programs', on the same questions, in turns.",
        epilog="Writes artifacts/results/NAME.json. The same command goes on after an interruption. A peer that is not "
        "installed is listed as absent.",
    )
    cli.add_argument(
        "--peers",
        nargs="+",
        default=list(defaults.peers),
        metavar="PEER",
        help=f"some of {', '.join(repr(name) for name in PEERS)} (default: all)",
    )
    cli.add_argument(
        "--heads", default=defaults.heads, help='of "ours": a shipped name or a folder (default: %(default)s)'
    )
    cli.add_argument("--tree", default=defaults.tree, help='of "ours" (default: %(default)s)')
    cli.add_argument(
        "--drafts", choices=answers.DRAFTS, default=defaults.drafts, help='of "ours" (default: %(default)s)'
    )
    cli.add_argument(
        "--max-new-tokens",
        type=int,
        default=defaults.max_new_tokens,
        help="length limit of an answer (default: %(default)s)",
    )
    cli.add_argument(
        "--questions",
        type=Path,
        default=ARTIFACTS / "data" / "questions.jsonl",
        help="MT-bench .jsonl, of which first turns are asked (default: the 80 of this study)",
    )
    cli.add_argument("--limit", type=int, help="use N questions, taken from every category in turn")
    cli.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter of the environment that holds the other programs (default: this one)",
    )
    cli.add_argument(
        "--name", type=file_name, default="bench-peers", help="of the result file (default: %(default)s)"
    )
    return cli


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = vars(parser().parse_args(arguments))
    path, limit, name, python = (options.pop(key) for key in ("questions", "limit", "name", "python"))

    def work() -> None:
        out = commands.result_file(name)
        settings = PeerSettings(**{**options, "peers": tuple(options["peers"])})
        if limit is not None and limit < 1:
            raise SettingsError(f"--limit is {limit}; at least 1 question is needed")
        if machine.gpu_used():
            raise SettingsError(
                "peers are compared on the processor, and this machine has a GPU: set use_cuda=0 in the environment"
            )
        if not shutil.which(python):
            raise SettingsError(f"--python {python}: no such program, expected a Python interpreter")
        result = measure(settings, bench_play.spread(list(data.read_questions(path)), limit), out, python)
        print(table(result), f"The result: {out}", sep="\n\n")

    return commands.finish(work, commands.GOES_ON, (PeerError,))
