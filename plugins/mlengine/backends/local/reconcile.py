"""A job whose launcher has died: what it left running is ended, and its state gets its last word.

Whoever finds the lease free does it, under the lease, so that it is done once: a ``describe``, a ``cancel``, the next
job in the queue. Nobody waits here: processes that are told to stop have their time to save, as under a launcher, and
whoever looks after that ends them. Until then the job has not ended. It is never run on: attempt n+1 goes on from its
checkpoint.
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


def settle(job: Job) -> dict[str, Any] | None:
    """Go on ending a job that nobody lives to end. Returns its state, ``None`` if it has none yet.

    Does nothing to a job that has ended, that has a living launcher, or whose launcher is on its way.
    """
    if not job.root.is_dir():
        return None  # taking the lease of a job nobody knows would make its folder
    lease = FileLock.take(job.lease)
    if lease is None:
        return job.state()
    with lease:
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
        # On a full disk the answer is right all the same, and the next look writes it.
        with contextlib.suppress(OSError):
            json_files.write_json(job.state_file, last)
            Queue(job.state_dir).leave(job.name)
        return last


def _time_is_up(job: Job, left: list[Process], seconds: float) -> bool:
    """Whether what is left was told to stop so long ago. The first who asks tells it."""
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
            what += "; what it left running was ended"
        failure = Failure(FailureCause.LOST, what, log_tail=logs.last_lines(job.launcher_log))
        final = JobState.FAILED
    base = state or {"created": stored.created}
    return {**base, "state": final.value, "detail": failure.message, "failure": failure.to_json(), "ended": time.time()}


def _recorded(state: dict[str, Any] | None) -> list[Process]:
    replicas = (state or {}).get("replicas", [])
    return [Process.from_json(replica["process"]) for replica in replicas if replica.get("process")]
