"""Draft heads by kind and by name: a file a kind, a folder (config.json, heads.safetensors) a trained set.

A drafter has `config`; `draft(hidden, token, tree)` for decoding; `targets(batch)` and `loss(batch, ...)` for
the loop of train.py; `tensors()`, `shapes()` and `load_tensors()` for its file; `BASE_METHODS` and
`LOSS_SETTINGS` say what else it takes from its base and from the settings (drafter.py holds what most share).
No Jittor starts here.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medusa_core import checkpoint, files, runtime
from medusa_core.config import RECURRENT_KINDS, ConfigError, HeadsConfig
from medusa_core.model_folder import sha256

KINDS = {
    "medusa": ("medusa_core.heads.medusa", "MedusaHeads"),
    "moe": ("medusa_core.heads.moe", "MoeHeads"),
    **dict.fromkeys(RECURRENT_KINDS, ("medusa_core.heads.recurrent", "RecurrentHeads")),
}
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "heads.safetensors"
ADAPTERS_FILE = "lora.safetensors"  # only with heads that learned together with the base
TREE_FILE, PLAN_FILE = "tree.json", "plan.json"  # what they are worth checking, measured


class HeadsError(ValueError):
    """Heads that do not exist, or do not fit their base model or their tree."""


def folder_of_names() -> Path:
    """Return the folder whose subfolders are the shipped heads."""
    return runtime.ARTIFACTS / "heads"


def available() -> list[str]:
    """Return the names that `load` resolves, sorted."""
    return sorted(path.parent.name for path in folder_of_names().glob(f"*/{CONFIG_FILE}"))


def resolve(name_or_folder) -> Path:
    """Return the folder of heads given by name or by path; HeadsError lists the names when there is none."""
    for folder in (folder_of_names() / str(name_or_folder), Path(name_or_folder)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise HeadsError(
        f"no heads called {str(name_or_folder)!r}: neither a folder with a {CONFIG_FILE} nor a name "
        f"under {folder_of_names()} ({', '.join(available()) or 'none yet'}); "
        "`python -m medusa_core.train` makes some"
    )


def read_config(folder) -> HeadsConfig:
    """Read a heads folder's config.json; raises ConfigError naming the file when it is malformed."""
    path = Path(folder) / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    if isinstance(raw, dict) and "medusa_num_heads" in raw:
        raise ConfigError(
            f"{path}: of heads in their published form; python -m medusa_core.convert_heads {folder} --out OTHER_FOLDER"
        )
    return HeadsConfig.from_dict(raw, where=str(path))


def adapters(name_or_folder) -> Path | None:
    """Return the LoRA file that the base of these heads needs, None where they draft for the base as it is."""
    path = resolve(name_or_folder) / ADAPTERS_FILE
    return path if path.is_file() else None


def kind(name: str):
    """Return the class of a kind of heads; raises HeadsError listing the kinds when it is unknown."""
    if name not in KINDS:
        raise HeadsError(f"heads of kind {name!r} are unknown: expected one of {', '.join(sorted(KINDS))}")
    module, cls = KINDS[name]
    return getattr(importlib.import_module(module), cls)


def create(config: HeadsConfig, base, draft_ids=None, where: str = "heads"):
    """Return untrained heads for `base`, whose logits equal the base's own over the tokens they cover.

    Those of kinds "gated" and "moe" are only near them: where a network changes nothing, its gate learns nothing.
    draft_ids (v,) int32: the draft vocabulary, ascending, with output "draft" only. Raises HeadsError, naming
    `where`, when they do not fit the base.
    """
    _check_base(config, base, where)
    if (draft_ids is None) != (config.output != "draft"):
        raise HeadsError(f'draft_ids go with output "draft", and only there; output is {config.output!r}')
    rows = np.arange(config.vocab_size) if draft_ids is None else np.asarray(draft_ids)
    inside = rows.min() >= 0 and rows.max() < config.vocab_size
    if len(rows) != config.output_size or not inside or (np.diff(rows) < 1).any():
        wanted = f"{config.output_size} different token ids below {config.vocab_size}"
        raise HeadsError(f"{where}: draft_ids must be {wanted}, ascending")
    cls = kind(config.kind)
    methods = {name: getattr(base, name) for name in cls.BASE_METHODS}
    return cls(config, base.lm_head_rows(rows.astype(np.int32)), draft_ids, **methods)


def check_base(name_or_folder, base) -> None:
    """Raise HeadsError unless `base` is of the size that heads, by name or folder, were made for."""
    folder = resolve(name_or_folder)
    _check_base(read_config(folder), base, str(folder))


def parameters(config: HeadsConfig) -> int:
    """Return how many numbers of heads with this config are trained.

    With d = 576, K = 4 and a state of r = 288, in millions: medusa 1.33, gru 1.33, lstm 1.16, gated 1.00,
    redrafter 0.75. Medusa heads add d^2 + d for each depth, and a draft reads them and the LM head once; a
    recurrent cell has one size whatever the depth, and a draft reads it and the LM head once for each.
    """
    shapes = kind(config.kind).shapes(config)
    return sum(math.prod(shape) for name, shape in shapes.items() if name != "draft_ids")


def load(name_or_folder, base):
    """Return trained heads for `base`, by shipped name or by folder.

    Raises HeadsError when there are none, they belong to another base or need adapters that it lacks,
    ConfigError for a bad config.json, and CheckpointError naming the file and every tensor that is missing,
    unexpected or misshapen.
    """
    folder = resolve(name_or_folder)
    config = read_config(folder)
    path = folder / WEIGHTS_FILE
    tensors, header = checkpoint.load(path)
    _check_adapters(folder, base, header)
    # All shapes before the heads are built: a wrong draft vocabulary would fail less clearly there.
    checkpoint.require(checkpoint.shapes_of(tensors), kind(config.kind).shapes(config), str(path))
    heads = create(config, base, tensors.get("draft_ids"), str(path))
    heads.load_tensors(tensors)
    return heads


def save(folder, heads, header: dict | None = None) -> None:
    """Write heads to a folder that `load` reads; `header` (JSON) says how they were trained."""
    write(folder, heads.config, heads.tensors(), header or {})


def write(folder, config: HeadsConfig, tensors: dict[str, np.ndarray], header: dict) -> None:
    """Write the tensors of heads to a folder that `load` reads."""
    folder = Path(folder)
    checkpoint.save(folder / WEIGHTS_FILE, tensors, header)
    # Last, because it is what makes the folder count as heads.
    files.write_json(folder / CONFIG_FILE, config.to_dict())


def forget(folder, names: Iterable[str] = (ADAPTERS_FILE, TREE_FILE, PLAN_FILE)) -> None:
    """Remove what belonged to the heads that were in `folder` before those that have taken their place."""
    for name in names:
        (Path(folder) / name).unlink(missing_ok=True)


def _check_adapters(folder: Path, base, header: dict) -> None:
    needed = adapters(folder)
    if not needed and "rank" in header.get("config", {}):  # only adapters have one
        raise HeadsError(
            f"{folder}: these heads learned together with their base, but {ADAPTERS_FILE}, which holds its changes, "
            "is missing; restore it, or train again"
        )
    if needed and sha256(needed) != getattr(base, "adapters", None):
        raise HeadsError(
            f"{folder}: these heads learned together with their base, whose changes are in {ADAPTERS_FILE}; "
            f"load the base with them: llama.load(model, adapters={str(needed)!r})"
        )


def _check_base(config: HeadsConfig, base, where: str) -> None:
    for name in ("hidden_size", "vocab_size"):
        have, want = getattr(config, name), getattr(base.config, name)
        if have != want:
            raise HeadsError(
                f"{where}: made for a base model with {name} {have} ({config.base_model or 'unnamed'}), "
                f"but this base has {want}; load the heads with the base they were trained on"
            )
