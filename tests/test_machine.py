"""What a machine offers, and what of it the kernels use."""

import pytest

from medusa_core import doctor, machine

SETS = ["AVX2", "AVX-512", "AVX-512 bf16"]


@pytest.mark.parametrize(
    ("unit", "asked", "used"),
    [
        (True, "", [*SETS, "AMX bf16"]),
        (True, "1", [*SETS, "AMX bf16"]),
        (True, "0", SETS),
        (False, "", SETS),
        (False, "1", [*SETS, "AMX bf16 imitated"]),
    ],
)
def test_the_matrix_unit_is_used_where_there_is_one_unless_the_user_says_otherwise(
    monkeypatch, unit, asked, used
):
    monkeypatch.setattr(machine, "instruction_sets", lambda: [*SETS, *["AMX bf16"] * unit])
    monkeypatch.setattr(machine, "matrix_unit", lambda: unit)
    monkeypatch.setenv("MEDUSA_AMX", asked)
    assert machine.arithmetic() == used
    assert machine.tiles() == (used != SETS)


def test_another_value_of_medusa_amx_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("MEDUSA_AMX", "yes")
    with pytest.raises(ValueError, match="MEDUSA_AMX=yes: expected 0 or 1"):
        machine.tiles()
    found = next(each for each in doctor.examine() if each.name == "instructions")
    assert found.grade == "stop" and "MEDUSA_AMX=yes" in found.found


def test_the_doctor_says_that_a_matrix_unit_is_not_used(monkeypatch):
    monkeypatch.setattr(machine, "instruction_sets", lambda: [*SETS, machine.MATRIX_UNIT])
    monkeypatch.setenv("MEDUSA_AMX", "0")
    found = next(each for each in doctor.examine() if each.name == "instructions")
    assert found.grade == "ok" and found.found.endswith("AVX-512 bf16; AMX bf16 is there and not used")


@pytest.mark.parametrize(
    ("found", "nvcc", "environment", "used"),
    [
        (True, "/nvcc", {}, True),
        (True, "", {}, False),
        (False, "/nvcc", {}, False),
        (True, "/nvcc", {"use_cuda": "0"}, False),
        (True, "/nvcc", {"nvcc_path": ""}, False),
    ],
)
def test_a_gpu_is_used_where_there_is_one_with_a_compiler_and_nobody_forbids_it(
    monkeypatch, found, nvcc, environment, used
):
    for name in ("use_cuda", "nvcc_path"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "gpu_present", lambda: found)
    monkeypatch.setattr(machine, "cuda_compiler", lambda: nvcc)
    assert machine.gpu_used() == used
