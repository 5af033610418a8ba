"""Determines a job's state from Ray's record of the job and the state that the driver wrote to the bucket.

The driver decides how a job has ended. Ray's record is used only if the driver has not begun, or has died. A job whose
driver was stopped by SIGTERM is cancelled if Ray calls it STOPPED, or if a cancellation was requested
(``cancel.json``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mlengine.backends.ray.shipping import START
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus

log = logging.getLogger(__name__)

STATES: Mapping[str, JobState] = {
    "PENDING": JobState.QUEUED,
    "RUNNING": JobState.PREPARING,
    "STOPPED": JobState.CANCELLED,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
}
# Errors that mean that the driver, or the node that ran it, is gone.
_LOST_TYPES = frozenset({"JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"})
_KILLED = frozenset({-9, -15, 137, 143})
_TAIL = 20
_Times = tuple[float | None, float | None, float | None]  # created, started, ended


def status(
    handle: JobHandle,
    job: Mapping[str, Any] | None,
    written: Mapping[str, Any] | None,
    cancelled: Callable[[], bool] = lambda: False,
) -> JobStatus:
    """The status of one job.

    :param job: Ray's record; ``None`` if Ray has none.
    :param written: the state that the driver has written; ``None`` if there is none.
    :param cancelled: whether a cancellation was requested; called only if it matters.
    """
    if written is not None and JobState(written["state"]).terminal:
        return _final(handle, written, job, cancelled)
    if job is None:
        return _unless_cancelled(_lost(handle, written), cancelled)
    state = STATES.get(str(job.get("status")), JobState.UNKNOWN)
    if written is not None and not state.terminal and state is not JobState.UNKNOWN:
        return _of_driver(handle, written, job)
    found = _of_ray(handle, job, state, _times(job, written))
    return _unless_cancelled(found, cancelled) if found.failure else found


def _unless_cancelled(found: JobStatus, cancelled: Callable[[], bool]) -> JobStatus:
    """The status, with CANCELLED for a job that was lost while it was being cancelled: it gets no further attempt."""
    if not cancelled():
        return found
    failed = Failure(FailureCause.CANCELLED, f"the job was cancelled; {found.detail}")
    return replace(found, state=JobState.CANCELLED, detail=failed.message, failure=failed)


def _lost(handle: JobHandle, written: Mapping[str, Any] | None) -> JobStatus:
    message = (
        f"the Ray cluster has no job {handle.name}: its head node was restarted, the job was deleted, or ray_address "
        "names another cluster"
    )
    failed = Failure(FailureCause.LOST, message)
    return JobStatus(handle, JobState.FAILED, message, failed, *_times(None, written))


def _of_ray(handle: JobHandle, job: Mapping[str, Any], state: JobState, times: _Times) -> JobStatus:
    """The status of a job whose driver has written no state, or has ended without writing a final one."""
    word = str(job.get("status"))
    if state is JobState.UNKNOWN:
        log.warning("Ray answered the state %s, which this version does not know; waiting on", word)
        return JobStatus(handle, state, f"Ray's state {word}", None, *times)
    if state is JobState.SUCCEEDED:  # the driver's exit code is 0, and its state was removed with the job dir
        return JobStatus(handle, state, "", None, *times)
    if state.terminal:
        failed = _failure(word, job)
        return JobStatus(handle, state, failed.message, failed, *times)
    detail = "the driver is starting" if word == "RUNNING" else str(job.get("message") or "").strip()
    return JobStatus(handle, state, detail, None, *times)


def _final(
    handle: JobHandle, written: Mapping[str, Any], job: Mapping[str, Any] | None, cancelled: Callable[[], bool]
) -> JobStatus:
    result = _of_driver(handle, written, job)
    word = "" if job is None else str(job.get("status"))
    if result.state is not JobState.CANCELLED or word == "STOPPED":
        return result
    if job is not None and not STATES.get(word, JobState.UNKNOWN).terminal:
        return replace(result, state=JobState.CANCELLING, failure=None, ended=None)
    if cancelled():
        return result
    stopped = Failure(FailureCause.PREEMPTED, "the driver was stopped (SIGTERM), without a cancellation of the job")
    return replace(result, state=JobState.FAILED, detail=stopped.message, failure=stopped)


def _of_driver(handle: JobHandle, written: Mapping[str, Any], job: Mapping[str, Any] | None) -> JobStatus:
    failed = written.get("failure")
    return JobStatus(
        handle,
        JobState(written["state"]),
        str(written.get("detail", "")),
        None if failed is None else Failure.from_json(failed),
        *_times(job, written),
        restarting=bool(written.get("restarting")),
    )


def _times(job: Mapping[str, Any] | None, written: Mapping[str, Any] | None) -> _Times:
    created, ended = ((job or {}).get(name) for name in ("start_time", "end_time"))
    own = written or {}
    return (
        own.get("created") if created is None else created / 1000,
        own.get("started"),
        own.get("ended") or (None if ended is None else ended / 1000),
    )


def _failure(word: str, job: Mapping[str, Any]) -> Failure:
    """The reason why a job ended whose driver wrote no final state."""
    message = str(job.get("message") or "").strip()
    code = job.get("driver_exit_code")
    if word == "STOPPED":
        return Failure(FailureCause.CANCELLED, "the job was stopped")
    if job.get("error_type") in _LOST_TYPES or code in _KILLED:
        return Failure(FailureCause.LOST, f"the driver was ended: {_first(message)}", exit_code=code)
    lines = [line for line in message.splitlines() if line.strip()]
    # If the start script fails, it ends with one line of explanation; all other failures end with a traceback.
    explained = next((line for line in lines if line.startswith("mlengine cannot run")), None)
    what = explained or f"{START} failed: {lines[-1] if lines else 'Ray gives no reason'}"
    if job.get("error_type") == "RUNTIME_ENV_SETUP_FAILURE":
        what = f"Ray could not set up the job's runtime environment: {lines[-1] if lines else ''}"
    return Failure(FailureCause.SERVICE, what[:1000], exit_code=code, log_tail=tuple(lines[-_TAIL:]))


def _first(message: str) -> str:
    return message.splitlines()[0][:500] if message else "Ray gives no reason"
