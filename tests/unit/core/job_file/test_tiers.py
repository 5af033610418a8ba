"""Tiers and machine types: the data, and the replacements for old names on Vertex AI."""

from __future__ import annotations

import pytest

from mlengine.core import vertex_machines
from mlengine.core.job_file import tiers
from mlengine.core.spec import Pool, Role


def test_every_tier_is_a_cluster_with_one_chief_first() -> None:
    for name, pools in tiers.TIERS.items():
        assert (pools[0].role, pools[0].count) == (Role.CHIEF, 1), name
        assert len({pool.role for pool in pools}) == len(pools)
        assert all(tiers.is_machine_type(pool.machine_type or "") for pool in pools)
    assert tiers.TIER_NAMES[-1] == "CUSTOM"


def test_every_old_machine_has_an_equivalent_successor() -> None:
    for machine in tiers.MACHINES.values():
        pool, notes = tiers.for_vertex(Pool(Role.WORKER, 3, machine.name))
        assert pool.machine_type == machine.vertex_type
        assert pool.machine_type not in tiers.MACHINES
        assert (pool.role, pool.count) == (Role.WORKER, 3)
        assert notes, "a replacement must be noted"
        assert tiers.for_vertex(pool)[0] == pool, "a translated pool must not change again"


@pytest.mark.parametrize(
    ("pool", "machine", "accelerator", "count", "note"),
    [
        (Pool(Role.CHIEF, 1, "standard_gpu"), "n1-standard-8", "NVIDIA_TESLA_T4", 1, "available since 2024"),
        (Pool(Role.CHIEF, 1, "complex_model_l_gpu"), "n1-standard-32", "NVIDIA_TESLA_T4", 4, "available since 2024"),
        (Pool(Role.CHIEF, 1, "standard_p100"), "n1-standard-8", "NVIDIA_TESLA_T4", 1, "since 2026-09-15"),
        (Pool(Role.CHIEF, 1, "large_model_v100"), "n1-highmem-8", "NVIDIA_TESLA_V100", 1, "is n1-highmem-8"),
        (Pool(Role.CHIEF, 1, "standard", "NVIDIA_L4", 2), "n1-standard-4", "NVIDIA_L4", 2, "standard is"),
        (Pool(Role.CHIEF, 1, "n1-highcpu-8"), "n1-standard-8", None, 0, "n1-highcpu-8 is n1-standard-8"),
        (Pool(Role.CHIEF, 1, "n1-standard-4", "TPU_V2", 8), "cloud-tpu", "TPU_V2", 8, "is cloud-tpu"),
        (Pool(Role.CHIEF, 1, "n1-standard-4", "TPU_V3", 8), "cloud-tpu", "TPU_V3", 8, "is cloud-tpu"),
        (Pool(Role.CHIEF, 1, "standard", "TPU_V5_LITEPOD", 8), "ct5lp-hightpu-8t", None, 0, "is ct5lp-hightpu-8t"),
        (Pool(Role.CHIEF, 1, "ct6e-standard-4t"), "ct6e-standard-4t", None, 0, None),
        (Pool(Role.CHIEF, 1, "g2-standard-4", "NVIDIA_L4", 1), "g2-standard-4", "NVIDIA_L4", 1, None),
        (Pool(Role.CHIEF, 1, None), None, None, 0, None),
    ],
)
def test_discontinued_machines_are_replaced_with_a_note(
    pool: Pool, machine: str | None, accelerator: str | None, count: int, note: str | None
) -> None:
    found, notes = tiers.for_vertex(pool)
    assert (found.machine_type, found.accelerator_type, found.accelerator_count) == (machine, accelerator, count)
    if note is None:
        assert notes == []
    else:
        assert any(note in note for note in notes), notes


@pytest.mark.parametrize("name", ["a2-highgpu-4g", "g2-standard-24", "a3-megagpu-8g"])
def test_a_machine_that_comes_with_accelerators_is_requested_with_them(name: str) -> None:
    pool, notes = tiers.with_built_in(Pool(Role.CHIEF, 1, name), name)
    assert (pool.accelerator_type, pool.accelerator_count) == vertex_machines.built_in(name)
    assert name in notes[0]
    assert tiers.with_built_in(pool, name) == (pool, []), "an accelerator named in the job file must be kept"


def test_other_machines_get_no_accelerator() -> None:
    pool = Pool(Role.CHIEF, 1, "n1-standard-4")
    assert tiers.with_built_in(pool, "n1-standard-4") == (pool, [])


def test_every_tier_and_old_machine_is_still_available() -> None:
    for pool in [Pool(Role.CHIEF, 1, name) for name in tiers.MACHINES] + [
        pool for pools in tiers.TIERS.values() for pool in pools
    ]:
        found, _ = tiers.for_vertex(pool)
        machine = vertex_machines.machines()[str(found.machine_type)]
        if found.accelerator_type:
            assert found.accelerator_count in machine.accelerators[found.accelerator_type], pool


@pytest.mark.parametrize(
    "name", ["standard", "n1-standard-4", "a2-highgpu-1g", "a3-megagpu-8g", "e2-medium", "cloud-tpu"]
)
def test_valid_machine_names_are_accepted(name: str) -> None:
    assert tiers.is_machine_type(name)


@pytest.mark.parametrize("name", ["", "n1", "larg_model", "N1-STANDARD-4", "n1-standard-4 ", "n1_standard_4", "4"])
def test_invalid_machine_names_are_refused(name: str) -> None:
    assert not tiers.is_machine_type(name)


def test_machine_types_of_ml_engine_have_the_size_of_their_successor() -> None:
    for machine in tiers.MACHINES.values():
        size = tiers.machine_size(machine.name)
        if machine.name == "cloud_tpu":
            assert size is None
        else:
            assert size is not None
            assert size.vcpus == machine.vcpus, machine.name


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (Pool(Role.CHIEF, 1, "standard"), ("", 0)),
        (Pool(Role.CHIEF, 1), ("", 0)),
        (Pool(Role.CHIEF, 1, "n1-standard-8", "NVIDIA_TESLA_T4", 2), ("NVIDIA_TESLA_T4", 2)),
        (Pool(Role.CHIEF, 1, "complex_model_m_v100"), ("NVIDIA_TESLA_V100", 4)),
        (Pool(Role.CHIEF, 1, "g2-standard-24"), ("NVIDIA_L4", 2)),
        (Pool(Role.CHIEF, 1, "ct5lp-hightpu-4t"), ("TPU_V5E", 4)),
        (Pool(Role.CHIEF, 1, "cloud-tpu"), ("TPU", 8)),
    ],
)
def test_the_accelerators_of_a_pool_are_determined(pool: Pool, expected: tuple[str, int]) -> None:
    assert tiers.accelerators(pool) == expected
