"""Training of heads alone: batches, what is learned and from what, failures, settings."""

import dataclasses
import json

import numpy as np
import pytest
import train_tiny
from fake_base import FakeBase, token_set

from medusa_core import heads, hidden, train, train_loop
from medusa_core.optim import AdamW, learning_rate
from medusa_core.train_config import TrainConfig, TrainError

jt = train.jt


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


# ---------------------------------------------------------------- what is learned from


class Begun(Exception):
    pass


@pytest.fixture
def begun(tiny, monkeypatch):
    """Function that begins a training and returns the hidden states that it learns from and is judged by."""

    def begin(**changes):
        given = []

        def fit(model, seen, unseen, *_):
            given.extend((seen, unseen))
            raise Begun

        with monkeypatch.context() as patch:
            patch.setattr(train, "fit", fit)
            with pytest.raises(Begun):
                tiny("begun", **changes)
        return given

    return begin


def test_heads_learn_from_the_training_answers_and_are_judged_by_the_held_out_ones(begun):
    for states, split in zip(begun(), ("train", "held-out"), strict=True):
        assert np.array_equal(states.tokens, np.concatenate(token_set(60).select(split).answer_ids))


def test_a_limit_of_positions_takes_the_first_answers_that_hold_them(begun):
    seen, _ = begun(max_positions=100)
    answers = token_set(60).select("train").answer_ids
    ends = np.cumsum([len(answer) for answer in answers])
    assert np.array_equal(seen.tokens, np.concatenate(answers)[: ends[ends >= 100][0]])


def test_a_token_that_ends_texts_can_be_drafted_however_rare_it_is(tiny, tmp_path):
    data = token_set(60)
    rarest = int(np.bincount(np.concatenate(data.answer_ids), minlength=50).argmin())
    tiny.base.config = dataclasses.replace(tiny.base.config, eos_token_ids=(rarest,))
    model = train.untrained(train_tiny.config(tmp_path, draft_vocab_size=8), tiny.base, data)
    draft_ids = model.tensors()["draft_ids"]
    assert rarest in draft_ids and len(draft_ids) == 8


# ---------------------------------------------------------------- training


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


@pytest.fixture
def untrained(tiny, tmp_path):
    """Heads that have not learned, and the held-out states to judge them by."""
    data = token_set(60)
    model = train.untrained(train_tiny.config(tmp_path), tiny.base, data)
    return model, hidden.compute(tiny.base, data.select("held-out"))


def test_an_evaluation_is_spread_evenly_over_the_held_out_text(untrained, tmp_path, monkeypatch):
    model, states = untrained
    asked, batch = [], hidden.HiddenStates.batch

    def recorded(self, numbers, *rest):
        asked.extend(numbers.tolist())
        return batch(self, numbers, *rest)

    monkeypatch.setattr(hidden.HiddenStates, "batch", recorded)
    config = train_tiny.config(tmp_path, eval_positions=16)
    train.evaluate(model, states, config)
    assert len(asked) == 16 // config.block
    assert asked[0] == 0 and asked[-1] == len(states.tokens) // config.block - 1
    assert np.ptp(np.diff(asked)) <= 1


def test_an_evaluation_asks_for_the_tokens_that_came_whoever_taught(untrained, tmp_path):
    data_alone, taught = (
        train.evaluate(*untrained, train_tiny.config(tmp_path, teacher_weight=weight))
        for weight in (0.0, 0.5)
    )
    assert taught == data_alone


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


@pytest.fixture
def updates(monkeypatch):
    """What the updates that follow are made with: (learning rate, scale of the gradient, weight decay) of each."""
    made, step = [], AdamW.step

    def recorded(self, gradients, lr, scale):
        made.append((lr, scale, self.weight_decay))
        step(self, gradients, lr, scale)

    monkeypatch.setattr(AdamW, "step", recorded)
    return made


def test_every_update_gets_the_schedules_rate_and_the_settings_weight_decay(tiny, updates):
    settings = {"learning_rate": 2e-3, "warmup_steps": 3, "final_ratio": 0.2, "weight_decay": 0.01}
    total = tiny("a", epochs=0.5, **settings)[0]["steps"]
    assert [lr for lr, _, _ in updates] == [learning_rate(step, total, 2e-3, 3, 0.2) for step in range(total)]
    assert {decay for _, _, decay in updates} == {0.01} and total > 3


def test_a_gradient_below_the_limit_is_not_scaled(tiny, updates):
    history, _ = tiny("a", epochs=0.5, clip=1e6, log_every=1)
    assert max(entry["grad_norm"] for entry in history["train"]) < 1e6
    assert {scale for _, scale, _ in updates} == {1.0}


def test_clipping_bounds_what_one_update_sees(tiny, updates):
    history, _ = tiny("clip", clip=0.05, log_every=1)
    scales = [scale for _, scale, _ in updates]
    norms = [entry["grad_norm"] for entry in history["train"]]
    assert max(norms) > 0.05 > min(s * n for s, n in zip(scales, norms)) - 1e-6
    assert all(s * n <= 0.05 * (1 + 1e-6) for s, n in zip(scales, norms))


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
        ("epochs: 2.0\nepochs: 3.0", 'p.yaml:2: "epochs" is already in line 1; keep one'),
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


@pytest.mark.parametrize(
    "settings",
    [
        {"num_heads": 5, "num_layers": 2, "output": "own"},
        {"kind": "gru", "state_size": 16, "draft_vocab_size": 32},
        {"kind": "moe", "experts": 3, "active_experts": 2, "output": "shared"},
    ],
)
def test_settings_like_those_of_heads_describe_heads_of_the_same_shape(tmp_path, settings):
    base = FakeBase(tmp_path)
    shape = train.shape(TrainConfig(**settings), base)
    assert train.shape(TrainConfig(**train.like(shape)), base) == shape


def test_the_command_line_reports_errors_in_one_line(tmp_path, capsys):
    assert train.main(["--data", str(tmp_path / "none.parquet"), "--epochs", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.parquet" in error and error.count("\n") == 1


def test_too_few_positions_and_too_large_a_draft_vocabulary_are_refused(tiny):
    with pytest.raises(TrainError, match="draft_vocab_size 99 exceeds the 50 tokens"):
        tiny("a", draft_vocab_size=99)
    with pytest.raises(TrainError, match="positions are less than a block of 4096"):
        tiny("b", block=4096, batch_positions=4096)
