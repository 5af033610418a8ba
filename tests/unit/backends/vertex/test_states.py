"""The mapping of every Vertex AI state and known failure to this project's states and causes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types.job_state import JobState as VertexState  # noqa: TID251 - the reference

from mlengine.backends.vertex.states import (
    STATES,
    Run,
    failure,
    final_state,
    job_state,
    quota_is_zero,
    replica_name,
)
from mlengine.core.job import FailureCause, JobState
from mlengine.core.times import rfc3339


def test_every_state_of_the_service_is_mapped() -> None:
    assert set(STATES) == set(VertexState.__members__)


def test_an_unknown_state_is_not_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not job_state("JOB_STATE_DREAMING").terminal
    assert "JOB_STATE_DREAMING" in caplog.text
    assert job_state(None) is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("code", "message", "cause", "replica", "status"),
    [
        (3, "The replica workerpool1-2 exited with a non-zero status of 1.", FailureCause.TRAINER, "worker-2", 1),
        (3, "The replica workerpool0-0 exited with a non-zero status of 143.", FailureCause.PREEMPTED, "chief-0", 143),
        (3, "The replica workerpool0-0 exited with a non-zero status of 75.", FailureCause.PREEMPTED, "chief-0", 75),
        (3, "The replica workerpool2-0 exited with a non-zero status of 139.", FailureCause.TRAINER, "ps-0", 139),
        (3, "The replica workerpool0-0 ran out of memory and exited", FailureCause.TRAINER, "chief-0", None),
        (
            8,
            "The replica workerpool1-0 ran out-of-memory and exited with a non-zero status of 9(SIGKILL).",
            FailureCause.TRAINER,
            "worker-0",
            -9,
        ),
        (
            3,
            "The replica workerpool0-0 exited with a non-zero status of 137. Termination reason: OOMKilled.",
            FailureCause.TRAINER,
            "chief-0",
            137,
        ),
        (
            3,
            "The replica workerpool0-0 exited with a non-zero status of 15(SIGTERM).",
            FailureCause.PREEMPTED,
            "chief-0",
            -15,
        ),
        (3, "The replica workerpool0-0 exited with a non-zero status of 9.", FailureCause.TRAINER, "chief-0", 9),
        (8, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 0.0 in region us-central1.", FailureCause.NO_QUOTA, None, None),
        (8, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 0.5 in region us-central1.", FailureCause.QUOTA, None, None),
        (8, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 10 in region us-central1.", FailureCause.QUOTA, None, None),
        (8, "Resources are insufficient in region: us-central1.", FailureCause.QUOTA, None, None),
        (
            8,
            "The following quota metrics exceed quota limits: custom_model_training_cpus",
            FailureCause.QUOTA,
            None,
            None,
        ),
        (  # the quota of Spot and flex-start
            8,
            "The following quota metrics exceed quota limits: custom_model_training_preemptible_nvidia_l4_gpus",
            FailureCause.QUOTA,
            None,
            None,
        ),
        (13, "Internal error occurred for the current attempt.", FailureCause.SERVICE, None, None),
        (14, "", FailureCause.SERVICE, None, None),
        (4, "Job exceeded its timeout", FailureCause.DEADLINE, None, None),
        (10, "The Spot VM was preempted", FailureCause.PREEMPTED, None, None),
        (3, "Something unknown", FailureCause.TRAINER, None, None),
    ],
)
def test_failures_have_the_right_cause(
    code: int, message: str, cause: FailureCause, replica: str | None, status: int | None
) -> None:
    found = failure(JobState.FAILED, {"code": code, "message": message})
    assert found is not None
    assert (found.cause, found.replica, found.exit_code) == (cause, replica, status)


def test_failures_without_an_error_of_the_service() -> None:
    assert failure(JobState.SUCCEEDED, None) is None
    assert failure(JobState.RUNNING, None) is None
    cancelled = failure(JobState.CANCELLED, {"code": 1, "message": "CANCELED"})
    assert cancelled is not None
    assert cancelled.cause is FailureCause.CANCELLED
    expired = failure(JobState.EXPIRED, None)
    assert expired is not None
    assert expired.cause is FailureCause.DEADLINE
    assert "EXPIRED" in expired.message


SPOT = {"strategy": "SPOT"}
FLEX = {"strategy": "FLEX_START"}


def job(created: int, started: int | None, ended: int, **scheduling: str) -> dict[str, Any]:
    """A job with these times, in seconds from an arbitrary start."""
    moments = {"createTime": created, "startTime": started, "endTime": ended}
    found: dict[str, Any] = {name: rfc3339(1e9 + at) for name, at in moments.items() if at is not None}
    return {**found, "jobSpec": {"scheduling": scheduling}}


@pytest.mark.parametrize(
    ("ended", "limit"),
    [
        (job(0, 60, 160, timeout="100s"), "its timeout of 100 s"),
        (job(0, 60, 159, timeout="100s"), "its timeout of 100 s"),  # the clocks of start and end may differ slightly
        (job(0, 60, 150, timeout="100s"), None),
        (job(0, None, 160, timeout="100s"), None),  # it did not run
        (job(0, 60, 10**6, timeout="0s"), None),
        (job(0, 60, 60 + 7 * 86400), "its timeout of 604800 s"),
        (job(0, 60, 3600), None),
        (job(0, None, 100, maxWaitDuration="100s", **FLEX), "its maxWaitDuration of 100 s"),
        (job(0, None, 86400, **FLEX), "its maxWaitDuration of 86400 s"),
        (job(0, None, 86400, maxWaitDuration="0s", **FLEX), None),
        (job(0, None, 86400, **SPOT), None),  # the other strategies have no limit
        (job(0, 100, 110, maxWaitDuration="100s", **FLEX), None),
        ({}, None),
    ],
)
def test_a_job_that_the_service_cancelled_at_a_limit_has_expired(ended: dict[str, Any], limit: str | None) -> None:
    run = Run.of(ended)
    state = final_state(JobState.CANCELLED, run)
    found = failure(state, {"code": 1, "message": "CANCELED"}, run)
    assert found is not None
    if limit is None:
        assert (state, found.cause) == (JobState.CANCELLED, FailureCause.CANCELLED)
    else:
        assert (state, found.cause) == (JobState.EXPIRED, FailureCause.DEADLINE)
        assert found.message == f"Vertex AI cancelled the job at {limit}"
    assert final_state(JobState.FAILED, run) is JobState.FAILED


@pytest.mark.parametrize(
    ("details", "zero"),
    [
        ([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "metadata": {"quota_limit_value": "0"}}], True),
        ([{"metadata": {"quota_limit_value": "60"}}], False),
        ([{"violations": [{"subject": "s", "quotaValue": "0"}]}], True),
        (["?", {"metadata": None, "violations": None}], False),
        (None, False),
    ],
)
def test_the_details_of_an_error_have_the_limit(details: Any, zero: bool) -> None:
    assert quota_is_zero({"code": 8, "message": "Quota exceeded for quota metric 'x'.", "details": details}) is zero


def test_a_stockout_counts_as_preemption_only_on_spot_machines() -> None:
    error = {"code": 8, "message": "Resources are insufficient in region: us-central1."}
    spot, standard = failure(JobState.FAILED, error, Run(spot=True)), failure(JobState.FAILED, error, Run())
    assert spot is not None
    assert standard is not None
    assert (spot.cause, standard.cause) == (FailureCause.PREEMPTED, FailureCause.QUOTA)


def test_worker_pool_names_are_mapped_to_replica_names() -> None:
    assert replica_name("cmle-training-workerpool3-ab-0") is None
    assert replica_name("workerpool3-1") == "evaluator-1"
    assert replica_name("workerpool7-1") is None
    assert replica_name("service") is None
