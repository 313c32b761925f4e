"""README says what the result files say, links to what exists, and names nobody's machine."""

import errno
import json
import re

import pytest

from medusa_core import files, readme
from medusa_core.runtime import ROOT

README = ROOT / "README.md"


def row(name, acceptance, temperature, **numbers):
    defaults = {
        "tokens_per_second": 20.0,
        "tokens_per_step": 1.0,
        "overhead": 1.0,
        "speedup": 1.0,
        "prompts": 4,
    }
    labels = {"name": name, "acceptance": acceptance, "temperature": temperature}
    return {**labels, **defaults, **numbers}


def run(name, temperature, seconds, *texts):
    samples = [{"tokens": 10, "seconds": seconds, **text} for text in texts]
    return {"name": name, "temperature": temperature, "samples": samples}


@pytest.fixture
def root(tmp_path):
    """A repository with results and a README without tables."""
    folder = tmp_path / "artifacts" / "results"
    folder.mkdir(parents=True)
    medusa = {"tokens_per_second": 26.04, "tokens_per_step": 1.556, "overhead": 1.2, "speedup": 1.302}
    bench = {
        "config": {"max_new_tokens": 32, "dtype": "bfloat16", "choices": {"heads": [[0], [1], [0, 0]]}},
        "machine": {"cpu": "Test CPU", "threads": 2, "instruction_sets": ["AVX2"]},
        "summary": [
            row("plain", "greedy", 0.0),
            row("plain", "sampling", 0.7),
            row("medusa1", "greedy", 0.0, **medusa),
        ],
        "runs": [
            run("plain", 0.0, 2.0, {"text": "a"}, {"text": "b"}),
            run("plain", 0.7, 2.0, {"text": "c"}, {"text": "d"}),
            run("medusa1", 0.0, 1.6, {"text": "a", "plain_text": "a"}, {"text": "x", "plain_text": "b"}),
        ],
    }
    heads = [{"heads": "kept", "head": k, "top-1": 0.3 / k, "top-5": 0.6 / k} for k in (1, 2)]
    other = {"heads": "teacher weight 0", "head": 1, "top-1": 0.1, "top-5": 0.2}
    training = {"positions": 1000, "held_out_positions": 200, "summary": [other, *heads]}
    (folder / "benchmark.json").write_text(json.dumps(bench))
    (folder / "train_medusa1.json").write_text(json.dumps(training))
    (tmp_path / "README.md").write_text(f"# Title\n{readme.BEGIN}\nold\n{readme.END}\nrest\n")
    return tmp_path


def test_tables_say_what_the_result_files_say(root):
    assert readme.main(root) == 0
    text = (root / "README.md").read_text()
    assert "| medusa1 | greedy | 0 | 26.0 | 1.56 | 1.20 | 1.30 | 1.25 to 1.25 | 1 of 2 |" in text
    assert "| base alone | sampling | 0.7 | 20.0 | 1.00 | 1.00 | 1.00 |  |  |" in text
    assert "| top-1 | 30.0% | 15.0% |" in text
    assert "4 questions, up to 32 tokens each, on 2 threads, Test CPU (AVX2)" in text
    assert "3 nodes below the root of the heads' tree:" in text
    assert text.startswith("# Title\n") and text.endswith("\nrest\n") and "old" not in text
    assert readme.main(root) == 0
    assert (root / "README.md").read_text() == text


@pytest.mark.parametrize("processor", ["avx2", "zen5", "amx"])
def test_benchmarks_on_other_processors_have_a_line_of_their_own(root, processor):
    folder = root / "artifacts" / "results"
    bench = json.loads((folder / "benchmark.json").read_text())
    bench["machine"] |= {"cpu": "Old CPU", "cpu_family": "6"}
    bench["summary"][2]["speedup"] = 1.11
    bench["summary"][2]["name"] = bench["runs"][2]["name"] = "gru"
    (folder / f"benchmark_{processor}.json").write_text(json.dumps(bench))
    assert readme.main(root) == 0
    text = (root / "README.md").read_text()
    assert "| processor | plain tokens/s | medusa1 | same text as plain | gru |" in text
    assert "| 2 threads, Test CPU (AVX2) | 20.0 | 1.30 (1.25 to 1.25) | 1 of 2 |  |" in text
    assert "| 2 threads, Old CPU of family 6 (AVX2) | 20.0 |  | 1 of 2 | 1.11 (1.25 to 1.25) |" in text


def test_a_run_without_steps_has_no_tokens_per_step(root):
    file = root / "artifacts" / "results" / "benchmark.json"
    bench = json.loads(file.read_text())
    bench["summary"][2] |= {"tokens_per_step": None, "overhead": None}
    file.write_text(json.dumps(bench))
    assert readme.main(root) == 0
    assert (
        "| medusa1 | greedy | 0 | 26.0 | - | - | 1.30 | 1.25 to 1.25 | 1 of 2 |"
        in (root / "README.md").read_text()
    )


def test_trees_and_training_speed_are_told_where_they_were_measured(root):
    folder = root / "artifacts" / "results"
    plain = {
        "name": "plain",
        "rows_per_step": 1,
        "tokens_per_step": 1,
        "overhead": 1,
        "draft_ms": 0,
        "speedup": 1,
    }
    chain = {**plain, "name": "chain", "tokens_per_step": 1.5, "speedup": 1.25, "predicted_speedup": 1.3}
    ways = [{**way, "identical": 7, "prompts": 8} for way in (plain, chain)]
    machine = {"cpu": "Test CPU", "threads": 2, "instruction_sets": ["AVX2"]}
    search = {"config": {"max_new_tokens": 64}, "machine": machine, "ways": ways}
    slow, fast = [0.010, 0.010, 0.015, 0.019], [0.005, 0.010, 0.010, 0.010]
    search["rounds"] = {"rows": [1, 8, 12, 16], "seconds": [slow, slow, fast], "drafts": [0.001] * 3}
    (folder / "search_trees.json").write_text(json.dumps(search))
    speed = {"teacher_weight": 0.5, "training_seconds": {"jittor": 600, "torch": 900}}
    training = {"positions": 130000, "epochs": 4}
    content = {"training": training, "machine": machine, "rows": [speed]}
    (folder / "training_speed.json").write_text(json.dumps(content))
    assert readme.main(root) == 0
    text = (root / "README.md").read_text()
    assert "| chain | 1.00 | 1.50 | 1.00 | 0.00 | 1.25 (1.30 predicted) | 7 of 8 |" in text
    assert "| processor | plain step, ms | 8 rows | 12 rows | 16 rows | chain |" in text
    assert (
        "| 2 threads, Test CPU (AVX2) | 10.0 | 1.10 (1.10 to 1.98) | 1.60 (1.60 to 2.08) | 2.00 (2.00 to 2.16) "
        "| 1.25 (1.30) |" in text
    )
    assert "up to 64 tokens each, greedy, on 2 threads, Test CPU (AVX2), without the prompt's forward" in text
    assert "with the teacher term 10.0 minutes in Jittor, 15.0 in torch" in text
    assert "in turns, on 2 threads, Test CPU (AVX2): " in text


def test_the_comparison_and_the_claims_are_told_where_they_were_measured(root):
    folder = root / "artifacts" / "results"
    heads = {"parameters": 1_330_000, "training_seconds": 480.0, "top1": [0.4, 0.2]}
    heads |= {"tokens_per_step": {"4": 1.7, "8": 1.9}, "draft_ms": {"4": 0.7, "8": 0.75}}
    speed = [{"name": name, "acceptance": acceptance, "speedup": value, "identical": same, "prompts": 5}
             for name, acceptance, value, same in (
                 ("plain", "greedy", 1.0, None), ("gru", "greedy", 1.3, 5), ("gru", "typical", 1.5, 0),
                 ("gru + context", "greedy", 1.6, 4))]  # fmt: skip
    runs = [{**run("plain", 0.0, 2.0, {}), "plain": "plain"}, {**run("gru", 0.0, 1.0, {}), "plain": "plain"}]
    runs[0]["samples"].append({"tokens": 10, "seconds": 3.0})
    runs[1]["samples"].append({"tokens": 10, "seconds": 2.5})
    comparison = {
        "config": {"max_new_tokens": 64},
        "machine": {"cpu": "Test CPU", "threads": 2, "instruction_sets": ["AVX2"]},
        "heads": [{"name": "gru", **heads}],
        "bench": {"summary": speed, "questions": [{}] * 5, "runs": runs},
    }
    (folder / "comparison.json").write_text(json.dumps(comparison))
    claims = {"summary": [{"claim": "trees help", "verdict": "reproduced", "figure": "1.5 < 1.9"}]}
    claims["machine"] = comparison["machine"]
    (folder / "claims.json").write_text(json.dumps(claims))
    assert readme.main(root) == 0
    text = (root / "README.md").read_text()
    assert "| gru | 1.33 | 8 | 40 / 20 | 1.70 | 1.90 | 0.75 | 1.30 | 1.50 | 1.60 |" in text
    assert "speed-up, greedy | speed-up, typical | speed-up, greedy + context |" in text
    assert "one race of 5 questions" in text and "9 of 10 greedy and exact answers" in text
    assert "would move a speed-up by 0.40 either way" in text  # from 1.2 to 2.0
    assert "| trees help | reproduced | 1.5 < 1.9 |" in text


def test_a_missing_result_or_marker_is_named_and_changes_nothing(root, capsys):
    (root / "README.md").write_text("no markers")
    assert readme.main(root) == 1
    assert "results: begin" in capsys.readouterr().err
    (root / "artifacts" / "results" / "benchmark.json").unlink()
    assert readme.main(root) == 1
    assert "benchmark.json: no such file" in capsys.readouterr().err
    assert (root / "README.md").read_text() == "no markers"


def test_a_damaged_result_is_named_and_changes_nothing(root, capsys):
    (root / "artifacts" / "results" / "claims.json").write_text('{"summary": ')
    before = (root / "README.md").read_text()
    assert readme.main(root) == 1
    assert "claims.json: not JSON (Expecting value" in capsys.readouterr().err
    assert (root / "README.md").read_text() == before


@pytest.mark.parametrize(
    "name",
    [
        "benchmark.json",
        "benchmark_avx2.json",
        "search_trees.json",
        "comparison.json",
        "claims.json",
        "peers.json",
    ],
)
def test_a_result_of_another_version_is_named_and_changes_nothing(root, capsys, name):
    (root / "artifacts" / "results" / name).write_text(
        '{"summary": [{}], "config": {}, "heads": [], "ways": []}'
    )
    before = (root / "README.md").read_text()
    assert readme.main(root) == 1
    assert f"{name}: not as this version writes it (" in capsys.readouterr().err
    assert (root / "README.md").read_text() == before


def test_a_readme_that_cannot_be_written_whole_stays_as_it_was(root, monkeypatch):
    before = (root / "README.md").read_text()
    monkeypatch.setattr(files, "_sync", full_disk)
    assert readme.main(root) == 1
    assert (root / "README.md").read_text() == before
    assert [file.name for file in root.iterdir() if file.name.startswith(".")] == []


def full_disk(_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_tables_in_the_readme_are_those_of_the_shipped_results():
    text = README.read_text(encoding="utf-8")
    assert text == readme.updated(text, readme.tables()), "run `python -m medusa_core.readme`"


def test_links_and_pictures_lead_to_files_of_the_repository():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert re.match(r"https://", link) or (ROOT / link).exists(), link


def test_every_chapter_and_module_is_in_the_readme():
    text = README.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"notebooks/{path.name}" in text, path.name
    for path in sorted((ROOT / "medusa_core").iterdir()):
        if path.name not in ("__init__.py", "__pycache__"):
            assert f"`{path.name}`" in text or f"`{path.name}/`" in text, path.name
