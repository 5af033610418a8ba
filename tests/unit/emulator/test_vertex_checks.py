"""Custom jobs that are rejected when they are created, and those that are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import messages, vertex_checks
from tests.unit.emulator.test_vertex_jobs import body, container, gpus, job, machine, package, pool

REQUIRED = "Required field is not set."
POOLS = "job_spec.worker_pool_specs"
MACHINE = f"{POOLS}[0].machine_spec"
PACKAGE = f"{POOLS}[0].python_package_spec"
OUTPUT = "job_spec.base_output_directory.output_uri_prefix"
VALID = (
    pool(),
    pool(diskSpec={"bootDiskSizeGb": 100}),
    gpus(acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=2),
    container(args=["--x"], env=[{"name": "A_1", "value": ""}]),
)


@pytest.mark.parametrize("chief", VALID)
def test_valid_jobs_are_accepted(chief: dict[str, Any]) -> None:
    more: dict[str, Any] = {
        "scheduling": {"timeout": "3600.5s"},
        "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/out"},
    }
    more |= {"network": "projects/12345/global/networks/n", "tensorboard": "t", "serviceAccount": "a@b"}
    vertex_checks.check(job(chief, {}, pool(replicaCount="1000"), {}, **more))


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ({"jobSpec": {"workerPoolSpecs": [pool()]}}, "custom_job.display_name", REQUIRED),
        ({**body(pool()), "displayName": "x" * 129}, "custom_job.display_name", "128"),
        ({"displayName": "j"}, POOLS, REQUIRED),
        (body(), POOLS, REQUIRED),
        (body({}, {}), POOLS, REQUIRED),
        (body(*[pool()] * 5), POOLS, "has 5 pools"),
        (body(pool(replicaCount="2")), f"{POOLS}[0].replica_count", "must be 1"),
        (body(pool(replicaCount="-5")), f"{POOLS}[0].replica_count", "is -5"),
        (body(pool(), pool(replicaCount="-5")), f"{POOLS}[1].replica_count", "is -5"),
        (body(pool(), pool(replicaCount=str(10**9))), f"{POOLS}[1].replica_count", "1000000000"),
        (body(pool(machineSpec={})), f"{MACHINE}.machine_type", REQUIRED),
        (body(pool(machineSpec={"machineType": "big"})), f"{MACHINE}.machine_type", '"big" is not supported.'),
        (body(pool(machineSpec={"machineType": "c3-standard-8"})), f"{MACHINE}.machine_type", "is not supported."),
        (body(pool(machineSpec={"machineType": "a2-highgpu-1g"})), f"{MACHINE}.machine_type", "is not supported."),
        (body(pool(machineSpec={"machineType": "complex_model_m"})), f"{MACHINE}.machine_type", "is not supported."),
        (body(pool(diskSpec={"bootDiskType": "tape"})), f"{POOLS}[0].disk_spec.boot_disk_type", "tape"),
        (body(gpus(acceleratorCount=1)), f"{MACHINE}.accelerator_type", "Both `accelerator_type`"),
        (body(machine()), f"{POOLS}[0]", "One of `container_spec` and `python_package_spec` must be specified."),
        (body(pool(pythonPackageSpec={})), f"{PACKAGE}.executor_image_uri", REQUIRED),
        (body(pool(pythonPackageSpec=package(packageUris=["/x"]))), f"{PACKAGE}.package_uris", "Cloud Storage URI"),
        (body(pool(pythonPackageSpec=package(pythonModule="t/task.py"))), f"{PACKAGE}.python_module", "is a path"),
        (body(pool(pythonPackageSpec=package(args=["a\0b"]))), f"{PACKAGE}.args", "NUL"),
        (body(container(imageUri="")), f"{POOLS}[0].container_spec.image_uri", REQUIRED),
        (body(container(env=[{"name": "A=B", "value": "c"}])), f"{POOLS}[0].container_spec.env", "A=B"),
        (body(container(env=[{"name": "", "value": "c"}])), f"{POOLS}[0].container_spec.env", "name"),
        (body(container(env=[{"value": "c"}])), f"{POOLS}[0].container_spec.env", "name"),
        (body(pool(pythonPackageSpec=package(env=[{"name": "1A"}]))), f"{PACKAGE}.env", "1A"),
        (body(pool(diskSpec={"bootDiskSizeGb": 99})), f"{POOLS}[0].disk_spec.boot_disk_size_gb", "99"),
        (body(pool(), network="projects/my-project/global/networks/n"), "job_spec.network", "Invalid network"),
        (body(pool(), tensorboard="projects/1/locations/r/tensorboards/2"), "job_spec.service_account", "tensorboard"),
        (body(pool(), scheduling={"timeout": "-5s"}), "job_spec.scheduling.timeout", "-5s"),
        (body(pool(), scheduling={"maxWaitDuration": "-5s"}), "job_spec.scheduling.max_wait_duration", "-5s"),
        (body(pool(), baseOutputDirectory={"outputUriPrefix": "x"}), OUTPUT, "Cloud Storage URI"),
        (body(pool(), baseOutputDirectory={"outputUriPrefix": "gs://bkt/"}), OUTPUT, "is a bucket without a path"),
        ({**body(pool()), "labels": {"A": "b"}}, "custom_job.labels", "no more than 64 labels"),
        ({**body(pool()), "labels": {f"l{n}": "" for n in range(65)}}, "custom_job.labels", "no more than 64 labels"),
    ],
)  # fmt: skip
def test_invalid_jobs_are_rejected_with_the_services_message(wrong: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(EmulatorApiError) as caught:
        vertex_checks.check(messages.read_custom_job(wrong))
    assert caught.value.status == "INVALID_ARGUMENT"
    text = caught.value.message
    assert text.startswith(f"List of found errors:\t1.Field: {field}")
    assert message in text
    assert caught.value.violation is not None
    assert caught.value.violation[0].startswith(field)


@pytest.mark.parametrize(
    ("kind", "accelerator", "count"),
    [
        ("n1-standard-4", "NVIDIA_TESLA_T4", -1),
        ("n1-standard-4", "NVIDIA_TESLA_K80", 1),
        ("e2-standard-4", "NVIDIA_TESLA_T4", 1),
        ("g2-standard-8", "NVIDIA_TESLA_T4", 1),
        ("n1-standard-4", "NVIDIA_TESLA_T4", 3),
        ("a2-highgpu-2g", "NVIDIA_TESLA_A100", 1),
    ],
)
def test_unsupported_accelerators_of_a_machine_are_rejected(kind: str, accelerator: str, count: int) -> None:
    wrong = pool(machineSpec={"machineType": kind, "acceleratorType": accelerator, "acceleratorCount": count})
    with pytest.raises(EmulatorApiError) as caught:
        vertex_checks.check(messages.read_custom_job(body(wrong)))
    assert caught.value.message == f'Accelerator "{accelerator}" is not supported for machine type "{kind}".'
