"""Joint training: schedules, what it starts from, resuming, failures, what it leaves behind."""

import json

import numpy as np
import pytest
from tiny_model import folder_of
from train2_tiny import DATA, config_of, log_softmax

from medusa_core import checkpoint, heads, llama, masks, train2, train_loop, windows
from medusa_core.lora import Adapters, LoraConfig
from medusa_core.losses import NO_TARGET
from medusa_core.optim import AdamW
from medusa_core.train2 import Joint
from medusa_core.train2_config import heads_scale
from medusa_core.train_config import TrainError

jt = train2.jt


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return llama.load(folder_of(tmp_path_factory.mktemp("base") / "model"), "float32", "plain")


@pytest.fixture
def tiny(base, tmp_path):
    """Function that trains in tmp_path / name and returns (history, tensors of heads and adapters)."""

    def run(name, resume=False, **changes):
        config = config_of(tmp_path / name, **changes)
        history = train2.train_jointly(config, base, DATA, resume)
        files = (heads.WEIGHTS_FILE, heads.ADAPTERS_FILE)
        tensors = [checkpoint.load(tmp_path / name / "heads" / file)[0] for file in files]
        return history, tensors[0] | tensors[1]

    return run


# ---------------------------------------------------------------- schedule and command line


@pytest.mark.parametrize("recipe", ["ramp", "direct"])
def test_every_update_gets_the_recipes_scale(tiny, recipe, monkeypatch):
    seen = []
    loss = Joint.loss

    def recorded(self, batch, counts, *rest, **settings):
        if counts is not None:
            seen.append(self.heads_scale)
        return loss(self, batch, counts, *rest, **settings)

    monkeypatch.setattr(Joint, "loss", recorded)
    total = tiny("a", recipe=recipe)[0]["steps"]
    assert seen[::2] == seen[1::2] == [heads_scale(recipe, step, total) for step in range(total)]


def test_the_command_line_reports_errors_in_one_line(tmp_path, capsys):
    assert train2.main(["--data", str(tmp_path / "none.parquet"), "--recipe", "ramp"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.parquet" in error and error.count("\n") == 1


# ---------------------------------------------------------------- what it starts from


class Begun(Exception):
    pass


@pytest.fixture
def begun(tiny, monkeypatch):
    """Function that begins a joint training and returns what its loop is given: the task and the windows seen."""

    def begin(**changes):
        given, fit = [], train2.fit

        def loop(task, *_):
            given.append(task)
            raise Begun

        def recorded(model, seen, *rest):
            given.append(seen)
            return fit(model, seen, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(train2, "fit", recorded)
            patch.setattr(train_loop, "loop", loop)
            with pytest.raises(Begun):
                tiny("begun", **changes)
        seen, task = given
        return task, seen

    return begin


def test_heads_and_base_learn_from_the_training_answers(begun):
    _, seen = begun()
    assert np.array_equal(seen.ids, windows.cut(DATA.select("train"), seen.length).ids)


def test_the_seed_draws_what_the_adapters_start_from(begun):
    one, same, other = (begun(seed=seed)[0].model.adapters.state_dict() for seed in (0, 0, 1))
    for name, value in one.items():
        assert np.array_equal(value.numpy(), same[name].numpy())
        zero = name.endswith("lora_B.weight")  # whatever the seed
        assert np.array_equal(value.numpy(), other[name].numpy()) == zero, name


def test_all_weights_decay_and_the_heads_learn_at_a_rate_of_their_own(begun):
    optimizer = begun(weight_decay=0.1, heads_rate=3.0)[0].optimizer
    assert optimizer.weight_decay == 0.1
    assert optimizer.rates == {"heads.weight0": 3.0, "heads.bias0": 3.0}


# ---------------------------------------------------------------- training


def test_divergence_is_zero_and_perplexity_the_bases_own_at_the_start(base, tiny):
    first = tiny("a", epochs=0.1)[0]["held_out"][0]
    assert first["step"] == 0 and abs(first["kl"]) < 1e-6
    laid = windows.cut(DATA.select("held-out"), 16)
    chosen = np.linspace(0, len(laid) - 1, 5).astype(int)
    losses = []
    for number in chosen:
        batch = laid.batch(np.array([number]), 2, 1)
        logp = log_softmax(base.logits(base(batch.ids, batch.positions, batch.mask)).numpy()[0])
        row = np.flatnonzero(batch.tokens[0] != NO_TARGET)
        losses += (-logp[row, batch.tokens[0, row]]).tolist()
    assert first["lm_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert first["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def test_heads_and_base_learn_and_the_folder_decodes(base, tiny, tmp_path):
    call = np.arange(20)[None] % 50, np.arange(20)[None], masks.causal(20)
    before = base.logits(base(*call)).numpy()
    history, tensors = tiny("a", epochs=12.0, distill=False, recipe="direct")
    assert np.array_equal(base.logits(base(*call)).numpy(), before)
    first, last = history["held_out"][0], history["held_out"][-1]
    assert last["perplexity"] < 0.5 * first["perplexity"] and last["kl"] > 0.1
    assert all(after < early for early, after in zip(first["head_loss"], last["head_loss"]))
    assert len(last["top1"]) == len(last["accuracy"]) == 2
    assert all(entry["lm_loss"] > 0 and "kl" not in entry for entry in history["train"])
    assert json.loads((tmp_path / "a" / "run" / "history.json").read_text()) == history
    assert not train_loop.checkpoints(tmp_path / "a" / "run")
    folder = tmp_path / "a" / "heads"
    adapted = llama.load(base.folder, "float32", adapters=heads.adapters(folder))
    loaded = heads.load(folder, adapted)
    assert np.array_equal(loaded.tensors()["weight0"], tensors["weight0"])
    batch = windows.cut(DATA.select("held-out"), 16).batch(np.arange(3), 2, 3)
    logp = log_softmax(adapted.logits(adapted(batch.ids, batch.positions, batch.mask)).numpy()).reshape(
        48, -1
    )
    row = np.flatnonzero(batch.tokens[0] != NO_TARGET)
    assert np.exp(-logp[row, batch.tokens[0, row]].mean()) < 0.5 * first["perplexity"]


def test_self_distillation_keeps_the_base_nearer_than_the_data_does(tiny):
    ends = {d: tiny(str(d), epochs=6.0, distill=d)[0]["held_out"][-1] for d in (True, False)}
    assert 1e-5 < ends[True]["kl"] < 0.2 * ends[False]["kl"]


def test_untrained_heads_that_start_at_full_weight_move_the_base_more_than_the_ramp_does(tiny):
    ends = {recipe: tiny(recipe, epochs=6.0, recipe=recipe)[0]["held_out"] for recipe in ("ramp", "direct")}
    assert max(e["kl"] for e in ends["ramp"]) < 0.7 * max(e["kl"] for e in ends["direct"])
    assert ends["ramp"][-1]["kl"] < 0.7 * ends["direct"][-1]["kl"]


@pytest.mark.parametrize("kind", sorted(heads.KINDS))
def test_every_kind_of_heads_can_learn_with_the_base(tiny, kind):
    history, _ = tiny(kind, kind=kind, epochs=6.0, recipe="direct")
    first, last = history["held_out"][0], history["held_out"][-1]
    assert last["loss"] < first["loss"] and np.isfinite(last["kl"])


def test_an_adapted_lm_head_trains_with_heads_that_have_their_own(base, tiny, tmp_path):
    history, tensors = tiny("a", adapt_lm_head=True, output="own", distill=False)
    assert np.abs(tensors["lm_head.lora_B.weight"].astype(np.float32)).max() > 1e-4
    assert history["held_out"][-1]["perplexity"] < history["held_out"][0]["perplexity"]
    heads.load(tmp_path / "a" / "heads", llama.load(base.folder, adapters=tmp_path / "a" / "heads"))


def test_two_stages_go_on_from_the_heads_of_the_first(base, tiny, tmp_path):
    config = config_of(tmp_path / "one")
    first = train2.train.untrained(config, base, DATA)
    rng = np.random.default_rng(0)
    first.load_tensors(
        {name: 0.1 * rng.standard_normal(tuple(p.shape)) for name, p in first.state_dict().items()}
    )
    heads.save(tmp_path / "one", first)
    given = {"recipe": "two-stage", "heads": str(tmp_path / "one")}
    history, tensors = tiny("two", epochs=0.1, learning_rate=1e-9, **given)
    np.testing.assert_allclose(tensors["weight0"], first.tensors()["weight0"], atol=1e-6)
    untrained = tiny("ramp", epochs=0.1)[0]
    assert history["held_out"][0]["head_loss"] != untrained["held_out"][0]["head_loss"]
    with pytest.raises(TrainError, match="have num_heads 2, the settings say 3"):
        tiny("three", num_heads=3, **given)
    with pytest.raises(TrainError, match="have num_layers 1, the settings say 2"):
        tiny("deep", num_layers=2, **given)


def test_micro_batches_train_the_same_weights_as_whole_batches(tiny):
    whole, parts = (tiny(str(n), micro_batches=n, recipe="direct")[1] for n in (1, 4))
    assert np.abs(whole["weight0"]).max() > 0.01
    for name, value in whole.items():
        value, other = value.astype(np.float32), parts[name].astype(np.float32)
        np.testing.assert_allclose(other, value, atol=2e-3, err_msg=name)  # adapters are kept in bfloat16


def test_a_loss_that_is_no_number_names_step_and_part(tiny, monkeypatch):
    original, calls = Joint.loss, []

    def loss(self, batch, counts, *rest, **settings):
        calls.append(counts is not None)
        if sum(calls) == 5 and counts is not None:  # two micro-batches an update
            p = next(iter(self.adapters.state_dict().values()))
            p.assign(p + jt.array(np.full(tuple(p.shape), np.nan, np.float32)))
        return original(self, batch, counts, *rest, **settings)

    monkeypatch.setattr(Joint, "loss", loss)
    with pytest.raises(
        TrainError, match="step 3: the base's cross-entropy is not finite; lower the learning"
    ):
        tiny("nan")


def test_the_kernels_model_is_refused(base, tmp_path):
    with pytest.raises(TrainError, match='backend "plain"'):
        train2.train_jointly(config_of(tmp_path), llama.load(base.folder), DATA)


# ---------------------------------------------------------------- checkpoints


class Killed(Exception):
    pass


def test_a_resumed_run_gives_the_bits_and_the_history_of_an_unbroken_one(tiny, tmp_path, monkeypatch):
    update = train_loop.update

    def interrupted(model, optimizer, batches, lr, config, step, before):
        if step == 19:
            raise Killed
        return update(model, optimizer, batches, lr, config, step, before)

    with monkeypatch.context() as patch:
        patch.setattr(train_loop, "update", interrupted)
        with pytest.raises(Killed):
            tiny("stopped", checkpoint_every=5)
    assert [path.stem for path in train_loop.checkpoints(tmp_path / "stopped" / "run")] == [
        "checkpoint-00000010",
        "checkpoint-00000015",
    ]
    with pytest.raises(TrainError, match="rank was 4, is 2"):
        tiny("stopped", resume=True, rank=2)
    history, tensors = tiny("stopped", resume=True, checkpoint_every=5)
    whole_history, whole = tiny("whole", checkpoint_every=5)
    assert history["steps"] > 20
    assert all(np.array_equal(tensors[name], whole[name]) for name in whole)
    for key in ("train", "held_out"):
        without = [
            [{n: x for n, x in e.items() if n != "seconds"} for e in h[key]] for h in (history, whole_history)
        ]
        assert without[0] == without[1]


def test_a_finished_run_is_read_until_something_it_depends_on_changes(base, tiny, tmp_path, monkeypatch):
    start = tmp_path / "one"
    heads.save(start, train2.train.untrained(config_of(start), base, DATA))
    given = {"recipe": "two-stage", "heads": str(start), "epochs": 0.5}
    history, _ = tiny("a", **given)

    class Trained(Exception):
        pass

    def fit(*_):
        raise Trained

    monkeypatch.setattr(train2, "fit", fit)
    assert tiny("a", resume=True, **given)[0] == history
    with pytest.raises(Trained):
        tiny("a", **given)
    with pytest.raises(Trained):
        tiny("a", resume=True, **given, heads_weight=0.3)
    adapters = tmp_path / "a" / "heads" / heads.ADAPTERS_FILE
    tensors, header = checkpoint.load(adapters)
    checkpoint.save(adapters, tensors, {**header, "config": {}})
    with pytest.raises(Trained):
        tiny("a", resume=True, **given)
    checkpoint.save(adapters, tensors, header)
    tensors, header = checkpoint.load(start / heads.WEIGHTS_FILE)
    checkpoint.save(
        start / heads.WEIGHTS_FILE,
        {n: 2 * t if n != "draft_ids" else t for n, t in tensors.items()},
        {"note": ""},
    )
    with pytest.raises(Trained):
        tiny("a", resume=True, **given)


def test_checkpoints_of_another_base_are_refused(base, tiny, tmp_path):
    config = config_of(tmp_path / "a")
    adapters = Adapters(base.config, LoraConfig(4))
    model = Joint(base, adapters, train2.train.untrained(config, base, DATA), config)
    task = train_loop.Task(model, AdamW(model.state_dict()), 9, "another", None, None, None)
    train_loop._save(tmp_path / "a" / "run", {"step": 1, "recent": [], "history": {}}, task, config)
    with pytest.raises(TrainError, match="the base model or the token set changed"):
        tiny("a", resume=True)
