"""The training commands refuse what would lose heads or could not end, before anything is computed."""

import dataclasses

import numpy as np
import pytest

from medusa_core import checkpoint, convert, heads, machine, ranks, token_set, train_command
from medusa_core.train_config import TrainConfig


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A token set of the model "small", and a base folder of that name."""
    rows = [{"prompt_ids": [1, n], "answer_ids": [n + 1], "sample": 0} for n in range(3)]
    token_set.write_tokens(tmp_path / "answers.parquet", rows, {"model": "small"})
    monkeypatch.setattr(convert, "resolve", lambda name: tmp_path / name)
    return tmp_path


def run(folder, *more):
    """Exit status of the command, and the settings that its training was given."""
    given = []
    flags = ["--data", folder / "answers.parquet", "--out", folder / "out", "--model", "small", *more]
    status = train_command.command(
        TrainConfig, lambda config, *_: given.append(config), "train", "", list(map(str, flags))
    )
    return status, given


def test_heads_that_are_there_are_not_replaced(folder, capsys):
    (config,) = run(folder)[1]
    weights = folder / "out" / heads.WEIGHTS_FILE
    weights.parent.mkdir()
    checkpoint.save(weights, {"a": np.zeros(1, np.float32)}, {"config": dataclasses.asdict(config)})
    before = weights.read_bytes()
    assert run(folder) == (1, [])
    assert (
        "out holds trained heads of these settings: --resume reads them, or delete" in capsys.readouterr().err
    )
    for flags in (["--kind", "gru"], ["--kind", "gru", "--resume"]):
        assert run(folder, *flags) == (1, [])
        assert "out holds trained heads: name another --out and --run" in capsys.readouterr().err
    assert run(folder, "--resume") == (0, [config])
    assert weights.read_bytes() == before


def test_answers_of_another_model_are_named(folder, capsys):
    assert run(folder)[0] == 0
    assert capsys.readouterr().err == ""
    assert run(folder, "--model", "large")[0] == 0
    assert "note: these answers are of small, not of large" in capsys.readouterr().err


def test_several_processes_on_a_gpu_are_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(machine, "gpu_used", lambda: True)
    assert run(folder) == (1, [])
    assert "cannot train on a GPU" in capsys.readouterr().err
