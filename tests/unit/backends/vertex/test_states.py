"""Every state and the known ways to end, as this project's words."""

from __future__ import annotations

import logging

import pytest
from google.cloud.aiplatform_v1.types.job_state import JobState as VertexState  # noqa: TID251 - the reference

from mlengine.backends.vertex.states import STATES, failure, job_state, replica_name
from mlengine.core.job import FailureCause, JobState


def test_every_state_of_the_service_is_mapped() -> None:
    assert set(STATES) == set(VertexState.__members__)


def test_an_unknown_state_decides_nothing(caplog: pytest.LogCaptureFixture) -> None:
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
        (8, "Resources are insufficient in region: us-central1.", FailureCause.QUOTA, None, None),
        (
            8,
            "The following quota metrics exceed quota limits: custom_model_training_cpus",
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
def test_causes(code: int, message: str, cause: FailureCause, replica: str | None, status: int | None) -> None:
    found = failure(JobState.FAILED, {"code": code, "message": message})
    assert found is not None
    assert (found.cause, found.replica, found.exit_code) == (cause, replica, status)


def test_ends_without_an_error() -> None:
    assert failure(JobState.SUCCEEDED, None) is None
    assert failure(JobState.RUNNING, None) is None
    cancelled = failure(JobState.CANCELLED, {"code": 1, "message": "CANCELED"})
    assert cancelled is not None
    assert cancelled.cause is FailureCause.CANCELLED
    expired = failure(JobState.EXPIRED, None)
    assert expired is not None
    assert expired.cause is FailureCause.DEADLINE
    assert "EXPIRED" in expired.message


def test_replicas_have_our_names() -> None:
    assert replica_name("cmle-training-workerpool3-ab-0") is None
    assert replica_name("workerpool3-1") == "evaluator-1"
    assert replica_name("workerpool7-1") is None
    assert replica_name("service") is None
