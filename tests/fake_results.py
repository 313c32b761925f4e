"""Small result files of every kind that the dashboard reads, with whatever names and texts a test wants in them."""

import json

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">"


def way(name="medusa1", acceptance="greedy", **more):
    temperature = 0.0 if acceptance == "greedy" else 0.7
    return {"name": name, "acceptance": acceptance, "temperature": temperature, **more}


def rates(name="medusa1", acceptance="greedy", **more):
    return way(name, acceptance, speedup=1.2, tokens_per_step=1.5, overhead=1.25, **more)


def sample(category, tokens=10, text="text"):
    times = {"prefill": 0.1, "verify": 0.5, "accept": 0.1, "commit": 0.05, "draft": 0.1}
    return {"category": category, "tokens": tokens, "steps": 5, "seconds": 1.0, "times": times,
            "tokens_per_step_histogram": {"1": 2, "2": 3}, "text": text}  # fmt: skip


def benchmark(name="medusa1", categories=("coding", "math"), text="text"):
    ways = [
        ("plain", "greedy"),
        ("plain", "sampling"),
        (name, "greedy"),
        (f"{name} + context", "greedy"),
        (name, "typical"),
    ]
    samples = [sample(category, text=text) for category in categories]
    return {
        "summary": [rates(*each) for each in ways],
        "categories": [rates(*each, category=category) for each in ways for category in categories],
        "runs": [way(*each, samples=samples) for each in ways],
    }


def one_token_answers():
    """A benchmark whose drafted answers all end with the token that the prompt's own forward gives."""
    content = benchmark()
    drafted = [run for run in content["runs"] if run["name"] != "plain"]
    for run in drafted:
        run["samples"] = [
            {**each, "tokens": 1, "steps": 1, "tokens_per_step_histogram": {}} for each in run["samples"]
        ]
    for row in content["summary"] + content["categories"]:
        if row["name"] != "plain":
            row |= {"tokens_per_step": None, "overhead": None}
    return content


def training():
    accuracy = {"top1": [0.4, 0.2], "top5": [0.6, 0.4]}
    return {"histories": {"kept": {"held_out": [accuracy]}}}


def search(name="medusa1"):
    ways = [
        {"name": "plain", "rows_per_step": 1.0, "speedup": 1.0},
        {"name": name, "rows_per_step": 3.0, "speedup": 1.1},
    ]
    shares = [[[0], 0.4], [[1], 0.2], [[0, 0], 0.1]]
    return {"config": {"heads": name}, "step_seconds": [0.010, 0.011, 0.012, 0.014], "draft_seconds": 0.001,
            "shares": shares, "ways": ways}  # fmt: skip


def peers(name="medusa1", categories=("coding", "math")):
    own = [
        {"question_id": number, "category": category, "tokens": 10, "seconds": 1.0, "same": True}
        for number, category in enumerate(categories)
    ]
    timed = [{**each, "prefill": 0.1} for each in own]
    names = ("ours plain", "ours", "transformers")
    speed = {"tokens_per_second": 10.0, "low": 9.0, "high": 11.0, "same": 2, "questions": 2}
    return {
        "config": {"heads": name, "drafts": "both", "bytes_per_token": 1000},
        "peers": [{"name": each, "samples": timed if each == names[0] else own} for each in names],
        "bandwidth": [{"question_id": 0, "bytes_per_second": [1e5]}],
        "waiting_seconds": 0.1,
        "summary": [{"name": each, **speed} for each in names],
        "roofline": {"tokens_per_second": 100.0},
    }


def comparison(names=("medusa1", "gru")):
    row = {
        "top1": [0.5, 0.3],
        "top5": [0.7, 0.5],
        "shares": search()["shares"],
        "draft_ms": {"4": 1.0, "8": 1.1},
    }
    speed = {key: value for key, value in benchmark(names[-1]).items() if key != "runs"}
    return {
        "step_seconds": [0.01, 0.011, 0.012],
        "heads": [{"name": name, **row} for name in names],
        "bench": speed,
    }


def write(folder, **files):
    """Write all kinds of result files to a folder, with `files` by stem in place of, or beside, the usual ones."""
    usual = {
        "benchmark": benchmark(),
        "train_medusa1": training(),
        "search_trees": search(),
        "peers": peers(),
        "comparison": comparison(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in {**usual, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")
    return folder
