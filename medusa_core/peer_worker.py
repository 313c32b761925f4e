"""One way of decoding, alone in a process: `python -m medusa_core.peer_worker NAME`, JSON lines in and out.

It begins with {"versions": {...}}, or {"absent": reason} and its end. Then every line is answered by one:

    {"load": {...}}                         {"ready": true}
    {"ids": [...], "max_new_tokens": n}     {"tokens": [...], "seconds": s}, of ours also {"prefill": s}
    {"bandwidth": passes}                   {"bytes_per_second": [...]}, plain decoding of ours only

load: "model" (folder), "gguf" (file), "threads", "context" (tokens), "end_tokens", "heads", "tree", "drafts". Other
environments run this file, too, so at its top it imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from importlib import metadata


class Ours:
    """This package's decoding: plainly, or with the drafts that are asked for."""

    modules, packages = ("medusa_core.llama",), ("jittor",)

    def __init__(self, drafts: bool):
        self.drafts = drafts

    def load(self, options: dict) -> None:
        from medusa_core import answers, bandwidth

        self.base = answers.load_base(options["model"], options["heads"])
        self.drafting = our_drafting(options, self.base) if self.drafts else answers.Drafting()
        self.reader = None if self.drafts else bandwidth.Reader()

    def generate(self, ids: list[int], limit: int) -> dict:
        from medusa_core import answers

        trace = answers.answer(self.base, self.drafting, ids, answers.Settings(limit))
        return {"tokens": trace.tokens, "prefill": trace.prefill}

    def bandwidth(self, passes: int) -> list[float]:
        return self.reader.read(passes)[0].tolist()


def our_drafting(options: dict, base):
    """Who guesses in "ours", of the options "heads", "tree" and "drafts"."""
    from medusa_core import answers

    return answers.load_drafting(options["heads"], options["tree"], options["drafts"], base)


class Transformers:
    """Greedy `generate` of transformers on torch; lookup: candidates from the text so far, a step (None: none)."""

    modules, packages = ("torch", "transformers"), ("torch", "transformers")

    def __init__(self, dtype: str, lookup: int | None = None):
        self.dtype, self.lookup = dtype, lookup

    def load(self, options: dict) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(options["threads"])
        dtype = getattr(torch, self.dtype)
        self.model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype)
        self.ends = options["end_tokens"]

    def generate(self, ids: list[int], limit: int) -> dict:
        import torch

        prompt = torch.tensor([ids])
        text = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0],
            prompt_lookup_num_tokens=self.lookup,
        )
        return {"tokens": text[0, len(ids) :].tolist()}


class LlamaCpp:
    """Greedy `generate` of llama-cpp-python on a GGUF file; lookup as above."""

    modules, packages = ("llama_cpp",), ("llama-cpp-python",)

    def __init__(self, lookup: int | None = None):
        self.lookup = lookup

    def load(self, options: dict) -> None:
        from llama_cpp import Llama
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        self.model = Llama(
            options["gguf"],
            n_ctx=options["context"],
            n_threads=options["threads"],
            n_threads_batch=options["threads"],
            draft_model=LlamaPromptLookupDecoding(num_pred_tokens=self.lookup) if self.lookup else None,
            verbose=False,
        )
        self.ends = options["end_tokens"]

    def generate(self, ids: list[int], limit: int) -> dict:
        self.model.reset()  # or what this prompt shares with the last one would not be computed again
        tokens = []
        for token in self.model.generate(ids, temp=0.0):
            tokens.append(token)
            if token in self.ends or len(tokens) == limit:
                return {"tokens": tokens}


# Candidates a step as the two projects' documentation has them: transformers' example looks up 10; llama-cpp-python
# recommends 2 where there is only a CPU.
PEERS = {
    "ours plain": Ours(drafts=False),
    "ours": Ours(drafts=True),
    "transformers float32": Transformers("float32"),
    "transformers bfloat16": Transformers("bfloat16"),
    "transformers float32 lookup": Transformers("float32", lookup=10),
    "transformers bfloat16 lookup": Transformers("bfloat16", lookup=10),
    "llama.cpp 4-bit": LlamaCpp(),
    "llama.cpp 4-bit lookup": LlamaCpp(lookup=2),
}


def reply(peer, request: dict) -> dict:
    """Do what one line asks; seconds are those of the generation alone."""
    if "load" in request:
        peer.load(request["load"])
        return {"ready": True}
    if "bandwidth" in request:
        return {"bytes_per_second": peer.bandwidth(request["bandwidth"])}
    begin = time.perf_counter()
    answer = peer.generate(request["ids"], request["max_new_tokens"])
    return {"seconds": time.perf_counter() - begin, **answer}


def main(name: str) -> None:
    """Serve standard input until it is closed."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what libraries print must not come between the lines

        def say(**line) -> None:
            print(json.dumps(line), file=channel, flush=True)

        peer = PEERS[name]
        try:
            for module in peer.modules:
                importlib.import_module(module)
        except ImportError as error:
            say(absent=str(error))
            return
        say(versions={package: metadata.version(package) for package in peer.packages})
        for line in sys.stdin:
            say(**reply(peer, json.loads(line)))


if __name__ == "__main__":
    cli = argparse.ArgumentParser("python -m medusa_core.peer_worker", description=__doc__.splitlines()[0])
    cli.add_argument("peer", choices=PEERS, help="the program that answers, as `bench peers` starts it")
    main(cli.parse_args().peer)
