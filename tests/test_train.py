"""The training loop: optimiser, schedule, accumulation, what is learned, checkpoints, resuming, failures."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import train_tiny
from fake_base import FakeBase, token_set

from medusa_core import checkpoint, heads, hidden, optim, train, train_loop
from medusa_core.optim import AdamW, learning_rate
from medusa_core.train_config import TrainConfig, TrainError

jt = train.jt
ROOT = Path(__file__).parents[1]


# ---------------------------------------------------------------- optimiser and schedule


def numpy_adamw(p, gradients, rates, decay, scale=1.0, beta1=0.9, beta2=0.999, eps=1e-8):
    """Loshchilov and Hutter, algorithm 2, in float64."""
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates), 1):
        g = g.astype(np.float64) * scale
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        p = p - lr * decay * p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p


@pytest.mark.parametrize("plain", [False, True])
def test_adamw_matches_float64(plain, monkeypatch):
    if plain:
        monkeypatch.setattr(optim, "_update_in_place", optim._update_plain)
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 8)).astype(np.float32)
    gradients = rng.standard_normal((5, 3, 8)).astype(np.float32)
    rates = [1e-3, 2e-3, 3e-3, 2e-3, 1e-3]
    p = jt.array(start)
    optimizer = AdamW({"p": p}, weight_decay=0.1)
    for g, lr in zip(gradients, rates):
        optimizer.step({"p": jt.array(g)}, lr, scale=0.5)
    np.testing.assert_allclose(
        p.numpy(), numpy_adamw(start, gradients, rates, 0.1, scale=0.5), rtol=2e-6, atol=1e-7
    )


def test_updated_parameters_stay_trainable_and_keep_no_history():
    p = jt.array(np.ones((4, 4), np.float32))
    optimizer = AdamW({"p": p})
    counts = []
    for _ in range(6):
        optimizer.step({"p": jt.grad((p * p).sum(), p)}, 0.01)
        jt.sync_all()
        counts.append(jt.liveness_info()["lived_ops"])
    assert not p.is_stop_grad()
    assert counts[-1] <= counts[1]


def test_learning_rate_rises_linearly_and_falls_along_a_cosine():
    rates = [learning_rate(step, total=110, peak=2.0, warmup=10, final_ratio=0.1) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way
    assert rates[109] == pytest.approx(2.0 * (0.1 + 0.45 * (1 + math.cos(math.pi * 0.99))))


def test_a_second_moment_below_the_smallest_normal_number_moves_nothing_to_nan():
    for size in (8, 24, 64):
        p = jt.array(np.full(size, 0.5, np.float32))
        AdamW({"p": p}).step({"p": jt.array(np.full(size, 1e-20, np.float32))}, lr=0.1)
        assert np.isfinite(p.numpy()).all() and (p.numpy() <= 0.5).all()


def test_the_norm_of_a_large_gradient_loses_nothing():
    gradient = jt.full((4, 49152, 64), 1e-3)
    assert optim.global_norm({"lm_head": gradient}) == pytest.approx(
        1e-3 * math.sqrt(4 * 49152 * 64), rel=1e-5
    )


# ---------------------------------------------------------------- batches


def test_an_epoch_visits_every_block_once_and_the_next_in_another_order():
    blocks, per_step = 21, 4
    numbers = np.concatenate(
        [train.block_numbers(3, step, per_step, blocks) for step in range(21)]
    )  # 4 epochs
    epochs = numbers.reshape(4, blocks)
    assert all(sorted(epoch) == list(range(blocks)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    assert not np.array_equal(numbers[:4], train.block_numbers(4, 0, per_step, blocks))


# ---------------------------------------------------------------- training


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Function that trains in tmp_path / name and returns (history, tensors of the heads)."""
    monkeypatch.setattr(train.runtime, "ARTIFACTS", tmp_path)
    base = FakeBase(tmp_path / "base")

    def run(name, resume=False, **changes):
        config = train_tiny.config(tmp_path / name, **{"epochs": 4.0, **changes})
        history = train.train(config, base, token_set(60), resume)
        return history, checkpoint.load(tmp_path / name / "heads" / heads.WEIGHTS_FILE)[0]

    run.base = base
    return run


def test_what_belonged_to_other_heads_of_that_folder_goes(tiny, tmp_path):
    folder = tmp_path / "again" / "heads"
    folder.mkdir(parents=True)
    for name in (heads.ADAPTERS_FILE, heads.TREE_FILE, heads.PLAN_FILE):
        (folder / name).write_text("of heads that learned with their base")
    tiny("again", epochs=0.5)
    assert sorted(path.name for path in folder.iterdir()) == [heads.CONFIG_FILE, heads.WEIGHTS_FILE]


def test_heads_learn_and_the_history_tells(tiny, tmp_path):
    history, tensors = tiny("a", epochs=16.0)
    first, last = history["held_out"][0], history["held_out"][-1]
    assert first["step"] == 0 and last["step"] == history["steps"]
    assert all(after < before for before, after in zip(first["head_loss"], last["head_loss"]))
    assert last["top1"][0] > 0.2 > 3 * first["top1"][0]
    for entry in history["held_out"]:
        assert np.allclose(np.array(entry["accuracy"])[:, 0], entry["top1"])
        assert np.allclose(np.array(entry["accuracy"])[:, :5].sum(axis=1), entry["top5"])
        assert entry["loss"] == pytest.approx(0.8 * entry["head_loss"][0] + 0.64 * entry["head_loss"][1])
    steps = [entry["step"] for entry in history["train"]]
    assert steps == sorted({*range(7, history["steps"], 7), history["steps"]})
    assert all(entry["grad_norm"] > 0 and entry["seconds"] > 0 for entry in history["train"])
    assert json.loads((tmp_path / "a" / "run" / "history.json").read_text()) == history
    loaded = heads.load(tmp_path / "a" / "heads", tiny.base)
    assert np.array_equal(loaded.tensors()["weight0"], tensors["weight0"])
    assert not train_loop.checkpoints(tmp_path / "a" / "run")  # a finished run needs none


def test_target_ranks_are_what_the_accuracies_count(tiny, tmp_path):
    history, _ = tiny("a", epochs=8.0)
    config = train_tiny.config(tmp_path / "a")
    model = heads.load(tmp_path / "a" / "heads", tiny.base)
    states = hidden.compute(tiny.base, token_set(60).select("held-out"), config.hidden_dtype)
    ranks = train.target_ranks(model, states, config)
    assert ranks.shape[1] == config.num_heads and len(ranks) <= len(states.tokens)
    found = history["held_out"][-1]
    # the first head has a target wherever any has one; deeper ones end before the text does, and count as misses
    assert (ranks[:, 0] == 0).mean() == pytest.approx(found["top1"][0])
    assert (ranks[:, 0] < 5).mean() == pytest.approx(found["top5"][0])
    assert (ranks[:, 1] == 0).mean() <= found["top1"][1]


def test_micro_batches_train_the_same_heads_as_whole_batches(tiny):
    whole, parts = tiny("whole")[1], tiny("parts", micro_batches=4)[1]
    assert np.abs(whole["weight0"]).max() > 0.01
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, atol=2e-5, err_msg=name)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_heads(tiny):
    one, two, other = tiny("one")[1], tiny("two")[1], tiny("other", seed=1)[1]
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["weight0"], other["weight0"])


def test_a_loss_that_is_no_number_names_step_and_head(tiny, monkeypatch):
    original = heads.kind("medusa").loss
    calls = []

    def loss(self, batch, counts, decay, weight):
        calls.append(counts is not None)
        if sum(calls) == 3 and counts is not None:
            self.weight0.assign(self.weight0 + jt.array(np.array([0, np.nan], np.float32)[:, None, None]))
        return original(self, batch, counts, decay, weight)

    monkeypatch.setattr(heads.kind("medusa"), "loss", loss)
    with pytest.raises(TrainError, match="step 3: the loss of head 2 is not finite; lower the learning rate"):
        tiny("nan")


def test_clipping_bounds_what_one_update_sees(tiny, monkeypatch):
    scales = []
    step = AdamW.step
    monkeypatch.setattr(
        AdamW, "step", lambda self, g, lr, scale: (scales.append(scale), step(self, g, lr, scale))
    )
    history, _ = tiny("clip", clip=0.05, log_every=1)
    norms = [entry["grad_norm"] for entry in history["train"]]
    assert max(norms) > 0.05 > min(s * n for s, n in zip(scales, norms)) - 1e-6
    assert all(s * n <= 0.05 * (1 + 1e-6) for s, n in zip(scales, norms))


# ---------------------------------------------------------------- checkpoints


class Killed(Exception):
    pass


@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch):
    """A run that was interrupted after 37 updates, checkpointed after every 10th."""
    update = train.update

    def interrupted(model, optimizer, batches, lr, config, step):
        if step == 38:
            raise Killed
        return update(model, optimizer, batches, lr, config, step)

    with monkeypatch.context() as patch:
        patch.setattr(train, "update", interrupted)
        with pytest.raises(Killed):
            tiny("stopped", checkpoint_every=10)
    return tmp_path / "stopped" / "run"


def test_the_last_two_checkpoints_are_kept(stopped):
    assert [path.name for path in train_loop.checkpoints(stopped)] == [
        "checkpoint-00000020.safetensors",
        "checkpoint-00000030.safetensors",
    ]


def test_a_resumed_run_gives_the_bits_and_the_history_of_an_unbroken_one(stopped, tiny):
    history, tensors = tiny("stopped", resume=True, checkpoint_every=10)
    whole_history, whole = tiny("whole", checkpoint_every=10)
    assert all(np.array_equal(tensors[name], whole[name]) for name in whole)
    for key in ("train", "held_out"):
        without = [
            [{n: x for n, x in e.items() if n != "seconds"} for e in h[key]] for h in (history, whole_history)
        ]
        assert without[0] == without[1]


def test_a_finished_run_is_read_and_not_repeated(tiny, monkeypatch):
    history, tensors = tiny("a")
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", None)
        again, same = tiny("a", resume=True)
    assert again == history and all(np.array_equal(same[name], tensors[name]) for name in tensors)


def test_a_run_that_died_before_its_heads_were_whole_is_not_taken_for_finished(tiny, tmp_path):
    _, tensors = tiny("a")
    (config,) = tmp_path.rglob("config.json")
    written = config.read_text()
    config.unlink()
    _, same = tiny("a", resume=True)
    assert config.read_text() == written and all(
        np.array_equal(same[name], tensors[name]) for name in tensors
    )


@pytest.mark.parametrize("changed", ["settings", "heads", "data"])
def test_a_finished_run_of_something_else_is_repeated(tiny, tmp_path, changed):
    history, tensors = tiny("a")
    weights, path = tmp_path / "a" / "heads" / heads.WEIGHTS_FILE, tmp_path / "a" / "run" / "history.json"
    if changed == "heads":
        checkpoint.save(weights, tensors, {})
    if changed == "data":
        path.write_text(json.dumps({**history, "data": "another"}))
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 0}))
    again, _ = tiny("a", resume=True, **({"learning_rate": 0.01} if changed == "settings" else {}))
    assert again["steps"] > 0 and json.loads(path.read_text()) == again


def test_a_damaged_history_is_refused_by_name(tiny, tmp_path):
    tiny("a")
    path = tmp_path / "a" / "run" / "history.json"
    path.write_text("{")
    with pytest.raises(TrainError, match=str(path)):
        tiny("a", resume=True)


def test_a_run_with_checkpoints_is_not_overwritten_by_a_new_one(stopped, tiny):
    with pytest.raises(TrainError, match="holds checkpoints: resume that run, delete them"):
        tiny("stopped")


def test_a_checkpoint_of_other_settings_is_refused_with_the_difference(stopped, tiny):
    with pytest.raises(TrainError, match="learning_rate was 0.003, is 0.01"):
        tiny("stopped", resume=True, learning_rate=0.01)


def test_a_checkpoint_from_before_a_setting_existed_is_resumed(stopped, tiny):
    last = train_loop.checkpoints(stopped)[-1]
    tensors, header = checkpoint.load(last)
    del header["config"]["feature_weight"]
    checkpoint.save(last, tensors, header)
    history, _ = tiny("stopped", resume=True, checkpoint_every=10)
    assert history["train"][-1]["step"] == history["steps"]


def test_a_damaged_checkpoint_is_refused_by_name(stopped, tiny):
    last = train_loop.checkpoints(stopped)[-1]
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=str(last)):
        tiny("stopped", resume=True)


def test_killed_and_resumed_training_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    """SIGKILL at an arbitrary moment of training, in a process of its own."""

    def command(name, *flags):
        return [sys.executable, str(ROOT / "tests" / "train_tiny.py"), str(tmp_path / name), *flags]

    # One thread: work this small only waits for a second one on a busy machine.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    broken = subprocess.Popen(command("broken"), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while len(train_loop.checkpoints(tmp_path / "broken" / "run")) < 2 and time.monotonic() < deadline:
        assert broken.poll() is None, "training ended before it could be killed"
        time.sleep(0.005)
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    assert not (tmp_path / "broken" / "heads").exists()
    for name, flags in (("broken", ["--resume"]), ("whole", [])):
        subprocess.run(command(name, *flags), env=environment, check=True, capture_output=True, timeout=900)
    files = [tmp_path / name / "heads" / heads.WEIGHTS_FILE for name in ("broken", "whole")]
    one, two = (checkpoint.load(path)[0] for path in files)
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


# ---------------------------------------------------------------- settings


def test_settings_come_from_yaml_and_flags_override(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("epochs: 3\nlearning_rate: 0.002\nout: somewhere\n")
    assert TrainConfig.from_yaml(path) == dataclasses.replace(
        TrainConfig(), epochs=3, learning_rate=0.002, out="somewhere"
    )


@pytest.mark.parametrize(
    "line, message",
    [
        ("epoch: 3", "p.yaml: unknown key 'epoch'; expected some of model, data"),
        ("epochs: three", "p.yaml: epochs is 'three', expected float"),
        ("learning_rate: 1e-3", "p.yaml: learning_rate is '1e-3', expected float; .* write 1.0e-3"),
        ("micro_batches: 0", "micro_batches is 0, expected a number above 0"),
        ("decay: 0", "decay is 0, expected a number above 0"),
        ("warmup_steps: -5", "warmup_steps is -5, expected 0 or more"),
        ("max_positions: -3", "max_positions is -3, expected 0 or more"),
        ("- epochs", "p.yaml: expected `key: value` lines"),
        ("epochs: [", "p.yaml: cannot be read"),
        ("block: 24", "batch_positions 512 is not a multiple of micro_batches 1 x block 24"),
        ("teacher_weight: 1.5", "teacher_weight is 1.5, expected 0 to 1"),
        ("learning_rate: 0", "learning_rate is 0, expected a number above 0"),
        ("learning_rate: .nan", "learning_rate is nan, expected a number above 0"),
        ("epochs: .inf", "epochs is inf, expected a number above 0"),
        ("final_ratio: -5.0", "final_ratio is -5.0, expected 0 or more"),
        ("seed: -1", "seed is -1, expected 0 or more"),
        ("num_heads: true", "num_heads is True, expected int"),
        ("draft_vocab_size: 0", "draft_vocab_size is 0, expected 1 or more"),
        ("out: ''", "out is empty, expected a folder"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, line, message):
    path = tmp_path / "p.yaml"
    path.write_text(line + "\n")
    with pytest.raises(TrainError, match=message):
        TrainConfig.from_yaml(path)


def test_the_command_line_reports_errors_in_one_line(tmp_path, capsys):
    assert train.main(["--data", str(tmp_path / "none.parquet"), "--epochs", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.parquet" in error and error.count("\n") == 1


def test_too_few_positions_and_too_large_a_draft_vocabulary_are_refused(tiny):
    with pytest.raises(TrainError, match="draft_vocab_size 99 exceeds the 50 tokens"):
        tiny("a", draft_vocab_size=99)
    with pytest.raises(TrainError, match="positions are less than a block of 4096"):
        tiny("b", block=4096, batch_positions=4096)
