"""The simulator against measurements: how far it is off, and what it makes of result files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medusa_core import published, scenarios, simulate, tree, validation
from medusa_core.simulate import Scenario, SimulationError, forward_seconds
from medusa_core.validation import calibrated, medians, own_rows, published_rows, read_result, step_cost_rows

CPU = simulate.Machine("2-core CPU", 22.5e9, 294e9, 1.0, "made up", overlap=False)


def test_half_of_the_published_speedups_are_predicted_within_nine_percent():
    rows = published_rows()
    errors = np.abs([row["error"] for row in rows])
    assert len(rows) == 26
    assert np.median(errors) < 0.09
    assert errors.max() < 0.5


def test_the_authors_own_speedups_are_predicted_within_fifteen_percent_in_the_median():
    rows = [row for row in published_rows() if row["source"] in ("Medusa paper", "seed")]
    assert len(rows) == 14
    assert np.median(np.abs([row["error"] for row in rows])) < 0.15


def test_a_row_compares_prediction_and_publication():
    row = published_rows()[0]
    assert (row["method"], row["model"], row["source"]) == ("medusa-2", "Vicuna 7B", "Medusa paper")
    assert (row["tokens/step"], row["published"]) == (3.47, 2.83)
    # The heads' 0.74 billion weights on top of the model's 6.61: nothing else grows with the tree.
    assert row["overhead"] == pytest.approx(1 + 0.739 / 6.607, abs=0.003)
    assert row["error"] == pytest.approx(3.47 / row["overhead"] / 2.83 - 1)
    assert row["no overlap"] < row["speed-up"]


def test_the_ablation_without_a_tree_is_a_chain_with_expected_tokens():
    (row,) = [row for row in published_rows() if row["method"] == "medusa-1, no tree"]
    accuracy = published.ACCURACY["Vicuna 7B"]
    assert (
        row["tokens/step"] == tree.expected_tokens(tree.chain(5), accuracy) == pytest.approx(1.78, abs=0.005)
    )


def test_published_accuracies_foretell_the_published_tokens_per_step():
    measured = {"Vicuna 7B": 2.565, "Vicuna 13B": 2.639, "Vicuna 33B": 2.514}
    for model, accuracy in published.ACCURACY.items():
        expected = tree.expected_tokens(tree.search(accuracy, 63), accuracy)
        assert expected == pytest.approx(measured[model], rel=0.08)


def test_no_efficiency_changes_a_predicted_speedup(monkeypatch):
    before = [row["speed-up"] for row in published_rows()]
    machines = {
        name: scenarios.Machine(m.name, m.bandwidth, m.compute, 0.1, m.source, m.overlap)
        for name, m in scenarios.MACHINES.items()
    }
    monkeypatch.setattr(scenarios, "MACHINES", machines)
    assert [row["speed-up"] for row in published_rows()] == pytest.approx(before)


def test_medians_are_by_source_and_over_all():
    rows = [{"source": "a", "error": -0.1}, {"source": "a", "error": 0.3}, {"source": "b", "error": 0.2}]
    first, second, last = medians(rows)
    assert first == {
        "source": "a",
        "rows": 2,
        "median |error|": pytest.approx(0.2),
        "median error": pytest.approx(0.1),
    }
    assert (second["source"], second["rows"]) == ("b", 1)
    assert (last["source"], last["rows"], last["median |error|"], last["median error"]) == (
        "all",
        3,
        0.2,
        0.2,
    )


def test_large_models_decode_at_the_predicted_speed_and_small_ones_wait_for_the_program():
    rows = {(row["source"], row["model"]): row["error"] for row in validation.plain_rows()}
    assert abs(rows["Medusa paper", "Vicuna 33B"]) < 0.1
    assert abs(rows["gpt-fast", "Vicuna 7B"]) < 0.15
    assert rows["Medusa paper", "Vicuna 7B"] > 1


def test_a_gpu_hides_arithmetic_behind_memory():
    curves = validation.kernel_rows()
    measured, overlap, apart = (np.array(curves[key]) for key in ("measured", "overlap", "no overlap"))
    assert curves["rows"][0] == measured[0] == overlap[0] == apart[0] == 1
    assert np.median(np.abs(overlap / measured - 1)) < 0.1
    assert np.median(np.abs(apart / measured - 1)) > 0.2


def test_every_record_names_its_source_and_stated_overheads_agree_with_the_quotient():
    for record in published.RECORDS:
        assert record.origin and len(record.origin) < 30 and "(" in record.source
        assert record.model in scenarios.MODELS and (
            record.machine is None or record.machine in scenarios.MACHINES
        )
        if record.overhead:
            assert record.tokens_per_step / record.speedup == pytest.approx(record.overhead, rel=0.02)
    assert sum(record.overhead is not None for record in published.RECORDS) == 4


def test_a_record_without_overhead_has_the_quotient_and_one_without_tokens_none():
    known = published.Record("m", "Vicuna 7B", "b", "s", tokens_per_step=3.0, speedup=2.0)
    assert known.quotient == 1.5
    assert published.Record("m", "Vicuna 7B", "b", "s", speedup=2.0).quotient is None


def benchmark(**config):
    """A benchmark result as chapter 09 writes it, of one drafted run."""
    settings = {"model": "embedded", "heads": "medusa1", "tree": "auto", "dtype": "bfloat16"}
    settings["choices"] = {"heads": [[0], [1], [2]], "both": [[0]]}
    plain = {"name": "plain", "acceptance": "greedy", "tokens_per_step": 1.0, "overhead": 1.0}
    drafted = {
        "name": "medusa1",
        "acceptance": "greedy",
        "tokens_per_step": 1.4,
        "overhead": 1.25,
        "plain_step_ms": 13.0,
    }
    return {
        "config": settings | config,
        "runs": [{"samples": [{"prompt_tokens": 50, "tokens": 60}, {"prompt_tokens": 70, "tokens": 20}]}],
        "summary": [plain, drafted, {**drafted, "name": "medusa1 + context"}],
    }


def test_own_benchmarks_are_compared_without_the_prompts_forward():
    heads = scenarios.medusa_heads(scenarios.model("SmolLM2 135M"), 4, 8192)
    (row,) = own_rows(benchmark(), heads, CPU)
    assert row["run"] == "medusa1, greedy"
    assert (row["overhead, measured"], row["measured"]) == (1.25, pytest.approx(1.4 / 1.25))
    # Memory alone: the heads' 12.1 MB (4 blocks, 8192 rows of the LM head) on top of 269 MB and the cache.
    assert row["overhead, overlap"] == pytest.approx(1 + 12.1 / 271, abs=0.002)
    # With arithmetic: three rows more of 0.27 GFLOP, and the draft's 0.04, at 294 GFLOP/s behind 13 ms.
    assert row["overhead, no overlap"] == pytest.approx(
        1 + (12.1 / 271 * 12.08 + 3 * 0.918 + 0.14) / 13, abs=0.005
    )
    assert row["speed-up"] == pytest.approx(1.4 / row["overhead, no overlap"])
    assert row["error"] == pytest.approx(row["speed-up"] / row["measured"] - 1)


def test_a_result_with_one_tree_for_all_is_read_too_and_a_changing_tree_is_not_predicted():
    heads = scenarios.medusa_heads(scenarios.model("SmolLM2 135M"), 4, 8192)
    assert own_rows(benchmark(choices=[[0], [1], [2]]), heads, CPU) == own_rows(benchmark(), heads, CPU)
    assert own_rows(benchmark(tree="dynamic"), heads, CPU) == []
    assert own_rows(benchmark(choices={"both": [[0]]}), heads, CPU) == []


def test_calibration_makes_a_plain_step_take_the_given_time():
    model = scenarios.model("SmolLM2 135M")
    for machine in (CPU, replace(CPU, overlap=True, efficiency=0.5)):
        case = calibrated(Scenario(model, scenarios.medusa_heads(model), machine), 0.02)
        assert forward_seconds(case, 1)[0] == pytest.approx(0.02)
        assert case.machine.compute == machine.compute
    with pytest.raises(
        SimulationError, match="0.5 ms is shorter than its arithmetic on '2-core CPU', 1.04 ms"
    ):
        calibrated(Scenario(model, scenarios.medusa_heads(model), CPU), 0.0005)


def test_a_benchmark_of_another_model_is_refused():
    heads = scenarios.medusa_heads(scenarios.model("SmolLM2 135M"), 4, 8192)
    with pytest.raises(SimulationError, match="no preset for the benchmark's model '../llama'"):
        own_rows(benchmark(model="../llama"), heads, CPU)


def test_a_measured_step_cost_stands_beside_both_bounds():
    model = scenarios.model("SmolLM2 135M")
    case = Scenario(model, scenarios.medusa_heads(model), CPU, context=256, precision="bfloat16")
    time = forward_seconds(case, 16)
    curves = step_cost_rows({"step_seconds": time.tolist()}, CPU)
    assert curves["rows"] == list(range(1, 17))
    assert curves["measured"] == pytest.approx(curves["no overlap"])
    assert curves["overlap"][15] < curves["no overlap"][15]


@pytest.mark.parametrize("wrong", [{}, {"step_seconds": []}, {"step_seconds": [1.0, 0.0]}])
def test_a_step_cost_without_times_is_refused(wrong):
    with pytest.raises(SimulationError, match="needs step_seconds: positive seconds for 1, 2, ... rows"):
        step_cost_rows(wrong, CPU)


def test_result_files_are_read_if_present_and_refused_if_damaged(tmp_path):
    assert read_result(tmp_path / "none.json") is None
    (tmp_path / "good.json").write_text(json.dumps({"a": 1}))
    assert read_result(tmp_path / "good.json") == {"a": 1}
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(SimulationError, match="cut.json: not a JSON result file"):
        read_result(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(SimulationError, match="list.json: expected a JSON object, found list"):
        read_result(tmp_path / "list.json")
