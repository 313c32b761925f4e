"""Adapters: gradients through the whole model against torch, switching off, merging, and their file."""

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from tiny_model import folder_of, tiny

from medusa_core import checkpoint, heads, llama, lora, losses, masks
from medusa_core.checkpoint import CheckpointError
from medusa_core.config import HeadsConfig, ModelConfig
from medusa_core.kernels import span_attention
from medusa_core.lora import Adapters, LoraConfig, LoraError

jt = lora.jt
FIXTURE = np.load(Path(__file__).parent / "fixtures" / "lora.npz")
IDS = np.random.default_rng(3).integers(0, 160, (2, 12))
CALL = IDS, np.arange(12)[None], masks.causal(12)


# ---------------------------------------------------------------- gradients


def torch_case(name: str):
    """The fixture's arrays of a case, its model and its adapters, attached."""
    case = {key.removeprefix(f"{name}/"): FIXTURE[key] for key in FIXTURE.files if key.startswith(f"{name}/")}
    weights = {k.removeprefix("weights/"): v for k, v in case.items() if k.startswith("weights/")}
    config = ModelConfig.from_hf(json.loads(str(case["config"])))
    base = llama.Llama(config, weights, "float32")
    adapters = Adapters(config, LoraConfig(rank=4, alpha=6.0, lm_head=True))
    adapters.load_tensors({k.removeprefix("lora/"): v for k, v in case.items() if k.startswith("lora/")})
    base.adapt(adapters)
    return case, base, adapters


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["data", "teacher"])
def test_loss_and_every_gradient_match_torch(name, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(span_attention, "walks", lambda mask: (0, 0, np.ones(1), 0))
    case, base, adapters = torch_case(name)
    mask = masks.padded(case["valid"])
    targets = case["targets"].reshape(-1)

    def logits():
        hidden = base(case["ids"], case["positions"], mask)
        return base.logits(hidden.reshape(-1, hidden.shape[-1]))

    teacher, row, weight = None, None, 0.0
    if name == "teacher":
        with adapters.off(), jt.no_grad():
            teacher = losses.softmax(logits())
        row, weight = np.arange(len(targets), dtype=np.int32), 1.0
    rows, _ = losses.cross_entropy(logits(), targets, teacher, row, weight)
    learned = targets >= 0
    loss = rows.sum() / learned.sum()
    parameters = adapters.state_dict()
    gradients = dict(zip(parameters, jt.grad(loss, list(parameters.values()))))
    value = loss.item()
    if name == "teacher":  # cross-entropy to the teacher less its entropy
        q = teacher.numpy()[learned].astype(np.float64)
        value += (q * np.log(q)).sum() / learned.sum()
    assert value == pytest.approx(float(case["loss"]), abs=1e-4)
    assert {f"grad/{key}" for key in gradients} == {key for key in case if key.startswith("grad/")}
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient.numpy(), case[f"grad/{key}"], atol=1e-4, err_msg=key)


def spans_mask() -> np.ndarray:
    """A mask (3, 150, 150) of a sliding window, of packed sequences and of any runs: more queries than a tile."""
    place = np.arange(150)
    start, stop = np.sort(np.random.default_rng(1).integers(0, 150, (2, 150)), axis=0)
    runs = (place >= start[:, None]) & (place <= stop[:, None])
    mask = np.stack([masks.causal(150, window=33), masks.causal(150), runs])
    sequence = np.searchsorted([40, 41, 110], place, side="right")
    mask[1] &= sequence[:, None] == sequence
    return mask


@pytest.mark.parametrize("heads_and_groups", [(4, 2), (3, 3), (4, 1)])
def test_fused_attention_and_its_gradients_equal_the_plain_twin(heads_and_groups):
    rng = np.random.default_rng(0)
    heads_, groups = heads_and_groups
    sizes = (heads_, groups, groups, heads_)
    mask = spans_mask()
    q, k, v, weight = (rng.standard_normal((len(mask), 150, n, 16)).astype(np.float32) for n in sizes)
    bias = jt.array(np.where(mask, 0.0, span_attention.MASKED).astype(np.float32)[:, None])
    results = []
    for attend in (span_attention.attention(mask), lambda *x: span_attention.attention_plain(*x, bias)):
        inputs = [jt.array(array) for array in (q, k, v)]
        y = attend(*inputs)
        results.append([x.numpy() for x in (y, *jt.grad((y * jt.array(weight)).sum(), inputs))])
    for fused, plain in zip(*results):
        np.testing.assert_allclose(fused, plain, atol=1e-5)


def test_a_tree_mask_goes_to_the_plain_operators(monkeypatch):
    used = []
    monkeypatch.setattr(span_attention, "attention_plain", lambda q, k, v, bias: used.append(bias) or q)
    mask = np.eye(3, dtype=bool)[None]
    mask[0, :, 0] = True
    x = jt.zeros((1, 3, 1, 4))
    span_attention.attention(mask)(x, x, x)
    assert used[0].shape == (1, 1, 3, 3)


def test_a_backward_pass_leaves_nothing_behind():
    config, weights = tiny()
    base, adapters = llama.Llama(config, weights, "float32"), random_adapters(config)
    base.adapt(adapters)
    parameters = list(adapters.state_dict().values())
    counts = []
    for _ in range(4):
        jt.sync(jt.grad(base(*CALL).sum(), parameters, False))
        jt.sync_all()
        counts.append((jt.liveness_info()["lived_ops"], jt.liveness_info()["lived_vars"]))
    assert counts[-1] == counts[1]


# ---------------------------------------------------------------- adapters on a model


def random_adapters(config: ModelConfig, seed: int = 1, **settings) -> Adapters:
    """Adapters that change something, exact in bfloat16."""
    adapters = Adapters(config, LoraConfig(rank=4, alpha=8.0, **settings))
    rng = np.random.default_rng(seed)
    shapes = {name: p.shape for name, p in adapters.state_dict().items()}
    values = {name: 0.05 * rng.standard_normal(tuple(shape)) for name, shape in shapes.items()}
    adapters.load_tensors({name: v.astype(ml_dtypes.bfloat16) for name, v in values.items()})
    return adapters


def logits_of(base) -> np.ndarray:
    return base.logits(base(*CALL)).numpy()


def test_adapters_start_in_the_range_that_the_number_of_their_inputs_sets():
    config, _ = tiny()
    for name, value in Adapters(config, LoraConfig(rank=4)).state_dict().items():
        if name.endswith("lora_A.weight"):
            largest = np.abs(value.numpy()).max() * value.shape[1] ** 0.5
            assert 0.9 < largest <= 1.0, name  # of hundreds, one is near the bound


def test_untrained_adapters_change_nothing():
    config, weights = tiny()
    base = llama.Llama(config, weights, "float32")
    before = logits_of(base)
    base.adapt(Adapters(config, LoraConfig(lm_head=True)))
    assert np.array_equal(logits_of(base), before)


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_can_be_switched_off_merged_and_unmerged(tied):
    config, weights = tiny(tie_word_embeddings=tied)
    base, adapters = llama.Llama(config, weights, "float32"), random_adapters(config, lm_head=True)
    before = logits_of(base)
    base.adapt(adapters)
    adapted = logits_of(base)
    assert np.abs(adapted - before).max() > 0.1
    with adapters.off():
        assert np.array_equal(logits_of(base), before)
    assert np.array_equal(logits_of(base), adapted)
    adapters.merge(base)
    np.testing.assert_allclose(logits_of(base), adapted, atol=1e-4)
    embedding = "model.embed_tokens.weight"
    assert np.array_equal(base.weight(embedding).numpy(), weights[embedding])
    adapters.unmerge(base)
    for name, value in weights.items():
        assert np.array_equal(base.weight(name).numpy(), value), name
    assert np.array_equal(logits_of(base), adapted)


# ---------------------------------------------------------------- files


@pytest.fixture
def saved(tmp_path):
    """A tiny model's folder, adapters for it and their file."""
    folder = folder_of(tmp_path / "model")
    config = llama.load(folder, backend="plain").config
    adapters = random_adapters(config)
    path = tmp_path / "heads" / heads.ADAPTERS_FILE
    lora.save(path, adapters, folder, {"note": "random"})
    return folder, config, adapters, path


def test_saved_adapters_come_back(saved):
    folder, config, adapters, path = saved
    loaded = lora.load(path, config, folder)
    assert loaded.config == adapters.config
    for name, value in adapters.state_dict().items():
        assert np.array_equal(loaded.state_dict()[name].numpy(), value.numpy()), name
    assert checkpoint.load(path)[1]["note"] == "random"


@pytest.mark.parametrize("backend", ["kernel", "plain"])
def test_a_base_is_loaded_with_adapters_merged(saved, backend):
    folder, _, adapters, path = saved
    plain = llama.load(folder, "float32", "plain")
    assert plain.adapters is None
    plain.adapt(adapters)
    base = llama.load(folder, "float32", backend, adapters=path.parent)
    np.testing.assert_allclose(logits_of(base), logits_of(plain), atol=1e-4)
    half = [llama.load(folder, "bfloat16", b, adapters=path) for b in (backend, "plain")]
    np.testing.assert_allclose(logits_of(half[0]), logits_of(half[1]), atol=1e-4)


def test_a_tied_lm_head_is_untied_when_its_adapters_are_merged(tmp_path):
    folder = folder_of(tmp_path / "model", tie_word_embeddings=True)
    plain = llama.load(folder, "float32", "plain")
    adapters = random_adapters(plain.config, lm_head=True)
    lora.save(tmp_path / "l.safetensors", adapters, folder)
    plain.adapt(adapters)
    for backend in ("kernel", "plain"):
        base = llama.load(folder, "float32", backend, adapters=tmp_path / "l.safetensors")
        np.testing.assert_allclose(logits_of(base), logits_of(plain), atol=1e-4)


def rewrite(path: Path, change) -> None:
    tensors, header = checkpoint.load(path)
    change(tensors, header)
    checkpoint.save(path, tensors, header)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, h: t.pop("model.layers.1.mlp.up_proj.lora_B.weight"), "missing .*up_proj.lora_B.weight"),
        (lambda t, h: t.update(other=np.zeros(2)), "unexpected other"),
        (lambda t, h: h["lora"].update(rank=2), r"shape \(4, 64\), expected \(2, 64\)"),
        (lambda t, h: h.pop("lora"), "not adapters, its header has no key 'lora'"),
        (lambda t, h: h.update(base_sha256="0"), "made for another base model"),
        (lambda t, h: next(iter(t.values())).fill(np.nan), "holds numbers that are not finite"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_by_name(saved, change, message):
    folder, _, _, path = saved
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as error:
        llama.load(folder, adapters=path)
    assert str(path) in str(error.value)


def test_a_damaged_or_missing_file_is_refused_by_name(saved, tmp_path):
    folder, _, _, path = saved
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{path}: damaged"):
        llama.load(folder, adapters=path)
    with pytest.raises(CheckpointError, match="no such file"):
        llama.load(folder, adapters=tmp_path / "none.safetensors")


def test_impossible_settings_are_refused():
    with pytest.raises(LoraError, match="rank 0"):
        LoraConfig(rank=0)


def test_heads_that_learned_with_the_base_refuse_it_without_their_adapters(saved):
    folder, config, _, path = saved
    shape = HeadsConfig(config.hidden_size, config.vocab_size, 2, output="shared")
    bases = [llama.load(folder, adapters=adapters) for adapters in (path.parent, None)]
    heads.save(path.parent, heads.create(shape, bases[0]))
    assert heads.load(path.parent, bases[0]).config.num_heads == 2
    with pytest.raises(
        heads.HeadsError, match=r"learned together .* llama.load\(model, adapters='.*lora.safe"
    ):
        heads.load(path.parent, bases[1])
    rewrite(path, lambda tensors, header: header.update(note="another"))
    with pytest.raises(heads.HeadsError, match="learned together"):
        heads.load(path.parent, bases[0])
    path.unlink()
    assert dataclasses.asdict(heads.load(path.parent, bases[1]).config) == dataclasses.asdict(shape)
