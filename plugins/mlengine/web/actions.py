"""The actions of the page's buttons. Each records the user, the time and the reason.

A cancellation is recorded in ``job.json`` before the backend is called, so that a job never ends without an
explanation. A rollback is recorded in the champion's history.
"""

from __future__ import annotations

import logging

from mlengine.backends import TrainingBackend
from mlengine.champions.history import Champion
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobRecord, JobStatus
from mlengine.core.layout import JobDir
from mlengine.jobs.cancellation import record_cancellation
from mlengine.jobs.submission import may_be_tried_again
from mlengine.promotion.publish import rollback
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

MAX_REASON_LENGTH = 500


def cancel(storage: Storage, backend: TrainingBackend, job_dir: JobDir, *, by: str, why: str) -> JobHandle:
    """Cancel the active attempt of a job. Its task sees the state ``CANCELLED``, fails, and is not retried.

    If the job has failed and may be tried again, only the cancellation is recorded: its task then makes no further
    attempt, and fails when the pause before that attempt has ended.

    :param by: the user.
    :param why: the reason that the user gave.
    :raises BackendError: the job is not submitted yet or has ended, or the backend cannot be reached.
    """
    status = _active(storage, backend, job_dir)
    handle = status.handle
    record_cancellation(storage, handle, by=by, why=why)
    log.warning("Job %s: cancelled by %s: %s", handle.job_id, by, why)
    if not status.state.terminal:
        backend.cancel(handle)
    return handle


def roll_back(
    storage: Storage, bucket: str, model: str, *, by: str, why: str, to: int | None, shown: int | None
) -> Champion:
    """Make an earlier champion the champion again.

    :param to: the serial of the champion to restore; by default that of the previous one.
    :param shown: the serial of the champion that the user saw.
    :raises PublishError: there is no such champion, its files have been deleted, or the champion has changed.
    """
    champion = rollback(storage, bucket, model, by=by, why=why, to=to, replaces=shown)
    log.warning("Model %s: rolled back by %s: %s", model, by, why)
    return champion


def _active(storage: Storage, backend: TrainingBackend, job_dir: JobDir) -> JobStatus:
    record = JobRecord.from_bytes(storage.read(job_dir.claim))
    handle = record.handle(job_dir.uri)
    if handle is None:
        raise BackendError(
            f"job {record.job_id} has not been submitted yet", hint="wait until it has been submitted, then try again"
        )
    status = backend.describe([handle])[0]
    if status.state.terminal and not may_be_tried_again(record, status):
        raise BackendError(f"job {handle.job_id} has already ended: {status.state.value}", hint="reload the page")
    return status
