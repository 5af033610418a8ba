"""Custom jobs that are rejected when they are created, and those that are accepted."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator import messages, vertex_checks
from tests.unit.emulator.test_vertex_jobs import body, container, gpus, job, machine, package, pool

VALID = (
    pool(),
    pool(diskSpec={"bootDiskSizeGb": 100}),
    gpus(acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=2),
    container(args=["--x"], env=[{"name": "A_1", "value": ""}]),
)


@pytest.mark.parametrize("chief", VALID)
def test_valid_jobs_are_accepted(chief: dict[str, Any]) -> None:
    more = {"scheduling": {"timeout": "3600.5s"}, "baseOutputDirectory": {"outputUriPrefix": "gs://bkt/out"}}
    vertex_checks.check(job(chief, {}, pool(replicaCount="1000"), {}, **more))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"jobSpec": {"workerPoolSpecs": [pool()]}}, "display_name"),
        ({**body(pool()), "displayName": "x" * 129}, "128"),
        ({"displayName": "j"}, "has no worker pool"),
        (body(), "has no worker pool"),
        (body({}, {}), "has no worker pool"),
        (body(*[pool()] * 5), "4 is the maximum"),
        (body(pool(replicaCount="2")), "replica_count must be 1"),
        (body(pool(replicaCount="-5")), "replicaCount: is -5"),
        (body(pool(), pool(replicaCount="-5")), r"workerPoolSpecs\[1\].replicaCount: is -5"),
        (body(pool(), pool(replicaCount=str(10**9))), "1000000000"),
        (body(pool(machineSpec={})), "machine_type is required"),
        (body(pool(machineSpec={"machineType": "big"})), "not a machine type"),
        (body(gpus(acceleratorCount=-1, acceleratorType="NVIDIA_TESLA_T4")), "acceleratorCount"),
        (body(gpus(acceleratorCount=1)), "acceleratorCount"),
        (body(machine()), "one of container_spec and python_package_spec"),
        (body(pool(pythonPackageSpec={})), "executorImageUri is required"),
        (body(pool(pythonPackageSpec=package(packageUris=["/x"]))), "not a Cloud Storage URI"),
        (body(pool(pythonPackageSpec=package(pythonModule="t/task.py"))), "is a path"),
        (body(pool(pythonPackageSpec=package(args=["a\0b"]))), "NUL"),
        (body(container(imageUri="")), "imageUri is required"),
        (body(container(env=[{"name": "A=B", "value": "c"}])), "A=B"),
        (body(container(env=[{"name": "", "value": "c"}])), "env"),
        (body(container(env=[{"value": "c"}])), "env"),
        (body(pool(pythonPackageSpec=package(env=[{"name": "1A"}]))), "1A"),
        (body(pool(), scheduling={"timeout": "-5s"}), "timeout"),
        (body(pool(), scheduling={"maxWaitDuration": "-5s"}), "maxWaitDuration"),
        (body(pool(), baseOutputDirectory={"outputUriPrefix": "x"}), "not a Cloud Storage URI"),
        (body(pool(), baseOutputDirectory={"outputUriPrefix": "gs://bkt/"}), "is a bucket without a path"),
        ({**body(pool()), "labels": {"A": "b"}}, "label"),
        ({**body(pool()), "labels": {"1a": "b"}}, "label"),
        ({**body(pool()), "labels": {f"l{n}": "" for n in range(65)}}, "65 labels"),
    ],
)  # fmt: skip
def test_invalid_jobs_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EmulatorApiError, match=message) as caught:
        vertex_checks.check(messages.read_custom_job(wrong))
    assert caught.value.status == "INVALID_ARGUMENT"
