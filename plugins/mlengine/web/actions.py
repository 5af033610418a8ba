"""What the page's buttons do, and that it is written down: who, when, why.

A cancellation is noted in ``job.json`` before the backend is told: one that was asked for and did not get through is
better than one that nobody can explain. A rollback is an entry of the champion's history already.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from mlengine.backends import TrainingBackend
from mlengine.champions.history import Champion
from mlengine.core.errors import BackendError, MlengineError, StorageConflictError
from mlengine.core.job import JobHandle, JobRecord
from mlengine.core.layout import JobDir
from mlengine.promotion.publish import rollback
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

CANCELLED_BY = "cancelled_by_person"
LONGEST_REASON = 500
_RACES = 10


def cancel(storage: Storage, backend: TrainingBackend, job_dir: JobDir, *, by: str, why: str) -> JobHandle:
    """Cancel the live attempt of a job.

    Its task is told by the backend, and fails without another try: it was somebody else who ended the job.

    :raises BackendError: there is nothing to cancel, or the job cannot be seen from here.
    """
    handle = _live(storage, backend, job_dir)
    _note(storage, job_dir, handle.attempt, {"event": CANCELLED_BY, "attempt": handle.attempt, "by": by, "why": why})
    log.warning("%s cancels job %s: %s", by, handle.job_id, why)
    backend.cancel(handle)
    return handle


def roll_back(storage: Storage, bucket: str, model: str, *, by: str, why: str, to: int | None) -> Champion:
    """:raises PublishError: there is nothing to go back to, or the files of that champion are gone."""
    log.warning("%s rolls the champion of %s back: %s", by, model, why)
    return rollback(storage, bucket, model, by=by, why=why, to=to)


def _live(storage: Storage, backend: TrainingBackend, job_dir: JobDir) -> JobHandle:
    record = JobRecord.from_bytes(storage.read(job_dir.claim))
    handle = record.handle(job_dir.uri)
    if handle is None:
        raise BackendError(f"job {record.job_id} is not submitted yet", hint="try again in a moment")
    status = backend.describe([handle])[0]
    if status.state.terminal:
        raise BackendError(f"job {handle.job_id} has ended already: {status.state.value}", hint="look at its page")
    return handle


def _note(storage: Storage, job_dir: JobDir, attempt: int, event: dict[str, Any]) -> None:
    for _ in range(_RACES):
        data, generation = storage.read_with_generation(job_dir.claim)
        record = JobRecord.from_bytes(data)
        if record.attempt != attempt:
            raise BackendError(f"job {record.job_id} is at attempt {record.attempt} by now", hint="look again")
        noted = record.with_attempt(attempt, record.name, {"time": round(time.time(), 3), **event})
        try:
            storage.replace(job_dir.claim, noted.to_bytes(), generation)
        except StorageConflictError:
            continue
        return
    raise MlengineError(f"{job_dir.claim} changes all the time", hint="try again")
