"""LoRA: low-rank additions to a base model's matrices that learn while the base stays as it is (Hu et al., 2021).

    y = x W^T + (alpha / rank) (x A^T) B^T        A (rank, in), B (out, rank)

B starts at zero, so untrained adapters change nothing. They are attached to the plain base from outside
(`base.adapt(adapters)`), can be switched off, and are merged into the weights for decoding (`merge_into`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from medusa_core import checkpoint, runtime
from medusa_core.config import ModelConfig
from medusa_core.heads import ADAPTERS_FILE
from medusa_core.model_folder import WEIGHTS, read_manifest, tensor_shapes

runtime.start()
import jittor as jt


class LoraError(ValueError):
    """Adapters that cannot be made, or belong to another base model."""


@dataclass(frozen=True)
class LoraConfig:
    """Size and strength of adapters: every attention and MLP matrix has one, the LM head as an option."""

    rank: int = 16
    alpha: float = 16.0
    lm_head: bool = False

    def __post_init__(self):
        if self.rank < 1 or self.alpha <= 0:
            raise LoraError(f"rank {self.rank} and alpha {self.alpha} must be more than 0")

    @property
    def scale(self) -> float:
        """What the product of B and A is multiplied by."""
        return self.alpha / self.rank


def matrices(model: ModelConfig, lm_head: bool) -> dict[str, tuple[int, int]]:
    """Return name and shape (out, in) of the matrices that have adapters; the LM head comes last."""
    shapes = tensor_shapes(model)
    names = [name for name in shapes if name.endswith("_proj.weight")]
    found = {name.removesuffix(".weight"): shapes[name] for name in names}
    return {**found, "lm_head": (model.vocab_size, model.hidden_size)} if lm_head else found


def parameter_shapes(model: ModelConfig, config: LoraConfig) -> dict[str, tuple[int, int]]:
    """Return name and shape of every adapter tensor, named as PEFT does: NAME.lora_A.weight, NAME.lora_B.weight."""
    shapes = {}
    for name, (rows, columns) in matrices(model, config.lm_head).items():
        shapes[f"{name}.lora_A.weight"] = (config.rank, columns)
        shapes[f"{name}.lora_B.weight"] = (rows, config.rank)
    return shapes


class Adapters:
    """The adapters of one base model, float32: A drawn from a uniform distribution by `seed`, B zero."""

    def __init__(self, model: ModelConfig, config: LoraConfig, seed: int = 0):
        self.config = config
        self._on = True
        self._parameters = {}
        self._kept = None  # the base's own weights, while these adapters are merged into it
        rng = np.random.default_rng(seed)
        for name, shape in parameter_shapes(model, config).items():
            bound = shape[1] ** -0.5  # Kaiming's with slope sqrt(5), as PEFT draws A
            down = name.endswith("lora_A.weight")
            value = rng.uniform(-bound, bound, shape) if down else np.zeros(shape)
            self._parameters[name] = jt.array(value.astype(np.float32))

    def __call__(self, x, name: str):
        """What the adapter of matrix `name` adds for inputs x (N, in): (N, out), or None where there is none."""
        if not self._on or f"{name}.lora_A.weight" not in self._parameters:
            return None
        down, up = self._pair(name)
        narrow = jt.nn.matmul_transpose(x.float32(), down) * self.config.scale  # (N, rank)
        return jt.nn.matmul_transpose(narrow, up)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch the adapters off inside the block: the base is then its own teacher."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def state_dict(self) -> dict:
        """Return the parameters by name."""
        return dict(self._parameters)

    def load_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Set every parameter from checked tensors."""
        for name, parameter in self._parameters.items():
            parameter.assign(jt.array(tensors[name].astype(np.float32)))

    def merge(self, base) -> None:
        """Add the adapters into the weights of the plain `base` they are attached to, and detach them."""
        self._kept = {}
        for name in matrices(base.config, self.config.lm_head):
            weight = base.weight(f"{name}.weight")
            down, up = self._pair(name)
            with jt.no_grad():
                merged = weight.float32() + self.config.scale * jt.matmul(up, down)
            self._kept[name] = base.replace(f"{name}.weight", merged.cast(weight.dtype))
        base.adapt(None)

    def unmerge(self, base) -> None:
        """Give `base` back the weights it had, bit by bit, and attach the adapters again."""
        for name, weight in self._kept.items():
            base.replace(f"{name}.weight", weight)
        self._kept = None
        base.adapt(self)

    def _pair(self, name: str):
        return self._parameters[f"{name}.lora_A.weight"], self._parameters[f"{name}.lora_B.weight"]


def file_of(path: str | Path) -> Path:
    """Return the file that `path` means: itself, or the adapters in the folder of heads it names."""
    return Path(path) / ADAPTERS_FILE if Path(path).is_dir() else Path(path)


def save(path: Path, adapters: Adapters, base_folder: Path, header: dict | None = None) -> None:
    """Write adapters for the model in `base_folder`, rounded to bfloat16 as the weights they will be merged into."""
    tensors = {name: p.numpy().astype(ml_dtypes.bfloat16) for name, p in adapters.state_dict().items()}
    lora = dataclasses.asdict(adapters.config)
    checkpoint.save(
        path, tensors, {**(header or {}), "lora": lora, "base_sha256": _weights_digest(base_folder)}
    )


def read(path: Path, model: ModelConfig, base_folder: Path) -> tuple[LoraConfig, dict[str, np.ndarray]]:
    """Read adapters for the model in `base_folder`: their configuration and tensors, float32.

    Raises LoraError when they are no adapters or another model's, CheckpointError naming a file that is missing
    or damaged and every tensor that is missing, unexpected or misshapen.
    """
    tensors, header = checkpoint.load(path)
    if "lora" not in header:
        raise LoraError(f"{path}: not adapters, its header has no key 'lora'")
    if header["base_sha256"] != _weights_digest(base_folder):
        raise LoraError(
            f"{path}: made for another base model than {base_folder}; name the one it was trained on"
        )
    config = LoraConfig(**header["lora"])
    checkpoint.require(checkpoint.shapes_of(tensors), parameter_shapes(model, config), str(path))
    for name, value in tensors.items():
        if not np.isfinite(value.astype(np.float32)).all():
            raise LoraError(f"{path}: tensor {name} holds numbers that are not finite")
    return config, {name: value.astype(np.float32) for name, value in tensors.items()}


def load(path: Path, model: ModelConfig, base_folder: Path) -> Adapters:
    """Return the adapters that `save` wrote, to be attached; errors as `read`."""
    config, tensors = read(path, model, base_folder)
    adapters = Adapters(model, config)
    adapters.load_tensors(tensors)
    return adapters


def merge_into(
    model: ModelConfig, weights: Mapping[str, np.ndarray], path: Path, base_folder: Path
) -> tuple[ModelConfig, Mapping[str, np.ndarray]]:
    """Return configuration and weights of the adapted base; the merged matrices are float32, `weights` stays.

    An adapted LM head that was tied to the embedding becomes a matrix of its own. Errors as `read`.
    """
    config, tensors = read(path, model, base_folder)
    merged = Merged(model, config, tensors, weights)
    if config.lm_head:
        model = dataclasses.replace(model, tie_word_embeddings=False)
    return model, merged


class Merged(Mapping):
    """Weights with adapters added; a matrix is merged when it is asked for, so that a base stands in memory once."""

    def __init__(
        self, model: ModelConfig, config: LoraConfig, tensors: Mapping, weights: Mapping[str, np.ndarray]
    ):
        self._scale, self._tensors, self._weights = config.scale, tensors, weights
        self._sources = {f"{name}.weight": name for name in matrices(model, config.lm_head)}
        self._tied = model.tie_word_embeddings

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._sources:
            return self._weights[key]
        tied = key == "lm_head.weight" and self._tied
        weight = self._weights["model.embed_tokens.weight" if tied else key].astype(np.float32)
        name = self._sources[key]
        down, up = self._tensors[f"{name}.lora_A.weight"], self._tensors[f"{name}.lora_B.weight"]
        return weight + self._scale * (up @ down)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._weights, *self._sources]))

    def __len__(self) -> int:
        return len({*self._weights, *self._sources})


def _weights_digest(folder: Path) -> str:
    return read_manifest(Path(folder))["files"][WEIGHTS]["sha256"]
