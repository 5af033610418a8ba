"""A job whose launcher has died: what it left running is ended, and its state gets its last word.

Whoever finds the lease free does it, under the lease, so that it is done once: a ``describe``, a ``cancel``, the next
job in the queue. The job is never run on: attempt n+1 goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from mlengine.backends.local import logs, processes, record
from mlengine.backends.local.lease import Lease
from mlengine.backends.local.processes import Process
from mlengine.backends.local.queue import START_SECONDS, Queue
from mlengine.backends.local.record import Job, Stored
from mlengine.core.job import Failure, FailureCause, JobState

# Replicas are told to stop by the kernel when their launcher dies: this is what is left of their time to save.
_GRACE = 3.0


def settle(job: Job) -> dict[str, Any] | None:
    """Give the job its last word if nobody lives to do it. Returns its state, ``None`` if it has none yet.

    Does nothing to a job that has ended, that has a living launcher, or whose launcher is on its way.
    """
    lease = Lease.take(job.lease)
    if lease is None:
        return job.state()
    with lease:
        state, stored = job.state(), job.submission()
        if stored is None or (state is not None and JobState(state["state"]).terminal):
            return state
        cancelled = job.cancel_file.exists()
        if state is None and not cancelled and time.time() - stored.created < START_SECONDS:
            return None
        ended = processes.end_all(lambda: processes.of_job(job.root, _recorded(state)), _GRACE)
        last = _last_word(job, stored, state, ended, cancelled)
        # On a full disk the answer is right all the same, and the next look writes it.
        with contextlib.suppress(OSError):
            record.write_json(job.state_file, last)
            Queue(job.state_dir).leave(job.name)
        return last


def _last_word(job: Job, stored: Stored, state: dict[str, Any] | None, ended: int, cancelled: bool) -> dict[str, Any]:
    if cancelled:
        failure = Failure(FailureCause.CANCELLED, "the job was cancelled")
        final = JobState.CANCELLED
    else:
        what = "the launcher never started" if state is None else f"the launcher died while {state['state']}"
        if ended:
            what += f"; {ended} of the job's processes were still running and were ended"
        failure = Failure(FailureCause.LOST, what, log_tail=logs.last_lines(job.launcher_log))
        final = JobState.FAILED
    base = state or {"created": stored.created}
    return {**base, "state": final.value, "detail": failure.message, "failure": failure.to_json(), "ended": time.time()}


def _recorded(state: dict[str, Any] | None) -> list[Process]:
    replicas = (state or {}).get("replicas", [])
    return [Process.from_json(replica["process"]) for replica in replicas if replica.get("process")]
