"""Fallback requests when machines are unavailable, and the job failures that mean that they are."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import custom_job as messages  # noqa: TID251 - the reference, in tests only
from google.protobuf import json_format

from mlengine.backends import Submission
from mlengine.backends.vertex import fallbacks
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request import custom_job
from mlengine.core.errors import BackendError
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.spec import Pool, Role, TrainingSpec

RESERVATION = "projects/p/zones/us-central1-a/reservations/r"
L4 = (Pool(Role.CHIEF, 1, "g2-standard-8", "NVIDIA_L4", 1),)
CLUSTER = (Pool(Role.CHIEF, 1, "n1-standard-4"), Pool(Role.WORKER, 2, "g2-standard-8", "NVIDIA_L4", 1))
PRICES = {"g2-standard-8": 1, "NVIDIA_L4": 0, "a2-highgpu-1g": 3, "NVIDIA_TESLA_A100": 0}
A100 = {"machine_type": "a2-highgpu-1g", "accelerator_type": "NVIDIA_TESLA_A100"}


def submission(pools: tuple[Pool, ...], fallback: dict[str, Any] | None = None) -> Submission:
    spec = TrainingSpec("trainer.task", ("gs://bkt/t.tar.gz",), pools=pools, max_running_seconds=3600)
    return Submission("a" * 40, "j1", 1, "gs://bkt/m/j1", spec, fallback=fallback)


def job_spec(pools: tuple[Pool, ...], fallback: dict[str, Any], **options: Any) -> dict[str, Any]:
    body = custom_job(submission(pools, {"number": 1, **fallback}), VertexOptions.of(options)).body
    json_format.ParseDict(dict(body), messages.CustomJob.pb(messages.CustomJob()))
    found: dict[str, Any] = body["jobSpec"]
    return found


def machines(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [pool["machineSpec"] for pool in spec["workerPoolSpecs"]]


def test_another_machine_type_replaces_the_chiefs_and_equal_ones() -> None:
    pools = (
        Pool(Role.CHIEF, 1, "n1-standard-4"),
        Pool(Role.WORKER, 2, "n1-standard-4"),
        Pool(Role.PS, 1, "n1-highmem-8"),
    )
    found = machines(job_spec(pools, {"machine_type": "e2-standard-4"}))
    assert [machine["machineType"] for machine in found] == ["e2-standard-4", "e2-standard-4", "n1-highmem-8"]


def test_another_machine_type_replaces_only_machines_with_accelerators() -> None:
    found = machines(job_spec(CLUSTER, A100))
    assert found == [
        {"machineType": "n1-standard-4"},
        {"machineType": "a2-highgpu-1g", "acceleratorType": "NVIDIA_TESLA_A100", "acceleratorCount": 1},
    ]


def test_a_machine_type_implies_its_own_accelerators() -> None:
    (machine,) = machines(job_spec(L4, {"machine_type": "a2-highgpu-2g"}))
    assert (machine["acceleratorType"], machine["acceleratorCount"]) == ("NVIDIA_TESLA_A100", 2)


def test_a_fallback_can_remove_the_accelerator_or_use_a_tpu() -> None:
    assert machines(job_spec(L4, {"machine_type": "n1-standard-8", "accelerator_type": None})) == [
        {"machineType": "n1-standard-8"}
    ]
    assert machines(job_spec(L4, {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "2x4"})) == [
        {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x4"}
    ]


@pytest.mark.parametrize(
    ("fallback", "options", "scheduling"),
    [
        ({"strategy": "standard"}, {"spot": True}, {}),
        ({"strategy": "standard"}, {"flex_start": True, "max_wait_seconds": 60}, {}),
        ({"strategy": "spot"}, {}, {"strategy": "SPOT"}),
        ({"strategy": "spot"}, {"flex_start": True, "max_wait_seconds": 60}, {"strategy": "SPOT"}),
        (
            {"strategy": "flex-start", "max_wait_seconds": 60},
            {"spot": True},
            {"strategy": "FLEX_START", "maxWaitDuration": "60s"},
        ),
    ],
)
def test_a_strategy_replaces_that_of_the_job(
    fallback: dict[str, Any], options: dict[str, Any], scheduling: dict[str, str]
) -> None:
    assert job_spec(L4, fallback, **options)["scheduling"] == {"timeout": "3600s", **scheduling}


def test_reservations_depend_on_the_strategy() -> None:
    (machine,) = machines(job_spec(L4, {"strategy": "reservation", "reservation": "any"}, spot=True))
    assert machine["reservationAffinity"] == {"reservationAffinityType": "ANY_RESERVATION"}
    (machine,) = machines(job_spec(L4, {"strategy": "spot"}, reservation=RESERVATION))
    assert "reservationAffinity" not in machine
    with pytest.raises(BackendError, match="needs a reservation"):
        job_spec(L4, {"strategy": "reservation"})


def test_a_fallback_takes_precedence_over_raw() -> None:
    raw = {"jobSpec": {"scheduling": {"strategy": "SPOT"}}}
    assert "strategy" not in job_spec(L4, {"strategy": "standard"}, raw=raw)["scheduling"]


@pytest.mark.parametrize(
    ("fallback", "message"),
    [
        ("spot", "not a mapping"),
        ({}, "not a mapping"),
        ({"spot": True}, "no field 'spot'"),
        ({"strategy": "cheap"}, "strategy is one of standard, spot, flex-start, reservation"),
        ({"region": "mars"}, "not a region: 'mars'"),
        ({"machine_type": 4}, "machine_type is not a string"),
        ({"accelerator_count": 0}, "not a positive number: 0"),
        ({"accelerator_count": True}, "not a positive number: True"),
    ],
)
def test_an_invalid_fallback_is_named_with_its_position(fallback: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        VertexBackend(fallbacks=[{"strategy": "spot"}, fallback])
    assert "number 2" in caught.value.message


def test_each_fallback_is_checked_before_the_first_request() -> None:
    backend = VertexBackend(
        fallbacks=[{"strategy": "spot"}, {"machine_type": "a2-highgpu-1g", "accelerator_type": "NVIDIA_L4"}]
    )
    with pytest.raises(
        BackendError,
        match=r"fallback 2: machine_type a2-highgpu-1g, accelerator_type NVIDIA_L4: .*comes with NVIDIA_TESLA_A100",
    ):
        backend.prepare(submission(L4))
    with pytest.raises(BackendError, match=r"fallback 1: .* the cap is 2.00 USD"):
        VertexBackend(fallbacks=[A100], cost_cap_usd=2, prices=PRICES).prepare(submission(L4))
    elsewhere = {"region": "europe-west4", "reservation": RESERVATION, "strategy": "reservation"}
    with pytest.raises(BackendError, match=r"fallback 1: .*runs in europe-west4"):
        VertexBackend(fallbacks=[elsewhere]).prepare(submission(L4))


def test_the_request_lists_the_remaining_fallbacks() -> None:
    backend = VertexBackend(fallbacks=[{"strategy": "spot"}, A100])
    first = backend.show(submission(L4))
    assert "# if machines are missing: fallback 1: strategy spot" in first
    second = backend.show(submission(L4, {"number": 1, "strategy": "spot"}))
    assert "# this is fallback 1: strategy spot" in second
    assert "fallback 2: machine_type a2-highgpu-1g, accelerator_type NVIDIA_TESLA_A100" in second


def test_fallbacks_are_tried_in_order_even_after_the_list_has_changed() -> None:
    backend = VertexBackend(fallbacks=[{"strategy": "spot"}, A100])
    first = backend.next_fallback(None, None)
    assert first == {"number": 1, "strategy": "spot"}
    second = backend.next_fallback(first, None)
    assert second == {"number": 2, **A100}
    assert backend.next_fallback(second, None) is None
    assert VertexBackend().next_fallback(first, None) is None


STOCKOUT = (
    "Resources are insufficient in region: us-central1. Please try a different region or use a different accelerator."
)


@pytest.mark.parametrize(
    ("cause", "message", "started", "lacking"),
    [
        (FailureCause.QUOTA, "The following quotas are exceeded: X", None, True),
        (FailureCause.SERVICE, STOCKOUT, None, True),
        # The last preemption of a Spot job.
        (FailureCause.PREEMPTED, "STOCKOUT", 1.0, True),
        (FailureCause.DEADLINE, "waited", None, True),
        (FailureCause.DEADLINE, "timed out", 1.0, False),
        (FailureCause.PREEMPTED, "the machine was preempted", 1.0, False),
        (FailureCause.TRAINER, "exited with a non-zero status of 1.\nthe pool reports STOCKOUT", 1.0, False),
        (FailureCause.CANCELLED, "CANCELED", None, False),
    ],
)
def test_only_a_lack_of_machines_uses_a_fallback(
    cause: FailureCause, message: str, started: float | None, lacking: bool
) -> None:
    handle = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "j", 1, "gs://b/m/j")
    status = JobStatus(handle, JobState.FAILED, failure=Failure(cause, message), started=started)
    assert fallbacks.lacks_machines(status) is lacking
    left = VertexBackend(fallbacks=[{"strategy": "spot"}]).next_fallback(None, status)
    assert (left is not None) is lacking


def test_a_successful_job_needs_no_fallback() -> None:
    handle = JobHandle("vertex", "projects/p/locations/r/customJobs/1", "j", 1, "gs://b/m/j")
    assert not fallbacks.lacks_machines(JobStatus(handle, JobState.SUCCEEDED))
