"""The simulator against measurements: others' speed-ups, one kernel, and this study's own result files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from medusa_core import published, scenarios
from medusa_core.config import HeadsConfig
from medusa_core.published import Record
from medusa_core.simulate import Machine, Scenario, SimulationError, forward_seconds, forward_work, predict
from medusa_core.tree import Tree, chain

ASSUMED = "A100-80GB"  # where a source names no machine; a step that waits for memory hardly depends on it


def published_rows() -> list[dict]:
    """One row a published Medusa speed-up whose tree is known: prediction, published value, relative error.

    "no overlap" is the speed-up if arithmetic and memory traffic added up: the pessimistic end of the model.
    """
    return [_published_row(record) for record in published.RECORDS if record.speedup and record.nodes]


def plain_rows() -> list[dict]:
    """One row a published speed of plain decoding on a known machine: predicted and published tokens/s."""
    rows = []
    for record in published.RECORDS:
        if record.plain_rate and record.machine:
            model = scenarios.model(record.model)
            scenario = Scenario(model, scenarios.medusa_heads(model), scenarios.machine(record.machine))
            predicted = 1 / predict(scenario, 0, tokens_per_step=1.0).plain_seconds
            rows.append(
                {
                    "model": record.model,
                    "machine": record.machine,
                    "predicted tokens/s": predicted,
                    "published": record.plain_rate,
                    "error": predicted / record.plain_rate - 1,
                    "source": record.origin,
                }
            )
    return rows


def medians(rows: list[dict]) -> list[dict]:
    """By source, and over all: number of rows, median absolute error, median error with its sign."""
    groups = {}
    for row in rows:
        groups.setdefault(row["source"], []).append(row["error"])
    groups["all"] = [row["error"] for row in rows]
    return [
        {
            "source": source,
            "rows": len(errors),
            "median |error|": median(map(abs, errors)),
            "median error": median(errors),
        }
        for source, errors in groups.items()
    ]


def kernel_rows() -> dict[str, list[float]]:
    """Time of a linear layer by rows, relative to one row: measured (published.kernel_speed) and predicted."""
    speed = published.kernel_speed()
    rows = np.array(list(speed), dtype=float)
    machine = scenarios.machine(published.KERNEL_MACHINE)
    move, compute = np.ones_like(rows), rows / machine.balance  # float16: two operations a row, for two bytes
    added = move + compute
    return {
        "rows": rows.tolist(),
        "measured": (rows * speed[1] / np.array(list(speed.values()))).tolist(),
        "overlap": np.maximum(move, compute).tolist(),
        "no overlap": (added / added[0]).tolist(),
    }


def calibrated(scenario: Scenario, plain_seconds: float) -> Scenario:
    """The scenario with the bandwidth at which a plain step takes `plain_seconds`: only ratios are left to predict.

    Raises SimulationError when the arithmetic of a plain step alone takes longer.
    """
    machine, works = scenario.machine, forward_work(scenario, 1).values()
    arithmetic = sum(work.operations for work in works) / (machine.compute * machine.efficiency)
    moving = plain_seconds if machine.overlap else plain_seconds - arithmetic
    if plain_seconds <= arithmetic:
        raise SimulationError(
            f"a plain step of {1e3 * plain_seconds:.3g} ms is shorter than its arithmetic on {machine.name!r}, "
            f"{1e3 * arithmetic:.3g} ms"
        )
    bandwidth = sum(work.bytes for work in works) / (moving * machine.efficiency)
    return replace(scenario, machine=replace(machine, bandwidth=bandwidth))


def own_rows(result: dict, heads: HeadsConfig, machine: Machine) -> list[dict]:
    """One row a run with a fixed tree of a benchmark (chapter 09): overheads with and without overlap, and measured.

    Each plain step sets the bandwidth, and prompts are left out. speed-up and error are those of the machine's way,
    heads those of the runs. Raises SimulationError for a base model without a preset.
    """
    config = result["config"]
    if config["model"] != "embedded":
        raise SimulationError(f"no preset for the benchmark's model {config['model']!r}: expected 'embedded'")
    choices = config["choices"]
    if isinstance(choices, dict):  # a tree for each way of drafting; a plan takes another one at every step
        choices = choices.get("heads") if config["tree"] != "dynamic" else None
    if choices is None:
        return []
    samples = result["runs"][0]["samples"]
    scenario = Scenario(
        scenarios.model("SmolLM2 135M"),
        heads,
        machine,
        context=round(np.mean([sample["prompt_tokens"] + sample["tokens"] / 2 for sample in samples])),
        precision=config["dtype"],
        head_precision="bfloat16",
    )
    tree = Tree.from_paths(choices)
    rows = []
    for run in result["summary"]:
        if run["name"] != config["heads"] or run["overhead"] is None:
            continue
        tokens, measured = run["tokens_per_step"], run["tokens_per_step"] / run["overhead"]
        overhead = {
            way: predict(calibrated(case, run["plain_step_ms"] / 1e3), tree, tokens_per_step=tokens).overhead
            for way, case in _both_ways(scenario).items()
        }
        predicted = tokens / overhead["overlap" if machine.overlap else "no overlap"]
        rows.append(
            {"run": f"{run['name']}, {run['acceptance']}", "tokens/step": tokens}
            | {f"overhead, {way}": value for way, value in overhead.items()}
            | {"overhead, measured": run["overhead"], "speed-up": predicted, "measured": measured}
            | {"error": predicted / measured - 1}
        )
    return rows


def step_cost_rows(cost: dict, machine: Machine, context: int = 256) -> dict[str, list[float]]:
    """Time of a step of the embedded model by rows, relative to one row: measured, and both bounds.

    cost: a result with "step_seconds" for 1, 2, ... rows (chapter 08), whose first sets the bandwidth. Raises
    SimulationError without them.
    """
    seconds = np.asarray(cost.get("step_seconds", ()), dtype=float)
    if seconds.ndim != 1 or not seconds.size or not (seconds > 0).all():
        raise SimulationError("the step cost needs step_seconds: positive seconds for 1, 2, ... rows")
    model = scenarios.model("SmolLM2 135M")
    scenario = Scenario(model, scenarios.medusa_heads(model), machine, context=context, precision="bfloat16")
    curves = {"rows": list(range(1, len(seconds) + 1)), "measured": (seconds / seconds[0]).tolist()}
    for way, case in _both_ways(scenario).items():
        predicted = forward_seconds(calibrated(case, seconds[0]), len(seconds))
        curves[way] = (predicted / predicted[0]).tolist()
    return curves


def read_result(path: Path | str) -> dict | None:
    """Read a result file; None when there is none. Raises SimulationError naming a file that is no JSON object."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SimulationError(f"{path}: not a JSON result file ({error})") from None
    if not isinstance(content, dict):
        raise SimulationError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _both_ways(scenario: Scenario) -> dict[str, Scenario]:
    ways = {"overlap": True, "no overlap": False}
    return {
        way: replace(scenario, machine=replace(scenario.machine, overlap=overlap))
        for way, overlap in ways.items()
    }


def _published_row(record: Record) -> dict:
    scenario = published_scenario(record)
    chained = record.nodes == record.heads
    tree = chain(record.heads) if chained else record.nodes
    given = {"tokens_per_step": record.tokens_per_step, "accuracy": None}
    if record.tokens_per_step is None:
        given["accuracy"] = published.ACCURACY[record.model]
    prediction = predict(scenario, tree, **given)
    apart = _both_ways(scenario)["no overlap"]
    return {
        "method": record.method + (", no tree" if chained else ""),
        "model": record.model,
        "benchmark": record.benchmark,
        "machine": record.machine or f"{ASSUMED} (assumed)",
        "heads": record.heads,
        "tokens/step": prediction.tokens_per_step,
        "overhead": prediction.overhead,
        "published overhead": prediction.tokens_per_step / record.speedup,
        "speed-up": prediction.speedup,
        "no overlap": predict(apart, tree, **given).speedup,
        "published": record.speedup,
        "error": prediction.speedup / record.speedup - 1,
        "source": record.origin,
    }


def published_scenario(record: Record) -> Scenario:
    """The scenario of a published Medusa run; heads are in float16, the seed's in float32."""
    model = scenarios.model(record.model)
    return Scenario(
        model,
        scenarios.medusa_heads(model, record.heads),
        scenarios.machine(record.machine or ASSUMED),
        head_precision="float32" if record.source == published.SEED else "float16",
    )
