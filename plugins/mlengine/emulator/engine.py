"""The jobs of the service: taken from a face, handed to a backend, remembered over restarts.

A job is on disk before the backend hears of it, and a submission is idempotent on its key: a service that dies between
the two hands the job over when it is started again. A thread looks at live jobs every second, so that times and log
lines are those of the events, not of the next question.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlengine.backends import CapsCluster, TrainingBackend
from mlengine.core.errors import BackendError, BackendUnavailableError, MlengineError, ServiceRefusalError
from mlengine.core.job import JobState, JobStatus
from mlengine.emulator import error_mapping
from mlengine.emulator.log_entries import Journal
from mlengine.emulator.records import Record, Store, pack, unpack

log = logging.getLogger(__name__)

TICK = 1.0


class Engine:
    """See the head of this file.

    :param backend: where jobs run.
    :param folder: where jobs are remembered.
    """

    def __init__(self, backend: TrainingBackend, folder: Path) -> None:
        self.backend = backend
        self.store = Store(folder / "jobs")
        self.journal = Journal(backend, folder / "logs")
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="mlengine-service", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Jobs go on; the next start finds them."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(30)

    def create(self, record: Record) -> Record:
        """Take a job.

        :raises ServiceRefusalError: ALREADY_EXISTS for an id that was ever used.
        """
        submission = unpack(record.submission)
        if isinstance(self.backend, CapsCluster):
            spec, notes = self.backend.cap(submission.spec)
            packed = pack(replace(submission, spec=spec))
            record = replace(record, submission=packed, notes=(*record.notes, *notes))
        with self._lock:
            if self.store.get(record.key) is not None:
                raise ServiceRefusalError(
                    f"Field: job.job_id Error: A job with this id already exists: {record.id}", status="ALREADY_EXISTS"
                )
            self.store.put(record)
        self._wake.set()
        return record

    def get(self, key: tuple[str, str, str, str], what: str) -> Record:
        """:raises ServiceRefusalError: NOT_FOUND."""
        record = self.store.get(key)
        if record is None or record.deleted:
            raise ServiceRefusalError(f"{what} is not found.", status="NOT_FOUND")
        return self.refresh([record])[0]

    def jobs_of(self, face: str, project: str, region: str) -> list[Record]:
        """The jobs of one parent, the newest first."""
        records = [
            record
            for record in self.store.all()
            if (record.face, record.project, record.region) == (face, project, region) and not record.deleted
        ]
        return sorted(self.refresh(records), key=lambda record: (record.created, record.id), reverse=True)

    def cancel(self, record: Record) -> None:
        """:raises ServiceRefusalError: FAILED_PRECONDITION for a job that has ended."""
        with self._lock:
            record = self.refresh([record])[0]
            if record.state.terminal:
                raise ServiceRefusalError(
                    f"Cannot cancel a job that has ended; job {record.id} is {record.state.value}.",
                    status="FAILED_PRECONDITION",
                )
            if record.handle is None:
                now = time.time()
                error = {"code": 1, "message": "CANCELED"}
                self._put(record, state=JobState.CANCELLED, ended=now, error=error)
                return
            # First the backend, so that a service that dies in between has promised nothing.
            self.backend.cancel(record.handle)
            self._put(record, state=JobState.CANCELLING)

    def cancel_all(self) -> None:
        """Cancel every job that has not ended."""
        for record in self.store.all():
            with contextlib.suppress(ServiceRefusalError):
                self.cancel(record)

    def delete(self, record: Record) -> None:
        """Forget an ended job; its id stays used.

        :raises ServiceRefusalError: FAILED_PRECONDITION for a job that has not ended.
        """
        if not record.state.terminal:
            raise ServiceRefusalError(
                f"Cannot delete a job that has not ended; cancel it first: {record.id} is {record.state.value}.",
                status="FAILED_PRECONDITION",
            )
        self._put(record, deleted=True)

    def relabel(self, record: Record, labels: dict[str, str]) -> Record:
        return self._put(record, body={**record.body, "labels": labels})

    def refresh(self, records: Sequence[Record]) -> list[Record]:
        """The same records, with what the backend says now. A backend that cannot be reached changes nothing."""
        with self._lock:
            fresh = [self.store.get(record.key) or record for record in records]
            fresh = [self._submit(record) if self._waits(record) else record for record in fresh]
            live = [record for record in fresh if record.handle is not None and not record.state.terminal]
            try:
                statuses = self.backend.describe([record.handle for record in live if record.handle is not None])
            except BackendUnavailableError as error:
                log.warning("the backend does not answer: %s", error)
                return fresh
            seen = {record.key: self._apply(record, status) for record, status in zip(live, statuses, strict=True)}
            return [seen.get(record.key, record) for record in fresh]

    def _waits(self, record: Record) -> bool:
        return record.handle is None and not record.state.terminal and not record.stuck

    def _submit(self, record: Record) -> Record:
        try:
            handle = self.backend.submit(unpack(record.submission))
        except BackendUnavailableError as error:
            log.warning("job %s waits: %s", record.id, error)
            return record
        except BackendError as error:
            failure = {"code": 3, "message": str(error)}
            return self._put(record, state=JobState.FAILED, ended=time.time(), error=failure)
        return self._put(record, handle=handle)

    def _apply(self, record: Record, status: JobStatus) -> Record:
        if status.state is JobState.UNKNOWN:
            return record
        state = status.state
        if record.state is JobState.CANCELLING and not state.terminal:
            state = JobState.CANCELLING
        error = None if status.failure is None else error_mapping.of_failure(record.face, status.failure)
        started = status.started or record.started
        if started is None and state is JobState.RUNNING:
            started = time.time()
        ended = (status.ended or record.ended or time.time()) if state.terminal else None
        if (state, error, started, ended) == (record.state, record.error, record.started, record.ended):
            return record
        return self._put(record, state=state, error=error, started=started, ended=ended)

    def _put(self, record: Record, **changes: Any) -> Record:
        with self._lock:
            # What another thread changed meanwhile stays.
            changed = replace(self.store.get(record.key) or record, updated=time.time(), **changes)
            self.store.put(changed)
            return changed

    def _watch(self) -> None:
        """Until :meth:`stop`: bring states and logs of live jobs up to date."""
        lines: set[tuple[str, str, str, str]] = set()  # ended jobs whose last lines were read
        while not self._stopping:
            self._wake.wait(TICK)
            self._wake.clear()
            records = [record for record in self.store.all() if record.key not in lines]
            try:
                for record in self.refresh(records):
                    self.journal.read(record)
                    if record.state.terminal:
                        lines.add(record.key)
            except MlengineError as error:
                log.warning("looking at the jobs failed, and is tried again: %s", error)
            except Exception:
                # A full disk, say: whoever watches must not end for it.
                log.exception("looking at the jobs failed, and is tried again")
