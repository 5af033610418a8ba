"""The resources that replicas reserve, and whether a cluster can ever provide them."""

from __future__ import annotations

import pytest

from mlengine.backends.ray.bundles import accelerators, bundles, check_fit, describe
from mlengine.core.errors import BackendError
from mlengine.core.spec import Pool, Role, TrainingSpec

GIB = float(1 << 30)
CLUSTER = TrainingSpec("t", pools=(Pool(Role.CHIEF, 1, "n1-standard-8", "NVIDIA_TESLA_T4", 2), Pool(Role.WORKER, 2)))


def test_bundles_follow_the_machine_types() -> None:
    assert bundles(CLUSTER, {}) == [{"CPU": 8.0, "GPU": 2.0, "memory": 18 * GIB}, {"CPU": 1.0}, {"CPU": 1.0}]


@pytest.mark.parametrize(
    ("machine_type", "expected", "accelerator"),
    [
        ("standard", {"CPU": 4.0, "memory": 9 * GIB}, ""),
        ("complex_model_l", {"CPU": 32.0, "memory": 17.2 * GIB}, ""),
        ("standard_gpu", {"CPU": 8.0, "GPU": 1.0, "memory": 18 * GIB}, "NVIDIA_TESLA_K80"),
        ("g2-standard-48", {"CPU": 48.0, "GPU": 4.0, "memory": 115.2 * GIB}, "NVIDIA_L4"),
        ("a2-highgpu-1g", {"CPU": 12.0, "GPU": 1.0, "memory": 51 * GIB}, "NVIDIA_TESLA_A100"),
        ("c3-standard-8-lssd", {"CPU": 8.0}, ""),
    ],
)
def test_a_machine_type_reserves_the_resources_of_the_table(
    machine_type: str, expected: dict[str, float], accelerator: str
) -> None:
    spec = TrainingSpec("t", pools=(Pool(Role.CHIEF, 1, machine_type),))
    assert bundles(spec, {}) == [pytest.approx(expected)]
    assert accelerators(spec, {})[0].get("MLENGINE_ACCELERATOR_TYPE", "") == accelerator


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (Pool(Role.CHIEF, 1, "n1-standard-4", "TPU_V2", 8), "chief requests 8 TPU_V2, and replicas on Ray get no TPUs"),
        (Pool(Role.WORKER, 1, "cloud_tpu"), "worker requests 8 TPU_V2, "),
        (Pool(Role.CHIEF, 1, "ct6e-standard-4t"), "chief requests 4 TPU_V6E, "),
        (Pool(Role.CHIEF, 1, "g2-standard-40"), "chief has the machine type g2-standard-40, whose size is not known"),
        (Pool(Role.PS, 1, "a3-edgegpu-8g"), "ps has the machine type a3-edgegpu-8g, whose size is not known"),
    ],
)
def test_a_machine_that_ray_cannot_reserve_is_refused(pool: Pool, message: str) -> None:
    spec = TrainingSpec("t", pools=(pool,))
    with pytest.raises(BackendError, match=message) as error:
        bundles(spec, {})
    assert "ray_resources" in error.value.hint
    # If the job file names the resources, no TPU is requested.
    assert bundles(spec, {pool.role.value: {"CPU": 2, "GPU": 1}}) == [{"CPU": 2.0, "GPU": 1.0}]
    if pool.role is not Role.WORKER:
        assert accelerators(spec, {"CPU": 1, "GPU": 1})[0]["MLENGINE_ACCELERATOR_TYPE"] == "GPU"


def test_replicas_with_a_gpu_get_its_type_and_count() -> None:
    names = {"MLENGINE_ACCELERATOR_TYPE": "NVIDIA_TESLA_T4", "MLENGINE_ACCELERATOR_COUNT": "2"}
    assert accelerators(CLUSTER, {}) == [names, {}, {}]
    any_gpu = {"MLENGINE_ACCELERATOR_TYPE": "GPU", "MLENGINE_ACCELERATOR_COUNT": "1"}
    assert accelerators(CLUSTER, {"worker": {"GPU": 1}, "chief": {"CPU": 1}}) == [{}, any_gpu, any_gpu]


def test_a_replica_with_a_fraction_of_a_gpu_sees_one() -> None:
    variables = {"MLENGINE_ACCELERATOR_TYPE": "NVIDIA_TESLA_T4", "MLENGINE_ACCELERATOR_COUNT": "1"}
    assert accelerators(CLUSTER, {"chief": {"GPU": 0.5}}) == [variables, {}, {}]


def test_one_set_of_resources_applies_to_all_roles() -> None:
    assert bundles(CLUSTER, {"CPU": 2, "memory_gib": 1.5, "GPU": 0}) == [{"CPU": 2.0, "memory": 1.5 * GIB}] * 3


def test_roles_without_resources_use_their_machine_types() -> None:
    found = bundles(CLUSTER, {"worker": {"CPU": 3, "special": 1}})
    assert found == [
        {"CPU": 8.0, "GPU": 2.0, "memory": 18 * GIB},
        {"CPU": 3.0, "special": 1.0},
        {"CPU": 3.0, "special": 1.0},
    ]


def test_a_replica_that_fits_on_no_node_is_named_with_the_largest_node() -> None:
    nodes = [{"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 2.0, "memory": 64 * GIB}]
    with pytest.raises(BackendError) as error:
        check_fit("job", CLUSTER, bundles(CLUSTER, {"worker": {"CPU": 1}, "chief": {"CPU": 4, "GPU": 1}}), nodes)
    assert error.value.message == (
        "job: chief-0 needs 4 CPU, 1 GPU, and no node of the Ray cluster has that; the largest of 2 has 4 CPU, 0 GPU"
    )
    assert "ray_autoscaling" in error.value.hint


def test_replicas_that_fit_individually_must_fit_together() -> None:
    wanted = [{"CPU": 2.0}] * 3
    check_fit("job", CLUSTER, wanted, [{"CPU": 4.0}, {"CPU": 2.0}])
    with pytest.raises(BackendError, match="need 6 CPU together, and the Ray cluster has 5 CPU"):
        check_fit("job", CLUSTER, wanted, [{"CPU": 3.0}, {"CPU": 2.0}])


def test_the_largest_node_is_chosen_by_the_missing_resource() -> None:
    nodes = [{"CPU": 64.0}, {"CPU": 4.0, "GPU": 2.0}]
    with pytest.raises(BackendError, match="the largest of 2 has 4 CPU, 2 GPU"):
        check_fit("job", TrainingSpec("t"), [{"CPU": 4.0, "GPU": 4.0}], nodes)


def test_strict_placements_must_be_possible() -> None:
    wanted, nodes = [{"CPU": 2.0}] * 3, [{"CPU": 4.0}, {"CPU": 4.0}]
    for placement in ("PACK", "SPREAD"):
        check_fit("job", CLUSTER, wanted, nodes, placement)
    with pytest.raises(BackendError, match=r"need 6 CPU on one node \(.*STRICT_PACK\); the largest of 2 has 4 CPU"):
        check_fit("job", CLUSTER, wanted, nodes, "STRICT_PACK")
    with pytest.raises(BackendError, match=r"its 3 replicas need as many nodes .*STRICT_SPREAD.*has 2"):
        check_fit("job", CLUSTER, wanted, nodes, "STRICT_SPREAD")
    check_fit("job", CLUSTER, wanted, [{"CPU": 6.0}], "STRICT_PACK")
    check_fit("job", CLUSTER, wanted, [*nodes, {"CPU": 2.0}], "STRICT_SPREAD")


def test_replicas_that_fit_in_sum_must_fit_on_the_nodes() -> None:
    wanted, nodes = [{"CPU": 2.0}] * 3, [{"CPU": 3.0}, {"CPU": 3.0}]
    for placement in ("PACK", "SPREAD"):
        with pytest.raises(BackendError) as error:
            check_fit("job", CLUSTER, wanted, nodes, placement)
        assert error.value.message == (
            "job: its 3 replicas do not fit on the 2 nodes of the Ray cluster at the same time: worker-1 needs 2 CPU, "
            "and the others leave no node with that; the largest of 2 has 3 CPU when it is empty"
        )
    check_fit("job", CLUSTER, wanted, [*nodes, {"CPU": 3.0}])


def test_strict_spread_needs_a_large_enough_node_per_replica() -> None:
    wanted, small = [{"CPU": 2.0}] * 3, [{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 1.0}]
    check_fit("job", CLUSTER, wanted, small, "PACK")
    with pytest.raises(BackendError, match=r"worker-1 needs 2 CPU, and the nodes that have that are needed for others"):
        check_fit("job", CLUSTER, wanted, small, "STRICT_SPREAD")


def test_amounts_are_rounded_as_ray_does() -> None:
    spec = TrainingSpec("t", pools=(Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2)))
    for placement in ("PACK", "STRICT_PACK"):
        check_fit("job", spec, [{"GPU": 0.1}] * 3, [{"GPU": 0.3}], placement)


def test_a_cluster_without_nodes_fits_nothing() -> None:
    with pytest.raises(BackendError, match="the largest of 0 has 0 CPU"):
        check_fit("job", CLUSTER, [{"CPU": 1.0}] * 3, [])


def test_a_bundle_is_described_with_units() -> None:
    assert describe({"CPU": 0.5, "memory": 2 * GIB}) == "0.5 CPU, 2 GiB memory"
