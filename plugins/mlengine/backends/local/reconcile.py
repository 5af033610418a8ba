"""Reconcile a job whose launcher has died: end the processes that it left, and write the final state.

The process that finds the file lock free does it while it holds the lock: a ``describe``, a ``cancel``, or the next
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
from mlengine.backends.local.record import Job, Stored
from mlengine.core.job import Failure, FailureCause, JobState
from mlengine.runtime import json_files, processes
from mlengine.runtime.file_lock import FileLock
from mlengine.runtime.processes import Process


def reconcile(job: Job) -> dict[str, Any] | None:
    """Continue to end a job whose launcher has died. Returns its state; ``None`` if it has none yet.

    Does nothing if the job has ended, or if its launcher is running or starting.
    """
    if not job.root.is_dir():
        return None  # taking the lock of an unknown job would create its directory
    lock = FileLock.take(job.lock_file)
    if lock is None:
        return job.state()
    with lock:
        state, stored = job.state(), job.submission()
        if stored is None or (state is not None and JobState(state["state"]).terminal):
            return state
        if state is None and not job.cancel_file.exists() and time.time() - stored.created < START_SECONDS:
            return None
        left = processes.of_job(job.root, _recorded(state))
        if left and not _time_is_up(job, left, stored.settings.termination_grace_seconds):
            words = f"the launcher died; {len(left)} of the job's processes are being ended"
            return {**(state or {"state": JobState.QUEUED.value, "created": stored.created}), "detail": words}
        processes.end_all(lambda: processes.of_job(job.root, _recorded(state)), 0.0)
        last = _last_word(job, stored, state)
        # If the disk is full, the returned state is still correct, and the next poll writes it.
        with contextlib.suppress(OSError):
            json_files.write_json(job.state_file, last)
            Queue(job.state_dir).leave(job.name)
        return last


def _time_is_up(job: Job, left: list[Process], seconds: float) -> bool:
    """Whether the orphan processes got SIGTERM long enough ago. The first call sends it."""
    try:
        return time.time() - job.orphans_file.stat().st_mtime > seconds
    except FileNotFoundError:
        for process in left:
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            job.orphans_file.touch()
        return False


def _last_word(job: Job, stored: Stored, state: dict[str, Any] | None) -> dict[str, Any]:
    if job.cancel_file.exists():
        failure = Failure(FailureCause.CANCELLED, "the job was cancelled")
        final = JobState.CANCELLED
    else:
        what = "the launcher never started" if state is None else f"the launcher died while {state['state']}"
        if job.orphans_file.exists():
            what += "; the processes that it left were ended"
        failure = Failure(FailureCause.LOST, what, log_tail=logs.last_lines(job.launcher_log))
        final = JobState.FAILED
    base = state or {"created": stored.created}
    return {**base, "state": final.value, "detail": failure.message, "failure": failure.to_json(), "ended": time.time()}


def _recorded(state: dict[str, Any] | None) -> list[Process]:
    replicas = (state or {}).get("replicas", [])
    return [Process.from_json(replica["process"]) for replica in replicas if replica.get("process")]
