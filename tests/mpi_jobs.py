"""What tests/test_mpi.py lets several processes do: mpirun -np N python tests/mpi_jobs.py JOB FOLDER"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import fake_decoding
import train_tiny
from fake_base import FakeBase, token_set
from tiny_model import folder_of

from medusa_core import bench, distill, files, llama, ranks, train, train2
from medusa_core.answers import Drafting
from medusa_core.token_set import TokenSet
from medusa_core.train2_config import Train2Config
from medusa_core.tree import Tree

EPOCHS = {"epochs": 4.0, "checkpoint_every": 10}


def heads(folder: Path, resume: bool = False, **changes) -> dict:
    """Train heads alone; the base's hidden states go into the folder, too."""
    train.runtime.ARTIFACTS = folder
    config = train_tiny.config(folder, **{**EPOCHS, **changes})
    return train.train(config, FakeBase(folder / "base"), token_set(60), resume)


def joint(folder: Path, **changes) -> dict:
    """Train heads and adapters together."""
    settings = {
        "recipe": "ramp",
        "num_heads": 2,
        "draft_vocab_size": 32,
        "epochs": 4.0,
        "batch_positions": 64,
    }
    settings |= {"micro_batches": 1, "block": 16, "learning_rate": 3e-3, "warmup_steps": 4, "rank": 4}
    settings |= {"log_every": 4, "eval_every": 10, "eval_positions": 80}
    config = Train2Config(out=str(folder / "heads"), run=str(folder / "run"), **{**settings, **changes})
    base = llama.load(folder_of(folder / f"base{ranks.rank()}"), "float32", "plain")
    return train2.train_jointly(config, base, token_set(60))


def curves(folder: Path, **changes) -> None:
    """Two trainings, one after the other."""
    heads(folder / "heads alone", **changes)
    joint(folder / "joint", **changes)


def curves_in_parts(folder: Path) -> None:
    """The same with updates computed in two parts."""
    curves(folder, micro_batches=2)


def answers(folder: Path) -> TokenSet:
    """Distil a token set from a tiny model that speaks in characters."""
    settings = distill.Settings(self_prompts=3, max_new_tokens=12)
    prompts = ["Name a colour.", "Say hello.", "Count to five."]
    tokenizer = fake_decoding.tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] + '<end>'")
    with tempfile.TemporaryDirectory() as place:
        model = folder_of(Path(place) / "tiny", vocab_size=99, eos_token_ids=(0,))
        tokenizer.save_pretrained(model)
        return distill.distill(llama.load(model), prompts, settings, folder / "set.parquet", batch=2)


def speeds(folder: Path) -> dict:
    """Measure a base in NumPy on three questions of two turns."""
    base = fake_decoding.FakeBase()
    tree = Tree.from_paths([(0,), (1,), (0, 0), (0, 0, 0)])
    guess = {"heads": Drafting(fake_decoding.FakeDrafter(base), tree)}
    asked = {3: ["Hello.", "More."], 1: ["How many?", "Sure?"], 8: ["Once.", "Again."]}
    questions = [{"question_id": n, "category": "any", "turns": turns} for n, turns in asked.items()]
    settings = bench.BenchSettings(heads="fake", drafts=("heads",), max_new_tokens=20, turns=2)
    partial = folder / "bench.partial.jsonl"
    result = bench.run(base, guess, questions, settings, fake_decoding.tokenizer(), partial=partial)
    if ranks.first():
        files.write_json(folder / "bench.json", result)
    return result


def evaluations(folder: Path) -> None:
    """What needs no training, one after the other."""
    answers(folder)
    speeds(folder)


def interrupted(folder: Path) -> None:
    """Rank 1 is killed when it has made two answers."""
    generate = distill.generate

    def stopping(*arguments):
        for number, request in enumerate(generate(*arguments)):
            if number == 2 and ranks.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield request

    distill.generate = stopping
    answers(folder)


def stopping(folder: Path) -> None:
    """Rank 1 is killed in its 38th update."""
    _at_update(38, lambda: os.kill(os.getpid(), signal.SIGKILL))
    heads(folder)


def failing(folder: Path) -> None:
    """Rank 1 meets an error in its 3rd update, while the other waits for its gradients."""

    def fail():
        raise ValueError("this rank's disk is full")

    _at_update(3, fail)
    heads(folder)


def resumed(folder: Path) -> None:
    """Go on from the last checkpoint."""
    heads(folder, resume=True)


def _at_update(number: int, happens) -> None:
    """Let something happen on rank 1 when it begins update `number`."""
    update = train.update

    def patched(model, optimizer, batches, lr, config, step):
        if step == number and ranks.rank() == 1:
            happens()
        return update(model, optimizer, batches, lr, config, step)

    train.update = patched


if __name__ == "__main__":
    job, place = globals()[sys.argv[1]], Path(sys.argv[2])
    ranks.run(lambda: job(place))
