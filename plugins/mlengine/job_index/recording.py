"""Writes a job's row to the job index when the job ends and when it is validated.

The index is a cache. Therefore, errors are only logged, and a task waits at most a few seconds for a write. The next
server that lists the jobs reads missing rows from the job directories.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from mlengine.backends import TrainingBackend
from mlengine.core import layout
from mlengine.core.errors import MlengineError, StorageError
from mlengine.core.job import JobStatus
from mlengine.core.layout import JobDir
from mlengine.job_index import shards
from mlengine.job_index.reading import make_row, read_claim, with_report
from mlengine.job_index.rows import Row, check
from mlengine.job_index.shards import Key
from mlengine.storage.client import Storage
from mlengine.validation.report import Report

log = logging.getLogger(__name__)

PATIENCE = 5.0  # maximum number of seconds that a caller waits for a write


def record_end(storage: Storage, bucket: str, backend: TrainingBackend, status: JobStatus) -> None:
    """Write the row of a job that has ended. This takes four requests.

    :param bucket: the bucket that has the index. A job whose directory is in another bucket gets no row.
    """
    job_dir = JobDir(status.handle.job_dir)

    def work() -> None:
        claim = read_claim(storage, job_dir)
        if claim is None or claim.handle != status.handle:
            return  # a later attempt has already been submitted
        row = make_row(storage, claim, status, backend, validated=False)
        check(row)
        key = (row.model, row.job_id)
        shards.update(storage, bucket, shards.number_of(*key), lambda rows: {key: shards.merged(rows.get(key), row)})

    _attempt(work, bucket, job_dir)


def record_report(storage: Storage, bucket: str, report: Report) -> None:
    """Add the result of a validation to the job's row, if the job has one. This takes three requests."""
    job_dir = JobDir(report.job_dir)
    key = (job_dir.model_name, job_dir.job_id)

    def change(rows: Mapping[Key, Row]) -> dict[Key, Row | None]:
        row = rows.get(key)
        stat = storage.stat(job_dir.report) if row is not None else None
        if row is None or stat is None or stat.generation < row.report_generation:
            return {}
        return {key: with_report(row, report, stat.generation)}

    _attempt(lambda: shards.update(storage, bucket, shards.number_of(*key), change), bucket, job_dir)


def _attempt(work: Callable[[], object], bucket: str, job_dir: JobDir) -> None:
    if not _is_listed(bucket, job_dir):
        return

    def run() -> None:
        try:
            work()
        except MlengineError as error:
            log.info("job %s: could not write its row to the job index: %s", job_dir.job_id, error.message)
        except Exception:
            log.warning("job %s: could not write its row to the job index", job_dir.job_id, exc_info=True)

    # The write runs in a thread of its own, because the client retries requests for two minutes.
    thread = threading.Thread(target=run, name="mlengine-job-index", daemon=True)
    thread.start()
    thread.join(PATIENCE)


def _is_listed(bucket: str, job_dir: JobDir) -> bool:
    """Whether the list of the bucket's jobs includes the job."""
    try:
        return JobDir.of(bucket, layout.check_model_name(job_dir.model_name), job_dir.job_id) == job_dir
    except StorageError:
        return False
