"""The emulator's jobs. The APIs create them, a backend runs them, and they survive restarts of the emulator.

1. :meth:`Engine.create` writes the record of a job to disk.
2. :meth:`Engine.refresh` submits jobs that have no handle yet, and reads the state of active jobs from the backend.
3. A thread calls ``refresh`` every second, so that times and log entries are accurate even if no client polls.

A submission is idempotent on its key. An emulator that stopped between 1 and 2 submits the job after its next start.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlengine.backends import CapsCluster, SeparatesStderr, TrainingBackend
from mlengine.core.errors import BackendError, BackendUnavailableError, EmulatorApiError, MlengineError
from mlengine.core.job import FailureCause, JobState, JobStatus
from mlengine.emulator import error_mapping
from mlengine.emulator.journal import Journal
from mlengine.emulator.records import Key, Record, Store, file_name, pack, unpack

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_STOP_SECONDS = 30.0


class Engine:
    """Creates jobs, submits them to the backend, and tracks their state; see the module's docstring.

    :param backend: the backend that runs the jobs.
    :param folder: the state directory.
    """

    def __init__(self, backend: TrainingBackend, folder: Path) -> None:
        self.backend = backend
        if isinstance(backend, SeparatesStderr):
            backend.separate_stderr()
        self.folder = folder
        self.store = Store(folder / "jobs")
        self.journal = Journal(backend, folder / "logs")
        self._objects = folder / "objects"
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        # Functions that are called after each poll, for example to upload the models of jobs that have succeeded.
        self.after_poll: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the polling thread."""
        self._thread = threading.Thread(target=self._watch, name="mlengine-emulator-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the polling thread and close the log store. Jobs continue; the next start finds them."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
        self.journal.close()

    def objects_dir(self, key: Key) -> Path:
        """The directory of a job's copies of Cloud Storage objects. It is removed when the job has ended."""
        return self._objects / file_name(key)

    def create(self, record: Record) -> Record:
        """Create a job.

        :raises EmulatorApiError: ALREADY_EXISTS if the id is or was used by another job.
        """
        submission = unpack(record.submission)
        if isinstance(self.backend, CapsCluster):
            spec, notes = self.backend.cap(submission.spec)
            packed = pack(replace(submission, spec=spec))
            record = replace(record, submission=packed, notes=(*record.notes, *notes))
        with self._lock:
            if self.store.get(record.key) is not None:
                raise EmulatorApiError(
                    f"Field: job.job_id Error: A job with this id already exists: {record.id}", status="ALREADY_EXISTS"
                )
            self.store.put(record)
        self._wake.set()
        return record

    def get(self, key: Key, name: str) -> Record:
        """A job with its current state.

        :param name: the job's name in the error message.
        :raises EmulatorApiError: NOT_FOUND if there is no such job.
        """
        record = self.store.get(key)
        if record is None or record.deleted:
            raise EmulatorApiError(f"{name} is not found.", status="NOT_FOUND")
        return self.refresh([record])[0]

    def jobs_of(self, api: str, project: str, region: str) -> list[Record]:
        """The jobs of one parent, newest first."""
        records = [
            record
            for record in self.store.all()
            if (record.api, record.project, record.region) == (api, project, region) and not record.deleted
        ]
        return sorted(self.refresh(records), key=lambda record: (record.created, record.id), reverse=True)

    def cancel(self, record: Record) -> None:
        """Cancel a job.

        :raises EmulatorApiError: FAILED_PRECONDITION if the job has ended.
        :raises BackendUnavailableError: the backend cannot be reached; nothing is changed.
        """
        with self._lock:
            record = self.refresh([record])[0]
            if record.state.terminal:
                raise EmulatorApiError(
                    f"Cannot cancel a job that has ended; job {record.id} is {record.state.value}.",
                    status="FAILED_PRECONDITION",
                )
            if record.handle is None:
                now = time.time()
                self._put(record, state=JobState.CANCELLED, ended=now, error=dict(error_mapping.CANCELLED))
                return
            # Call the backend first, so that the job is not shown as CANCELLING if the call fails.
            self.backend.cancel(record.handle)
            self._put(record, state=JobState.CANCELLING)

    def cancel_all(self) -> None:
        """Cancel every job that has not ended."""
        for record in self.store.all():
            with contextlib.suppress(EmulatorApiError):
                self.cancel(record)

    def delete(self, record: Record) -> None:
        """Hide a job that has ended. Its id cannot be used again.

        :raises EmulatorApiError: FAILED_PRECONDITION if the job has not ended.
        """
        if not record.state.terminal:
            raise EmulatorApiError(
                f"Cannot delete a job that has not ended; cancel it first: {record.id} is {record.state.value}.",
                status="FAILED_PRECONDITION",
            )
        self._put(record, deleted=True)

    def relabel(self, record: Record, labels: dict[str, str]) -> Record:
        """Replace a job's labels."""
        return self._put(record, body={**record.body, "labels": labels})

    def refresh(self, records: Sequence[Record]) -> list[Record]:
        """The given records with their current states.

        If the backend cannot be reached, the records have the last known states.
        """
        with self._lock:
            fresh = [self.store.get(record.key) or record for record in records]
            fresh = [self._expire(record) if record.waited_too_long else record for record in fresh]
            fresh = [self._submit(record) if self._is_waiting(record) else record for record in fresh]
            active = [record for record in fresh if record.handle is not None and not record.state.terminal]
            try:
                statuses = self.backend.describe([record.handle for record in active if record.handle is not None])
            except BackendUnavailableError as error:
                log.warning("cannot read job states from the backend: %s", error)
                return fresh
            seen = {record.key: self._apply(record, status) for record, status in zip(active, statuses, strict=True)}
            return [seen.get(record.key, record) for record in fresh]

    def _is_waiting(self, record: Record) -> bool:
        waiting = record.handle is None and not record.state.terminal and not record.stuck
        return waiting and time.time() >= record.faults.submit_at

    def _expire(self, record: Record) -> Record:
        """Cancel a job that is not in the backend when it reaches the service's time limit for waiting for machines."""
        if record.handle is not None or record.state.terminal:
            return record
        return self._put(record, state=JobState.CANCELLED, ended=time.time(), error=dict(error_mapping.CANCELLED))

    def _submit(self, record: Record) -> Record:
        try:
            handle = self.backend.submit(unpack(record.submission))
        except BackendUnavailableError as error:
            log.warning("job %s: cannot submit; retrying: %s", record.id, error)
            return record
        except BackendError as error:
            failure = {"code": 3, "message": str(error)}
            return self._put(record, state=JobState.FAILED, ended=time.time(), error=failure)
        return self._put(record, handle=handle)

    def _apply(self, record: Record, status: JobStatus) -> Record:
        if status.state is JobState.UNKNOWN:
            return record
        cancelling = record.state is JobState.CANCELLING
        if record.faults.ending and not cancelling:
            return self._interrupted(record) if status.state.terminal else record
        state = JobState.CANCELLING if cancelling and not status.state.terminal else status.state
        error = None if status.failure is None else error_mapping.of_failure(record.api, status.failure)
        if status.failure is not None and status.failure.cause is FailureCause.DEADLINE:
            # At its time limit, the services show a job as cancelled, not as failed.
            state, error = JobState.CANCELLED, dict(error_mapping.CANCELLED)
        # Keep the time of the first start, because a restart has a new start time in the backend.
        started = (record.started if record.faults.restarted else status.started) or record.started
        if started is None and state is JobState.RUNNING:
            started = time.time()
        faults = record.faults.while_running(time.time()) if state is JobState.RUNNING else record.faults
        if faults.ending and record.handle is not None:
            self.backend.cancel(record.handle)
        ended = (status.ended or record.ended or time.time()) if state.terminal else None
        changed = (state, error, started, ended, faults)
        if changed == (record.state, record.error, record.started, record.ended, record.faults):
            return record
        return self._put(record, state=state, error=error, started=started, ended=ended, faults=faults)

    def _interrupted(self, record: Record) -> Record:
        """Restart or end a job whose processes a scripted fault has ended."""
        now = time.time()
        if not record.faults.restarts:
            return self._put(record, state=JobState.FAILED, ended=now, error=record.faults.error)
        self.journal.start_again(record)
        faults = record.faults.after_restart(now)
        submission = unpack(record.submission)
        again = pack(replace(submission, key=f"{submission.key}r{faults.restarted}"))
        return self._put(record, state=JobState.PREPARING, handle=None, submission=again, faults=faults)

    def _put(self, record: Record, **changes: Any) -> Record:
        with self._lock:
            # Read the record again, to keep what another thread has changed in the meantime.
            changed = replace(self.store.get(record.key) or record, updated=time.time(), **changes)
            self.store.put(changed)
        if changed.state.terminal:
            shutil.rmtree(self.objects_dir(changed.key), ignore_errors=True)
        return changed

    def _watch(self) -> None:
        """Update states and logs of active jobs until :meth:`stop`."""
        finished: set[Key] = set()  # ended jobs whose logs have been read to the end
        while not self._stopping:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            records = [record for record in self.store.all() if record.key not in finished]
            try:
                for record in self.refresh(records):
                    self.journal.collect(record)
                    if record.state.terminal:
                        finished.add(record.key)
                for call in self.after_poll:
                    call()
            except MlengineError as error:
                log.warning("polling the jobs failed; retrying: %s", error)
            except Exception:
                # The cause may be a full disk, for example. The thread must not end.
                log.exception("polling the jobs failed; retrying")
