"""The simulator against sums done by hand, its two limits, and the words it has for scenarios that cannot be."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from medusa_core import scenarios, tree
from medusa_core.config import HeadsConfig, ModelConfig
from medusa_core.cost import StepCost
from medusa_core.prospects import Measured, Prospects
from medusa_core.simulate import (
    Machine,
    Scenario,
    SimulationError,
    Work,
    draft_work,
    expected_by_size,
    forward_seconds,
    forward_work,
    overheads,
    predict,
    resident_bytes,
    seconds,
    step_parts,
    sweep,
)
from medusa_core.tree import Tree, TreeError

# Two layers of 48 + 96 weights (q, k, v, o and the MLP), an LM head of 40.
TINY = ModelConfig("llama", 10, 4, 8, 2, 2, 1, 2)
SLOW = Machine("slow", bandwidth=100.0, compute=1000.0, efficiency=0.5, source="made up")
HEADS = HeadsConfig(4, 10, 3, output="own")
ACCURACY = np.array([[0.5, 0.2], [0.4, 0.1], [0.2, 0.1]])
LARGE = scenarios.model("Vicuna 7B")


def scenario(machine=SLOW, heads=HEADS, **settings):
    return Scenario(TINY, heads, machine, **settings)


def large(balance, batch=1, context=0):
    """A 7B model on a machine that does `balance` operations a byte."""
    machine = Machine("made up", 1e12, balance * 1e12, 1.0, "made up")
    return Scenario(LARGE, scenarios.medusa_heads(LARGE), machine, batch=batch, context=context)


def test_a_forward_costs_what_a_sum_by_hand_says():
    work = forward_work(scenario(batch=2, context=5), rows=3)
    assert work["layers"] == Work(2 * 288, 2 * 288 * 6)
    assert work["LM head"] == Work(2 * 40, 2 * 40 * 6)
    # 8 keys, each 2 x 2 layers x 1 head x 2 numbers; 6 queries, each 4 x 2 layers x 2 heads x 2 operations a key
    assert work["attention"] == Work(2 * 2 * 8 * 8, 6 * 8 * 32)


def test_memory_holds_weights_heads_and_the_cache_of_every_sequence():
    # An untied embedding of 40 is never read as a whole, but lies there; keys and values as above.
    plain = 2 * (288 + 40 + 40) + 2 * 2 * 8 * 6
    assert resident_bytes(scenario(batch=2, context=5), 0) == plain
    heads = 2 * 3 * (16 + 40)
    assert resident_bytes(scenario(batch=2, context=5), 2) == plain + heads + 2 * 2 * 8 * 2
    tied = replace(TINY, tie_word_embeddings=True)
    assert resident_bytes(Scenario(tied, HEADS, SLOW, batch=2, context=5), 0) == plain - 2 * 40


def test_weights_are_read_in_their_precision_and_the_cache_in_half():
    full, quarter = (forward_work(scenario(precision=p), 1) for p in ("float16", "int4"))
    assert quarter["layers"].bytes == full["layers"].bytes / 4
    assert quarter["layers"].operations == full["layers"].operations
    assert quarter["attention"] == full["attention"]


@pytest.mark.parametrize(
    ("output", "size", "read", "used"),
    [("own", None, 48 + 120, 48 + 120), ("shared", None, 48 + 40, 48 + 120), ("draft", 5, 48 + 20, 48 + 60)],
)
def test_a_draft_reads_each_matrix_once_and_multiplies_for_every_head(output, size, read, used):
    heads = HeadsConfig(4, 10, 3, output=output, draft_vocab_size=size)
    assert draft_work(scenario(heads=heads, batch=2)) == Work(2 * read, 2 * used * 2)
    assert draft_work(scenario(heads=heads, head_precision="float32")).bytes == 4 * read


def test_a_part_takes_the_longer_of_two_times_or_both():
    work = Work(bytes=300.0, operations=1000.0)  # 3 s and 1 s at the nominal limits, of which half is reached
    assert seconds(work, SLOW) == 6.0
    assert seconds(work, replace(SLOW, overlap=False)) == 8.0
    assert seconds(Work(300.0, 5000.0), SLOW) == 10.0


def test_steps_add_up_and_plain_decoding_drafts_nothing():
    case = scenario(context=5)
    plain = step_parts(case, 0)
    assert list(plain) == ["layers", "attention", "LM head"]
    # bytes: 576, 96, 80; operations: 576, 192, 80; at 50 bytes/s and 500 operations/s
    assert list(plain.values()) == pytest.approx([11.52, 1.92, 1.6])
    step = step_parts(case, 2)  # operations: 1728, 768, 240; the cache is 8 tokens long
    assert list(step.values()) == pytest.approx([11.52, 2.56, 1.6, 336 / 50])


def test_a_prediction_is_tokens_over_overhead():
    chain = tree.chain(2)
    prediction = predict(scenario(context=5), chain, ACCURACY)
    assert prediction.tokens_per_step == pytest.approx(1 + 0.5 + 0.5 * 0.4)
    assert prediction.plain_seconds == pytest.approx(15.04)
    assert prediction.overhead == pytest.approx((11.52 + 2.56 + 1.6 + 6.72) / 15.04)
    assert prediction.speedup == pytest.approx(1.7 / prediction.overhead)


def test_a_number_of_nodes_stands_for_the_best_tree_of_that_size():
    best = tree.search(ACCURACY, 4)
    assert predict(scenario(), 4, ACCURACY) == predict(scenario(), best, ACCURACY)
    assert predict(scenario(), 4, tokens_per_step=1.5).step == predict(scenario(), best, ACCURACY).step


def test_measured_tokens_come_before_expected_ones():
    assert predict(scenario(), 4, ACCURACY, tokens_per_step=1.25).tokens_per_step == 1.25


def test_no_nodes_are_plain_decoding():
    for none in (0, Tree.from_paths([])):
        prediction = predict(scenario(), none, ACCURACY)
        assert (prediction.overhead, prediction.tokens_per_step, prediction.speedup) == (1.0, 1.0, 1.0)


def test_memory_bound_steps_take_as_long_whatever_the_rows():
    time = forward_seconds(large(balance=1e6), 128)
    assert time == pytest.approx(time[0], rel=0.01)  # the cache grows by a row's keys


def test_compute_bound_steps_take_time_in_proportion_to_the_rows():
    time = forward_seconds(large(balance=1e-3, context=1000), 64)
    assert time / time[0] == pytest.approx(np.arange(1, 65), rel=0.01)


def test_without_overlap_a_step_lies_between_the_longer_time_and_twice_that():
    case = large(balance=64)
    longer = forward_seconds(case, 128)
    both = forward_seconds(replace(case, machine=replace(case.machine, overlap=False)), 128)
    assert (both > longer).all() and (both <= 2 * longer).all()
    assert (both / longer).argmax() + 1 == pytest.approx(64, abs=2)  # where the two times are equal


def test_batches_turn_rows_into_arithmetic():
    alone, many = (overheads(large(balance=128, batch=batch), 63)[63] for batch in (1, 16))
    assert alone < 1.2 and many > 6  # 64 rows fit under 128 operations a byte, 1024 do not


def test_efficiency_scales_times_and_leaves_ratios():
    poor = replace(SLOW, efficiency=0.1)
    good, bad = (predict(scenario(machine), 4, ACCURACY) for machine in (SLOW, poor))
    assert bad.plain_seconds == pytest.approx(5 * good.plain_seconds)
    assert bad.speedup == pytest.approx(good.speedup)


def test_expected_tokens_by_size_are_those_of_the_searched_trees():
    expected = expected_by_size(ACCURACY, 10)
    assert expected == pytest.approx(
        [tree.expected_tokens(tree.search(ACCURACY, nodes), ACCURACY) for nodes in range(11)]
    )


def test_expected_tokens_end_where_the_heads_have_no_more_paths():
    assert len(expected_by_size([[0.5, 0.2], [0.4, 0.1]], 100)) == 1 + 2 + 4
    assert len(sweep(scenario(), ACCURACY[:2]).speedup) == 7


def test_a_sweep_predicts_every_size_as_a_single_prediction_does():
    found = sweep(scenario(), ACCURACY, 10)
    single = [predict(scenario(), nodes, ACCURACY) for nodes in range(11)]
    assert found.overhead == pytest.approx([each.overhead for each in single])
    assert found.speedup == pytest.approx([each.speedup for each in single])
    assert found.best_nodes == int(np.argmax([each.speedup for each in single]))


def test_the_best_tree_is_the_one_that_the_search_for_a_machine_finds():
    case = large(balance=40)
    accuracy = np.array([[0.5, 0.1], [0.3, 0.1], [0.2, 0.1]])
    draft = step_parts(case, 1)["draft"]
    found = Prospects(Measured(accuracy, StepCost(tuple(forward_seconds(case, 13)), draft)))
    assert sweep(case, accuracy, 12).best_nodes == found.fastest > 0


def test_plain_decoding_wins_where_drafting_costs_more_than_it_brings():
    heads = scenarios.medusa_heads(
        scenarios.model("SmolLM2 135M"), 4
    )  # four LM heads of a fifth of the model
    case = Scenario(scenarios.model("SmolLM2 135M"), heads, scenarios.machine("2-core CPU"))
    assert sweep(case, np.full((4, 2), 0.1), 20).best_nodes == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "precision 'fp16' is unknown: expected one of float32, float16"),
        ({"head_precision": "half"}, "head_precision 'half' is unknown"),
        ({"batch": 0}, "batch 0 must be 1 or more"),
        ({"context": -1}, "context -1 0 or more"),
        ({"heads": HeadsConfig(8, 10, output="own")}, "hidden_size is 8, the model's 4"),
        ({"heads": HeadsConfig(4, 11, output="own")}, "vocab_size is 11, the model's 10"),
        (
            {"heads": HeadsConfig(4, 10, draft_vocab_size=12)},
            "draft_vocab_size 12 exceeds the vocabulary of 10",
        ),
        (
            {"heads": HeadsConfig(4, 10, kind="moe", output="own", experts=2, active_experts=1)},
            "heads of kind 'moe' are not simulated",
        ),
    ],
)
def test_impossible_scenarios_are_refused_by_name(settings, message):
    with pytest.raises(SimulationError, match=message.replace("(", r"\(")):
        scenario(**settings)


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"compute": -1.0}, {"efficiency": 1.1}])
def test_impossible_machines_are_refused_by_name(wrong):
    with pytest.raises(SimulationError, match="machine 'slow': .* must be positive, efficiency .* at most 1"):
        replace(SLOW, **wrong)


def test_questions_without_an_answer_are_refused():
    with pytest.raises(SimulationError, match=r"give head accuracies \(K, R\), or tokens_per_step"):
        predict(scenario(), 4)
    with pytest.raises(TreeError, match="4 deep but there are 3 heads"):
        predict(scenario(), tree.chain(4), tokens_per_step=2.0)
    with pytest.raises(SimulationError, match="rows for 4 heads, but the scenario has 3"):
        sweep(scenario(), np.full((4, 2), 0.3), 5)
    with pytest.raises(SimulationError, match=r"accuracy must be \(heads, ranks\), got shape \(2,\)"):
        sweep(scenario(), [0.5, 0.2])


def test_presets_have_the_published_numbers_of_weights():
    # Without the embedding, which a token reads a row of: Llama's 6.74, 13.02 and 32.53 billion less V x d.
    read = {name: model.parameters_read_per_token / 1e9 for name, model in scenarios.MODELS.items()}
    assert read["Vicuna 7B"] == pytest.approx(6.738 - 0.131, abs=0.001)
    assert read["Vicuna 13B"] == pytest.approx(13.016 - 0.164, abs=0.001)
    assert read["Vicuna 33B"] == pytest.approx(32.529 - 0.213, abs=0.001)
    assert read["Zephyr 7B"] == pytest.approx(7.242 - 0.131, abs=0.001)
    assert read["SmolLM2 135M"] == pytest.approx(0.1345, abs=0.0001)


def test_machines_say_where_their_numbers_are_from():
    for name, machine in scenarios.MACHINES.items():
        assert machine.name == name
        assert len(machine.source) > 30


@pytest.mark.parametrize(("lookup", "kind"), [(scenarios.model, "model"), (scenarios.machine, "machine")])
def test_unknown_presets_are_answered_with_the_known_ones(lookup, kind):
    with pytest.raises(SimulationError, match=f"no {kind} called 'GTX': expected one of .*, "):
        lookup("GTX")


def test_heads_for_a_model_have_its_size():
    own, frequent = scenarios.medusa_heads(LARGE), scenarios.medusa_heads(LARGE, 3, 8192)
    assert (own.output, own.num_heads, own.output_size) == ("own", 5, 32_000)
    assert (frequent.output, frequent.num_heads, frequent.output_size) == ("draft", 3, 8192)


def test_the_simulator_never_starts_jittor():
    modules = "simulate, scenarios, published, validation, widgets_simulator"
    code = f"import sys; from medusa_core import {modules}; sys.exit('jittor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
