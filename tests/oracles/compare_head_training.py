"""Training speed of Medusa-1 heads here and in torch, in turns: writes artifacts/results/training_speed.json.

    python tests/oracles/compare_head_training.py --torch-python OTHER/bin/python

Each round times one process of each, by time_head_training.py; torch needs an environment of its own.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

from medusa_core.files import write_json
from medusa_core.runtime import ROOT
from medusa_core.stamp import stamp

SCRIPT = Path(__file__).with_name("time_head_training.py")
POSITIONS, EPOCHS, UPDATE = (
    130_000,
    4,
    512,
)  # the training whose time is reported: positions, passes, one update's


def seconds(python: str, engine: str, teacher: float) -> float:
    """Median seconds of an update, as the script prints it."""
    command = [python, str(SCRIPT), engine, "--teacher", str(teacher), "--updates", "15"]
    return float(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(": ")[1].split()[0]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-python", required=True, help="interpreter of an environment with torch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    interpreters = {"jittor": sys.executable, "torch": options.torch_python}
    rows = []
    for teacher in (0.0, 0.5):
        found = {engine: [] for engine in interpreters}
        for _ in range(options.rounds):
            for engine, python in interpreters.items():
                found[engine].append(seconds(python, engine, teacher))
        update = {engine: median(each) for engine, each in found.items()}
        whole = {engine: each * POSITIONS * EPOCHS / UPDATE for engine, each in update.items()}
        rows.append({"teacher_weight": teacher, "update_seconds": update, "training_seconds": whole})
    training = {"positions": POSITIONS, "epochs": EPOCHS, "batch_positions": UPDATE}
    result = {"version": 1, "training": training, "rounds": options.rounds, "machine": stamp(), "rows": rows}
    write_json(ROOT / "artifacts" / "results" / "training_speed.json", result)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
