"""Reconciles a job whose launcher has died: ends the processes that the launcher left, and writes the final state.

The process that finds the file lock free does this while it holds the lock: a ``describe``, a ``cancel``, or the next
job in the queue. It does not wait: processes that get SIGTERM have the usual time to save, and a later call kills them.
Until then the job has not ended. The job is never resumed: attempt n+1 continues from its checkpoint.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Any

from mlengine.backends.local import logs
from mlengine.backends.local.queue import START_SECONDS, Queue
from mlengine.backends.local.record import Job
from mlengine.core.errors import BackendError
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.runtime import json_files, processes
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.processes import Process

_GRACE_SECONDS = 10.0  # for the processes of a job whose settings cannot be read


def reconcile(job: Job) -> dict[str, Any] | None:
    """Take the next step to end a job whose launcher has died. Return the job's state; ``None`` if it has none yet.

    Nothing is done if the job has ended, or if its launcher is running or starting.
    """
    if _is_starting(job):
        return None  # the job's submitter needs the lock
    lock = FileLock.take(job.lock_file)
    if lock is None:
        return job.state()
    with lock:
        state = job.state()
        if (state is not None and JobState(state["state"]).terminal) or _is_starting(job):
            return state
        created, grace, unreadable = _submitted(job)
        left = processes.of_job(job.root, _recorded(state))
        if left and not _time_is_up(job, left, grace):
            words = f"the launcher died; {len(left)} of the job's processes are being ended"
            return {**(state or {"state": JobState.QUEUED.value, "created": created}), "detail": words}
        processes.end_all(lambda: processes.of_job(job.root, _recorded(state)), 0.0)
        last = _last_word(job, created, state, unreadable)
        # If the disk is full, the returned state is still correct, and the next poll writes it.
        with contextlib.suppress(OSError):
            json_files.write_json(job.state_file, last)
            Queue(job.state_dir).leave(job.name)
        return last


def _is_starting(job: Job) -> bool:
    """Whether the job may still get a launcher, or has not been submitted."""
    if job.state() is not None:
        return False
    if not job.submission_file.exists():
        return True
    # A submission in the future is one from before the clock was set back.
    return not job.cancel_file.exists() and abs(time.time() - _submitted(job)[0]) < START_SECONDS


def _submitted(job: Job) -> tuple[float, float, str]:
    """The time of the submission, the seconds that the job's processes have to save, and a reason.

    The reason says why the submission cannot be read; it is empty if it can. An unreadable submission is no error here:
    a job that another version of mlengine has submitted must not keep the others waiting.
    """
    try:
        stored = job.submission()
    except BackendError as error:
        with contextlib.suppress(OSError):
            return job.submission_file.stat().st_mtime, _GRACE_SECONDS, error.message
        return time.time(), _GRACE_SECONDS, error.message
    if stored is None:
        return time.time(), _GRACE_SECONDS, "its submission.json was deleted"
    return stored.created, stored.settings.termination_grace_seconds, ""


def _time_is_up(job: Job, left: list[Process], seconds: float) -> bool:
    """Whether the orphan processes got SIGTERM at least ``seconds`` ago, or before the clock was set back.

    The first call sends the signal.
    """
    try:
        return abs(time.time() - job.orphans_file.stat().st_mtime) > seconds
    except FileNotFoundError:
        for process in left:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            job.orphans_file.touch()
        return False


def _last_word(job: Job, created: float, state: dict[str, Any] | None, unreadable: str) -> dict[str, Any]:
    if job.cancel_file.exists():
        failure = Failure(FailureCause.CANCELLED, "the job was cancelled")
        final = JobState.CANCELLED
    else:
        what = "the launcher never started" if state is None else f"the launcher died while {state['state']}"
        if job.orphans_file.exists():
            what += "; the processes that it left were ended"
        if unreadable:
            what += f"; {unreadable}"
        failure = Failure(FailureCause.LOST, what, log_tail=logs.last_lines(job.launcher_log))
        final = JobState.FAILED
    base = state or {"created": created}
    return {**base, "state": final.value, "detail": failure.message, "failure": failure.to_json(), "ended": time.time()}


def _recorded(state: dict[str, Any] | None) -> list[Process]:
    replicas = (state or {}).get("replicas", [])
    return [Process.from_json(replica["process"]) for replica in replicas if replica.get("process")]
