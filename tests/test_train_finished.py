"""What counts as a finished training: heads and history of the same settings and the same data."""

import numpy as np
import pytest
import train_tiny
from fake_base import FakeBase, token_set

from medusa_core import checkpoint, heads, train, train_loop


class Killed(Exception):
    """Where a run ends in these tests."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train tiny heads; `dying` names what the run dies at."""
    monkeypatch.setattr(train.runtime, "ARTIFACTS", tmp_path)
    base, config = FakeBase(tmp_path / "base"), train_tiny.config(tmp_path / "a", checkpoint_every=5)

    def die(*_):
        raise Killed

    def run(seed=0, dying=None, **options):
        with monkeypatch.context() as patch:
            if dying:
                patch.setattr(*dying, die)
                with pytest.raises(Killed):
                    train.train(config, base, token_set(60, seed=seed), **options)
            else:
                train.train(config, base, token_set(60, seed=seed), **options)
        return checkpoint.load(tmp_path / "a" / "heads" / heads.WEIGHTS_FILE)[0]

    return run


def test_weights_of_other_data_are_not_taken_for_those_of_a_run_that_died_before_saving(run):
    old = run()
    run(seed=1, resume=True, dying=(heads, "save"))
    new = run(seed=1, resume=True)
    assert not np.array_equal(old["weight0"], new["weight0"])


def test_checkpoints_that_a_finished_run_left_are_removed(run, tmp_path):
    run(dying=(train, "remove_checkpoints"))
    assert train_loop.checkpoints(tmp_path / "a" / "run")
    run(resume=True)
    assert not train_loop.checkpoints(tmp_path / "a" / "run")


def test_what_belonged_to_earlier_heads_stays_until_the_new_ones_are_saved(run, tmp_path):
    run()
    tree = tmp_path / "a" / "heads" / heads.TREE_FILE
    tree.write_text("{}")
    run(seed=1, dying=(heads, "write"))
    assert tree.exists()
    run(seed=1, resume=True)
    assert not tree.exists()
