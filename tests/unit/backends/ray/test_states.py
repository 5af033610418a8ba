"""The state of a job from Ray's record and the driver's."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.backends.ray.states import status
from mlengine.core.job import FailureCause, JobHandle, JobState, JobStatus

HANDLE = JobHandle("ray", "mlengine-k-1", "job", 1, "gs://b/m/job")


def found(ray: str | None, written: dict[str, Any] | None = None, *, asked: bool = False, **more: Any) -> JobStatus:
    job = None if ray is None else {"status": ray, "start_time": 5000, **more}
    return status(HANDLE, job, written, lambda: asked)


def test_a_pending_job_has_ray_s_reason() -> None:
    result = found("PENDING", message="It may be waiting for the runtime environment to be set up.")
    assert (result.state, result.created) == (JobState.QUEUED, 5.0)
    assert result.detail == "It may be waiting for the runtime environment to be set up."


def test_a_job_without_a_driver_s_state_is_starting() -> None:
    assert found("RUNNING").state is JobState.PREPARING


def test_a_running_job_has_the_state_written_by_its_driver() -> None:
    result = found("RUNNING", {"state": "RUNNING", "detail": "2 of 2 replicas run", "started": 7.0})
    assert (result.state, result.detail, result.started) == (JobState.RUNNING, "2 of 2 replicas run", 7.0)


@pytest.mark.parametrize("ray", ["RUNNING", "FAILED", "STOPPED", None])
def test_the_drivers_final_state_takes_precedence_over_rays(ray: str | None) -> None:
    failure = {"cause": "trainer", "message": "chief-0 ended", "replica": "chief-0", "exit_code": 1}
    result = found(ray, {"state": "FAILED", "detail": "x", "failure": failure, "ended": 9.0})
    assert (result.state, result.ended) == (JobState.FAILED, 9.0)
    assert result.failure is not None
    assert result.failure.cause is FailureCause.TRAINER


@pytest.mark.parametrize(
    ("ray", "more", "state", "cause"),
    [
        (None, {}, JobState.FAILED, FailureCause.LOST),
        ("STOPPED", {}, JobState.CANCELLED, FailureCause.CANCELLED),
        ("FAILED", {"error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, JobState.FAILED, FailureCause.LOST),
        ("FAILED", {"driver_exit_code": -9}, JobState.FAILED, FailureCause.LOST),
        ("FAILED", {"driver_exit_code": 1}, JobState.FAILED, FailureCause.SERVICE),
        ("FAILED", {"error_type": "RUNTIME_ENV_SETUP_FAILURE"}, JobState.FAILED, FailureCause.SERVICE),
    ],
)
def test_a_job_without_a_final_state_gets_its_state_from_ray(
    ray: str | None, more: dict[str, Any], state: JobState, cause: FailureCause
) -> None:
    for written in (None, {"state": "RUNNING", "detail": ""}):
        result = found(ray, written, **more)
        assert result.state is state
        assert result.failure is not None
        assert result.failure.cause is cause


def test_a_job_that_succeeded_in_ray_needs_no_recorded_state() -> None:
    assert found("SUCCEEDED", driver_exit_code=0).state is JobState.SUCCEEDED


CANCELLED = {"state": "CANCELLED", "detail": "cancelled", "failure": {"cause": "cancelled", "message": "cancelled"}}


@pytest.mark.parametrize(
    ("ray", "asked", "state", "cause"),
    [
        ("RUNNING", False, JobState.CANCELLING, None),
        ("STOPPED", False, JobState.CANCELLED, FailureCause.CANCELLED),
        ("FAILED", False, JobState.FAILED, FailureCause.PREEMPTED),
        ("FAILED", True, JobState.CANCELLED, FailureCause.CANCELLED),
        # The head node was restarted in an orderly way: its service manager also sends SIGTERM to the driver.
        (None, False, JobState.FAILED, FailureCause.PREEMPTED),
        (None, True, JobState.CANCELLED, FailureCause.CANCELLED),
    ],
)
def test_a_stopped_driver_is_cancelled_if_ray_or_a_user_stopped_it(
    ray: str | None, asked: bool, state: JobState, cause: FailureCause | None
) -> None:
    result = found(ray, {**CANCELLED, "ended": 9.0}, asked=asked)
    assert result.state is state
    assert (result.failure and result.failure.cause) is cause


@pytest.mark.parametrize("ray", [None, "FAILED"])
def test_a_job_lost_during_its_cancellation_is_cancelled(ray: str | None) -> None:
    result = found(ray, {"state": "CANCELLING", "detail": ""}, asked=True, driver_exit_code=-9)
    assert result.state is JobState.CANCELLED
    assert result.failure is not None
    assert result.failure.cause is FailureCause.CANCELLED


def test_the_start_script_s_explanation_is_the_message() -> None:
    text = "Job entrypoint command failed with exit code 1, last available logs:\nRunning entrypoint\n"
    result = found("FAILED", message=f"{text}mlengine cannot run on this Ray cluster: install uv\n", driver_exit_code=1)
    assert result.detail == "mlengine cannot run on this Ray cluster: install uv"


def test_an_unknown_ray_state_is_not_terminal(caplog: pytest.LogCaptureFixture) -> None:
    assert found("HIBERNATING").state is JobState.UNKNOWN
    assert "HIBERNATING" in caplog.text
