"""What others have measured: speed-ups with their sources, head accuracies, and how fast kernels really are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Record:
    """One published measurement at batch size 1; None where the source does not say.

    machine: None also where several are possible. nodes: below the root. benchmark: what was asked. plain_rate and
    rate: tokens/s without and with the method. overhead: as the source states it.
    """

    method: str
    model: str
    benchmark: str
    source: str
    machine: str | None = None
    temperature: float | None = None
    heads: int | None = None
    nodes: int | None = None
    tokens_per_step: float | None = None
    overhead: float | None = None
    speedup: float | None = None
    plain_rate: float | None = None
    rate: float | None = None
    note: str = ""

    @property
    def origin(self) -> str:
        """Short name of the source."""
        return self.source.split(" (")[0]

    @property
    def quotient(self) -> float | None:
        """Overhead: the stated one, otherwise tokens/step over speed-up; None where neither is known."""
        if self.overhead is None and self.tokens_per_step and self.speedup:
            return self.tokens_per_step / self.speedup
        return self.overhead


# Each begins with a short name and gives the details after " (".
PAPER = "Medusa paper (Cai et al., arXiv 2401.10774v3), "
RESULT_FILES = "Medusa repository (answer files in FasterDecoding/Medusa, llm_judge/data), recomputed"
SPEC_BENCH = "Spec-Bench (hemingkx/Spec-Bench, Leaderboard.md at commit fd2c1cd), overall"
EAGLE_2 = "EAGLE-2 paper (Li et al., arXiv 2406.16858v2), table 1"
EAGLE_3 = "EAGLE-3 paper (Li et al., arXiv 2503.01840)"
REDRAFTER = "ReDrafter paper (Cheng et al., arXiv 2403.09919), table 1, read in a summary"
GPT_FAST = "gpt-fast (pytorch-labs/gpt-fast, README.md at commit 0f925b5)"
SEED = "seed (the Jittor scripts that this study started from)"


def _paper() -> list[Record]:
    """Medusa's own figures; five heads, trees of 63 nodes below the root.

    The paper trains on an A100 PCIe and computes with one in its appendix G; its speed-ups are taken to be from one.
    """
    tree = {"machine": "A100-80GB", "heads": 5, "nodes": 63}
    table1 = [
        Record(
            "medusa-2",
            model,
            "MT-bench",
            PAPER + "table 1",
            **tree,
            tokens_per_step=t,
            overhead=o,
            speedup=s,
        )
        for model, t, o, s in (
            ("Vicuna 7B", 3.47, 1.22, 2.83),
            ("Zephyr 7B", 3.14, 1.18, 2.66),
            ("Vicuna 13B", 3.51, 1.23, 2.83),
            ("Vicuna 33B", 3.01, 1.27, 2.35),
        )
    ]
    figure3 = [
        Record(
            "medusa-1",
            model,
            "MT-bench",
            PAPER + "figure 3",
            **tree,
            tokens_per_step=t,
            speedup=s,
            note=f"tokens/step: of the v1.3 heads, {RESULT_FILES}",
        )
        for model, t, s in (("Vicuna 7B", 2.565, 2.18), ("Vicuna 13B", 2.639, 2.33))
    ]
    table3 = [
        Record(
            "medusa-1",
            "Vicuna 7B",
            "MT-bench",
            PAPER + "table 3, rounded",
            machine="A100-80GB",
            heads=5,
            nodes=nodes,
            speedup=s,
            note=note,
        )
        for nodes, s, note in (
            (5, 1.5, "no tree: a chain of each head's best guess"),
            (None, 1.9, "a first tree, which is not described"),
        )
    ]
    table4 = [
        Record(
            "medusa-2",
            model,
            "AlpacaEval",
            PAPER + "table 4",
            **tree,
            tokens_per_step=t,
            speedup=s,
            plain_rate=plain,
            rate=rate,
        )
        for model, plain, rate, t, s in (
            ("Vicuna 7B", 37.07, 106.76, 3.23, 2.88),
            ("Vicuna 13B", 29.01, 91.54, 3.28, 3.16),
            ("Vicuna 33B", 17.87, 40.43, 2.85, 2.26),
            ("Zephyr 7B", 34.21, 99.50, 3.08, 2.91),
        )
    ]
    return table1 + figure3 + table3 + table4


def _result_files() -> list[Record]:
    return [
        Record(
            "medusa-1",
            model,
            "MT-bench",
            RESULT_FILES,
            machine="A100-80GB",
            heads=5,
            nodes=63,
            tokens_per_step=t,
            rate=rate,
        )
        for model, t, rate in (
            ("Vicuna 7B", 2.565, 101.3),
            ("Vicuna 13B", 2.639, 73.8),
            ("Vicuna 33B", 2.514, 36.6),
        )
    ]


def _spec_bench() -> list[Record]:
    """Six kinds of tasks, greedy; long prompts count in the time."""
    tables = {
        ("Vicuna 7B", "A100-80GB"): (2.36, 4.34, 2.10, 3.58, 2.07, 3.26, 1.71, 2.31, 1.66, 1.75, 1.52, 2.28),
        ("Vicuna 13B", "A100-80GB"): (2.46, 4.43, 2.16, 3.64, 2.20, 3.35, 1.80, 2.39, 1.56, 1.67, 1.54, 2.19),
        ("Vicuna 33B", "A100-80GB"): (2.59, 4.05, 2.43, 3.39, 2.22, 3.24, 1.76, 2.33, 1.40, 1.54, 1.57, 2.01),
        ("Vicuna 7B", "RTX 3090"): (2.19, 4.35, 2.03, 3.57, 1.91, 3.26, 1.44, 2.32, 1.64, 1.73, 1.79, 2.28),
    }
    methods = ("eagle-2", "eagle", "hydra", "medusa-1", "prompt lookup", "draft model")
    return [
        _greedy(method, model, "Spec-Bench", SPEC_BENCH, *pair, machine=machine)
        for (model, machine), table in tables.items()
        for method, pair in zip(methods, zip(table[::2], table[1::2]))
    ]


def _eagle() -> list[Record]:
    tables = {
        "Vicuna 7B": (3.62, 4.98, 2.90, 3.94, 2.69, 3.60, 1.91, 2.52, 1.63, 1.69, 1.61, 1.68, 1.82, 2.36),
        "Vicuna 13B": (4.26, 4.83, 3.07, 3.98, 2.88, 3.65, 2.07, 2.59, 1.65, 1.69, 1.58, 1.63, 1.93, 2.27),
    }
    methods = ("eagle-2", "eagle", "hydra", "medusa-1", "lookahead", "prompt lookup", "draft model")
    records = [
        _greedy(method, model, "MT-bench", EAGLE_2, *pair)
        for model, table in tables.items()
        for method, pair in zip(methods, zip(table[::2], table[1::2]))
    ]
    return [*records, _greedy("eagle-3", "Vicuna 13B", "MT-bench", EAGLE_3, 5.58, 6.65)]


def _redrafter() -> list[Record]:
    tables = {
        ("Vicuna 7B", "MT-bench"): (2.80, 4.20, 2.69, 3.96, 2.39, 2.55),
        ("Vicuna 13B", "MT-bench"): (2.80, 4.21, 2.74, 4.00, 2.40, 2.61),
        ("Vicuna 33B", "MT-bench"): (2.61, 3.87, 2.80, 3.71, 2.51, 2.53),
        ("Vicuna 7B", "AlpacaEval"): (2.69, 4.06, 2.43, 3.61, 2.19, 2.42),
        ("Vicuna 13B", "AlpacaEval"): (2.78, 4.02, 2.49, 3.62, 2.26, 2.45),
        ("Vicuna 33B", "AlpacaEval"): (2.43, 3.61, 2.59, 3.29, 2.31, 2.31),
    }
    return [
        _greedy(method, model, benchmark, REDRAFTER, *pair, machine="H100")
        for (model, benchmark), table in tables.items()
        for method, pair in zip(("redrafter", "eagle", "medusa-1"), zip(table[::2], table[1::2]))
    ]


def _seed() -> list[Record]:
    """Vicuna 7B, typical acceptance with epsilon 0.01 and delta 0.1; the GPU is not named."""
    return [
        Record(
            method,
            "Vicuna 7B",
            "MT-bench",
            SEED,
            temperature=0.7,
            heads=heads,
            nodes=63,
            tokens_per_step=t,
            speedup=s,
            plain_rate=30.23,
            rate=rate,
            note="heads in float32; the tree is taken to be the paper's",
        )
        for method, heads, t, s, rate in (
            ("medusa-1", 3, 2.65, 1.86, 56.2),
            ("medusa-1", 5, 3.39, 2.38, 71.95),
            ("gated recurrent heads", 3, 2.88, 1.96, 59.3),
        )
    ]


def _greedy(method, model, benchmark, source, speedup, tokens_per_step, machine=None) -> Record:
    medusa = {"heads": 5, "nodes": 63} if method == "medusa-1" else {}
    figures = {"speedup": speedup, "tokens_per_step": tokens_per_step}
    return Record(method, model, benchmark, source, machine, temperature=0.0, **medusa, **figures)


_COMPILED = Record(
    "plain decoding",
    "Vicuna 7B",
    "short prompts",
    GPT_FAST,
    machine="A100-80GB",
    plain_rate=104.9,
    note="compiled; Llama-2 7B, which has the same dimensions",
)
RECORDS = (*_paper(), *_result_files(), *_spec_bench(), *_eagle(), *_redrafter(), *_seed(), _COMPILED)

# Top-1 to top-5 accuracy of Medusa-1's five heads in training: FasterDecoding/Medusa, assets/medusa_acc.csv.
_TOP5 = {
    "Vicuna 7B": (
        (0.5604, 0.6717, 0.7271, 0.7599, 0.7799),
        (0.3164, 0.4236, 0.4851, 0.5282, 0.5625),
        (0.2010, 0.2879, 0.3475, 0.3834, 0.4169),
        (0.1474, 0.2250, 0.2737, 0.3109, 0.3397),
        (0.1175, 0.1866, 0.2346, 0.2721, 0.2998),
    ),
    "Vicuna 13B": (
        (0.5939, 0.7053, 0.7578, 0.7925, 0.8161),
        (0.3397, 0.4400, 0.5068, 0.5465, 0.5803),
        (0.2161, 0.3085, 0.3612, 0.4030, 0.4364),
        (0.1500, 0.2317, 0.2878, 0.3234, 0.3541),
        (0.1223, 0.1957, 0.2434, 0.2791, 0.3070),
    ),
    "Vicuna 33B": (
        (0.6046, 0.7162, 0.7649, 0.7983, 0.8223),
        (0.3558, 0.4690, 0.5287, 0.5692, 0.5961),
        (0.2246, 0.3197, 0.3785, 0.4210, 0.4462),
        (0.1596, 0.2488, 0.3073, 0.3480, 0.3755),
        (0.1370, 0.2067, 0.2621, 0.2984, 0.3258),
    ),
}
# Accuracy (5, 5) of single ranks, as tree.search takes it.
ACCURACY = {name: np.diff(table, axis=1, prepend=0.0) for name, table in _TOP5.items()}

# TFLOP/s of Llama 33B's MLP products on an A100 80GB PCIe, one line a batch size, one column a number of candidate
# tokens; batch size times candidates are the rows: Medusa paper, table 8.
_CANDIDATES = (1, 16, 32, 48, 64, 80, 96, 112)
_TABLE_8 = {
    1: (1.26, 19.95, 39.69, 58.4, 76.57, 94.4, 111.91, 128.64),
    2: (2.51, 39.66, 76.53, 112.05, 145.73, 130.67, 129.1, 148.56),
    4: (5.03, 76.44, 145.8, 128.85, 167.85, 201.19, 236.93, 195.91),
    8: (10.06, 145.72, 168.26, 236.83, 221.11, 207.79, 236.95, 227.8),
    16: (19.96, 168.35, 221.41, 237.5, 224.71, 232.49, 241.12, 229.25),
}
KERNEL_MODEL, KERNEL_MACHINE = "Vicuna 33B", "A100-80GB"


def kernel_speed() -> dict[int, float]:
    """TFLOP/s by rows, ascending, of `KERNEL_MODEL`'s linear layers on `KERNEL_MACHINE`; repeats are averaged."""
    speeds: dict[int, list[float]] = {}
    for batch, line in _TABLE_8.items():
        for candidates, speed in zip(_CANDIDATES, line, strict=True):
            speeds.setdefault(batch * candidates, []).append(speed)
    return {rows: float(np.mean(speeds[rows])) for rows in sorted(speeds)}
