"""A roofline of Medusa: step times, tokens/step and speed-up, from dimensions, a machine's two limits and accuracies.

Each part of a step moves bytes and computes. A machine that does both at once needs the longer of the two times,

    t = max(bytes / bandwidth, operations / compute) / efficiency,

and one that does not (`overlap` False) needs their sum. A step is the sum of its parts. The one constant of a machine,
its efficiency, is set by plain decoding speeds alone and cancels in every ratio: overhead and speed-up have no fitted
constant at all. Not counted: norms, activations, sampling, and the time of the program that launches the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medusa_core import tree as trees
from medusa_core.config import HeadsConfig, ModelConfig
from medusa_core.tree import Tree

BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}  # of a weight
CACHE_BYTES = 2.0  # of a cached number: keys and values stay in half precision
MOST_NODES = 255  # below the root: the largest tree that searches look at


class SimulationError(ValueError):
    """A scenario that contradicts itself, or a question it cannot answer."""


@dataclass(frozen=True)
class Machine:
    """The limits of a machine, and the share of them that decoding reaches.

    bandwidth in bytes/s, compute in operations/s (half-precision products, float32 sums) and memory in bytes are
    nominal. source says where each of the numbers is from.
    """

    name: str
    bandwidth: float
    compute: float
    efficiency: float
    source: str
    overlap: bool = True
    memory: float = float("inf")

    def __post_init__(self):
        if not (self.bandwidth > 0 and self.compute > 0 and 0 < self.efficiency <= 1):
            raise SimulationError(
                f"machine {self.name!r}: bandwidth {self.bandwidth} and compute {self.compute} must be positive, "
                f"efficiency {self.efficiency} above 0 and at most 1"
            )

    @property
    def balance(self) -> float:
        """Operations a byte above which arithmetic, not memory, sets the pace."""
        return self.compute / self.bandwidth


@dataclass(frozen=True)
class Work:
    """What a part of a step costs; numbers, or arrays over tree sizes."""

    bytes: float | np.ndarray
    operations: float | np.ndarray


@dataclass(frozen=True)
class Scenario:
    """What runs where: `batch` sequences, each with `context` tokens in its cache, each with its own tree."""

    model: ModelConfig
    heads: HeadsConfig
    machine: Machine
    batch: int = 1
    context: int = 512
    precision: str = "float16"
    head_precision: str = "float16"

    def __post_init__(self):
        for name in ("precision", "head_precision"):
            if getattr(self, name) not in BYTES:
                raise SimulationError(
                    f"{name} {getattr(self, name)!r} is unknown: expected one of {', '.join(BYTES)}"
                )
        if self.batch < 1 or self.context < 0:
            raise SimulationError(
                f"batch {self.batch} must be 1 or more and context {self.context} 0 or more"
            )
        if self.heads.kind != "medusa":
            raise SimulationError(f"heads of kind {self.heads.kind!r} are not simulated: expected 'medusa'")
        for name in ("hidden_size", "vocab_size"):
            own, base = getattr(self.heads, name), getattr(self.model, name)
            if own != base:
                raise SimulationError(f"the heads' {name} is {own}, the model's {base}: they must be equal")
        if self.heads.output_size > self.heads.vocab_size:
            raise SimulationError(
                f"draft_vocab_size {self.heads.draft_vocab_size} exceeds the vocabulary of {self.heads.vocab_size}"
            )


@dataclass(frozen=True)
class Prediction:
    """Seconds of a plain step and of a Medusa step by part, and what a Medusa step brings a sequence."""

    plain: dict[str, float]
    step: dict[str, float]
    tokens_per_step: float

    @property
    def plain_seconds(self) -> float:
        return sum(self.plain.values())

    @property
    def step_seconds(self) -> float:
        return sum(self.step.values())

    @property
    def overhead(self) -> float:
        return self.step_seconds / self.plain_seconds

    @property
    def speedup(self) -> float:
        return self.tokens_per_step / self.overhead


@dataclass(frozen=True)
class Sweep:
    """Predictions for the best tree of each size; arrays (nodes + 1,) over 0, 1, ... nodes below the root."""

    tokens_per_step: np.ndarray
    overhead: np.ndarray

    @property
    def speedup(self) -> np.ndarray:
        return self.tokens_per_step / self.overhead

    @property
    def best_nodes(self) -> int:
        """Nodes of the fastest tree; 0 where plain decoding is."""
        return int(np.argmax(self.speedup))


def forward_work(scenario: Scenario, rows) -> dict[str, Work]:
    """Work by part of one forward of `rows` (a number or an array) rows a sequence, the root included."""
    model, batch = scenario.model, scenario.batch
    head = model.vocab_size * model.hidden_size
    layers = model.parameters_read_per_token - head
    width = BYTES[scenario.precision]
    keys = scenario.context + rows  # that each row is compared with: a tree's mask hides, but does not skip
    cached = 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim  # numbers a token
    compared = 4 * model.num_hidden_layers * model.num_attention_heads * model.head_dim  # operations a pair
    return {
        "layers": Work(width * layers, 2 * layers * batch * rows),
        "attention": Work(CACHE_BYTES * cached * batch * keys, compared * batch * rows * keys),
        "LM head": Work(width * head, 2 * head * batch * rows),
    }


def draft_work(scenario: Scenario) -> Work:
    """Work of all heads on one row a sequence: residual blocks, and the LM heads that they multiply by."""
    heads = scenario.heads
    blocks = heads.num_heads * heads.num_layers * heads.hidden_size**2
    matrix = heads.output_size * heads.hidden_size
    read = blocks + matrix * (heads.num_heads if heads.output == "own" else 1)
    used = blocks + matrix * heads.num_heads
    return Work(BYTES[scenario.head_precision] * read, 2 * used * scenario.batch)


def resident_bytes(scenario: Scenario, nodes: int) -> float:
    """Bytes that a step with `nodes` nodes below the root needs in memory: weights, heads, and caches of the batch."""
    model = scenario.model
    embedding = 0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size
    weights = BYTES[scenario.precision] * (model.parameters_read_per_token + embedding)
    drafted = draft_work(scenario).bytes if nodes else 0.0
    return weights + drafted + forward_work(scenario, nodes + 1)["attention"].bytes


def seconds(work: Work, machine: Machine):
    """Time of a part, by the roofline."""
    move, compute = work.bytes / machine.bandwidth, work.operations / machine.compute
    return (np.maximum(move, compute) if machine.overlap else move + compute) / machine.efficiency


def step_parts(scenario: Scenario, nodes: int) -> dict[str, float]:
    """Seconds by part of a step with `nodes` nodes below the root; 0 is plain decoding, which drafts nothing."""
    parts = {
        name: float(seconds(work, scenario.machine))
        for name, work in forward_work(scenario, nodes + 1).items()
    }
    return parts | ({"draft": float(seconds(draft_work(scenario), scenario.machine))} if nodes else {})


def predict(
    scenario: Scenario, tree: Tree | int, accuracy=None, tokens_per_step: float | None = None
) -> Prediction:
    """Predict a step with `tree`, or with the best tree of so many nodes below the root.

    tokens/step is the measured one where given, otherwise 1 + the sum of path products of accuracy (K, R), as in
    tree.py. Raises SimulationError when there is neither, TreeError when the tree does not fit accuracy or heads.
    """
    if tokens_per_step is None and accuracy is None:
        raise SimulationError("tokens/step cannot be told: give head accuracies (K, R), or tokens_per_step")
    if accuracy is not None and not isinstance(tree, Tree):
        tree = trees.search(accuracy, tree)
    if isinstance(tree, Tree):
        trees.check_depth(tree, scenario.heads.num_heads)
    if tokens_per_step is None:
        tokens_per_step = trees.expected_tokens(tree, accuracy)
    nodes = tree.size - 1 if isinstance(tree, Tree) else tree
    return Prediction(step_parts(scenario, 0), step_parts(scenario, nodes), tokens_per_step)


def expected_by_size(accuracy, most: int = MOST_NODES) -> np.ndarray:
    """Expected tokens/step (most + 1,) of the best trees of 0, 1, ... `most` nodes below the root.

    accuracy (K, R); where K heads with R ranks have fewer paths than `most`, the array ends with all of them.
    """
    if np.ndim(accuracy) != 2:
        raise SimulationError(f"accuracy must be (heads, ranks), got shape {np.shape(accuracy)}")
    heads, ranks = np.shape(accuracy)
    tree = trees.search(accuracy, min(most, trees.capacity(heads, ranks)))
    return 1 + np.append(0.0, np.cumsum(np.sort(trees.path_products(tree, accuracy)[1:])[::-1]))


def sweep(scenario: Scenario, accuracy, most: int = MOST_NODES) -> Sweep:
    """Predict every best tree of up to `most` nodes from accuracy (K, R).

    Raises SimulationError when there are more rows of accuracies than heads.
    """
    if len(accuracy) > scenario.heads.num_heads:
        raise SimulationError(
            f"accuracy has rows for {len(accuracy)} heads, but the scenario has {scenario.heads.num_heads}"
        )
    tokens_per_step = expected_by_size(accuracy, most)
    return Sweep(tokens_per_step, overheads(scenario, len(tokens_per_step) - 1))


def overheads(scenario: Scenario, most: int) -> np.ndarray:
    """Step time over plain step time, (most + 1,) for 0, 1, ... nodes below the root."""
    time = forward_seconds(scenario, most + 1)
    draft = seconds(draft_work(scenario), scenario.machine)
    return np.append(time[:1], time[1:] + draft) / time[0]


def forward_seconds(scenario: Scenario, most: int) -> np.ndarray:
    """Seconds (most,) of a forward of 1, 2, ... `most` rows a sequence."""
    works = forward_work(scenario, np.arange(1.0, most + 1)).values()
    return sum(seconds(work, scenario.machine) for work in works)
