"""The table of machine types and accelerators of Vertex AI training, compared with Google's own messages."""

from __future__ import annotations

from datetime import date

import pytest
from google.cloud.aiplatform_v1.types import accelerator_type  # noqa: TID251 - the reference, in tests only

from mlengine.core import vertex_machines
from mlengine.core.job_file import tiers


def test_every_accelerator_exists_in_the_api() -> None:
    known = set(accelerator_type.AcceleratorType.__members__) - {"ACCELERATOR_TYPE_UNSPECIFIED"}
    assert known == set(vertex_machines.accelerators())


def test_every_name_is_valid_and_every_count_is_positive() -> None:
    for machine in vertex_machines.machines().values():
        assert tiers.is_machine_type(machine.name)
        assert all(counts and min(counts) > 0 for counts in machine.accelerators.values())
        assert not (set(machine.accelerators) & set(vertex_machines.table()["ended"])), machine.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n1-standard-4", True),
        ("a2-megagpu-16g", True),
        ("ct6e-standard-4t", True),
        ("n1-standard-5", False),
        ("c3-standard-4", False),
        ("ct5p-hightpu-4t", False),
        ("z9-standard-4", None),
    ],
)
def test_known_and_unknown_machine_types_are_distinguished(name: str, expected: bool | None) -> None:
    assert vertex_machines.is_offered(name) is expected


def test_the_valid_accelerator_counts_of_a_machine() -> None:
    machines = vertex_machines.machines()
    assert machines["n1-highmem-16"].accelerators["NVIDIA_TESLA_V100"] == (2, 4, 8)
    assert machines["n1-standard-32"].accelerators["NVIDIA_TESLA_V100"] == (4, 8)
    assert machines["g2-standard-24"].accelerators == {"NVIDIA_L4": (2,)}
    assert "NVIDIA_TESLA_P100" not in machines["n1-standard-4"].accelerators, "the P100 is no longer available"


def test_the_tables_have_a_date_and_a_source() -> None:
    for source in (vertex_machines.source(), vertex_machines.price_source(), vertex_machines.size_source()):
        assert source.page.startswith("https://")
        assert date.fromisoformat(source.read)
    assert all(own["source"].startswith("https://") for own in vertex_machines.table()["ended"].values())


def test_every_price_belongs_to_an_entry_of_the_table() -> None:
    known = {*vertex_machines.machines(), *vertex_machines.accelerators()}
    assert set(vertex_machines.usd_per_hour()) <= known


def test_every_machine_except_tpus_has_a_size() -> None:
    for machine in vertex_machines.machines().values():
        size = vertex_machines.size(machine.name)
        if machine.topologies or machine.name == "cloud-tpu":
            assert size is None
        else:
            assert size is not None, machine.name
            assert size.gib is not None, machine.name
            assert 0.5 < size.gib / size.vcpus < 32, machine.name


@pytest.mark.parametrize(
    ("name", "vcpus", "gib"),
    [
        ("n1-standard-8", 8, 30.0),
        ("n1-highcpu-96", 96, 86.4),
        ("m1-megamem-96", 96, 1433.6),
        ("m1-ultramem-40", 40, 961.0),
        ("e2-medium", 2, 4),
        ("a2-megagpu-16g", 96, 1360),
        ("c3-standard-88-metal", 88, None),
    ],
)
def test_sizes_of_machines_are_known(name: str, vcpus: int, gib: float | None) -> None:
    assert vertex_machines.size(name) == vertex_machines.Size(vcpus, gib)


@pytest.mark.parametrize("name", ["g2-standard-40", "a3-edgegpu-8g", "ct5lp-hightpu-4t", "cloud-tpu", "standard"])
def test_the_size_of_an_unknown_machine_is_not_guessed(name: str) -> None:
    assert vertex_machines.size(name) is None
