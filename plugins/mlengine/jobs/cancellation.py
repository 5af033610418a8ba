"""Records in ``job.json`` that a person cancels a job, so that its task and the page can show who did, and why."""

from __future__ import annotations

import time

from mlengine.core.errors import BackendError
from mlengine.core.job import CANCELLED_BY_PERSON, JobHandle, JobRecord
from mlengine.core.layout import JobDir
from mlengine.jobs import claims
from mlengine.storage.client import Storage


def record_cancellation(storage: Storage, handle: JobHandle, *, by: str, why: str) -> None:
    """Add the person, the time and the reason to the job's ``job.json``.

    :raises BackendError: the job already has a later attempt.
    :raises ObjectMissingError: the job dir has no ``job.json``.
    """

    def add(record: JobRecord) -> JobRecord:
        if record.attempt != handle.attempt:
            raise BackendError(
                f"job {record.job_id} is already at attempt {record.attempt}",
                hint="check its current state, then decide whether to cancel it",
            )
        event = {"event": CANCELLED_BY_PERSON, "attempt": handle.attempt, "by": by, "why": why}
        return record.with_attempt(handle.attempt, record.name, {"time": round(time.time(), 3), **event})

    claims.update(storage, JobDir(handle.job_dir), add)
