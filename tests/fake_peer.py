"""A worker that speaks peer_worker's protocol without a model: `python fake_peer.py NAME FOLDER`.

It writes every request to FOLDER/log, is absent when FOLDER/absent names it, and dies of the request numbered in
FOLDER/dies ({"name": number}). An answer is as many tokens as asked for, of letters that the prompt decides; those of
"llama.cpp" differ from the others' when the prompt is even.
"""

import json
import sys
from pathlib import Path

name, folder = sys.argv[1], Path(sys.argv[2])
SPEEDS = {"ours plain": 0.5, "ours": 0.25, "transformers float32": 2.0}  # seconds an answer


def say(**line):
    print(json.dumps(line), flush=True)


def read(file):
    path = folder / file
    return json.loads(path.read_text()) if path.exists() else {}


if name in read("absent"):
    say(absent="No module named 'torch'")
    sys.exit()
say(versions={"fake": "1.0"})
for number, line in enumerate(sys.stdin):
    request = json.loads(line)
    with (folder / "log").open("a") as log:
        log.write(json.dumps([name, request]) + "\n")
    if read("dies").get(name) == number:
        sys.exit("out of memory, says the fake")
    if "load" in request:
        say(ready=True)
    elif "bandwidth" in request:
        say(bytes_per_second=[1e9 + i for i in range(request["bandwidth"])])
    else:
        kind = sum(request["ids"]) % 2 == 0 and name.startswith("llama.cpp")
        tokens = [10 + kind] * request["max_new_tokens"]
        say(
            tokens=tokens,
            seconds=SPEEDS.get(name, 1.0),
            **({"prefill": 0.1} if name.startswith("ours") else {}),
        )
