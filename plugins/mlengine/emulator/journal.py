"""Collects the log lines of all jobs in the log store: lines from the backend, and the service's own messages.

The service logs what it does with a job, as entries of the task ``service``. Lines of a replica's stderr have the
severity ERROR, whatever their content: on the real service, too, output of libraries to stderr is logged as errors. It
does not accept entries from clients, and does not store entries of other resources.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from mlengine.backends import LogLine, RunsOnHost, TrainingBackend
from mlengine.core.cluster import POOL_NAMES
from mlengine.core.errors import EmulatorError
from mlengine.core.job import JobState
from mlengine.core.spec import Role
from mlengine.emulator.log_store import JobLog, Lines, LogStore
from mlengine.emulator.logging_query import fields
from mlengine.emulator.records import VERTEX, Record, file_name

log = logging.getLogger(__name__)

SERVICE = "service"
_LINES = 5000  # lines of a job that are read from the backend at once
_INFO, _ERROR = fields.SEVERITIES["INFO"], fields.SEVERITIES["ERROR"]
_ML_TASKS = {Role.CHIEF: "master-replica", Role.WORKER: "worker-replica", Role.PS: "ps-replica"}
# The stages of a job, each with messages of the service that are known from public logs of both services.
_CREATED, _PREPARING, _RUNNING, _ENDED = 1, 2, 3, 4
_PROVISIONING = (
    "Vertex AI is provisioning job running framework. First time usage might take couple of minutes,"
    " and subsequent runs can be much faster."
)
_VERTEX_MESSAGES: Mapping[int, Sequence[str]] = {
    _CREATED: (
        "Waiting for job to be provisioned.",
        _PROVISIONING,
        "Vertex AI is setting up this job.",
        "Waiting for training program to start.",
    ),
    _PREPARING: ("Job is preparing.",),
    _RUNNING: ("Job is running.",),
}
_MLENGINE_MESSAGES: Mapping[int, Sequence[str]] = {
    _CREATED: (
        "Validating job requirements...",
        "Job creation request has been successfully validated.",
        "Job {id} is queued.",
        "Waiting for job to be provisioned.",
    ),
    _PREPARING: ("Waiting for training program to start.",),
}
_STAGES = {JobState.QUEUED: _CREATED, JobState.PREPARING: _PREPARING, JobState.RUNNING: _RUNNING}
_LAST_MESSAGES = {JobState.SUCCEEDED: "Job completed successfully.", JobState.FAILED: "Job failed."}


class Journal:
    """The log of all jobs.

    :param folder: the folder of the log store, and of the files that earlier versions wrote instead (``JOB.jsonl``).
    :raises EmulatorError: the log store cannot be opened.
    """

    def __init__(self, backend: TrainingBackend, folder: Path) -> None:
        self._backend, self._folder = backend, folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = LogStore(folder / "entries.sqlite3")
        # Backend jobs that were replaced by another one. A thread may still have a record that names one of them.
        self._finished: set[str] = set()
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def close(self) -> None:
        """Close the log store."""
        self.store.close()

    def log_of(self, record: Record) -> JobLog | None:
        """The stored log of a job; ``None`` if nothing has been stored."""
        return self.store.find(_name(record))

    def collect(self, record: Record, seconds: float | None = None) -> bool:
        """Store new lines. Returns whether all of them have been stored.

        :param record: the job with its current state.
        :param seconds: stop after this time, or when all lines are stored.
        :raises BackendUnavailableError: the backend cannot be reached.
        """
        name = _name(record)
        # Another thread may be storing a long log. A call with a time limit must not wait for it.
        if not self._locks[name].acquire(timeout=-1 if seconds is None else seconds):
            return False
        try:
            return self._collect(record, name, None if seconds is None else time.monotonic() + seconds)
        finally:
            self._locks[name].release()

    def _collect(self, record: Record, name: str, deadline: float | None) -> bool:
        stored = self.store.find(name) or self._create(record, name)
        # A backend on another host may receive lines after the end of a job.
        if stored.stage == _ENDED and isinstance(self._backend, RunsOnHost):
            return True
        self._announce(record, stored)
        while record.handle is not None and record.handle.name not in self._finished:
            page = self._backend.logs(record.handle, stored.cursor, _LINES)
            if page.lines:
                self.store.append(stored, _lines(record, page.lines), page.cursor)
            if not page.more:
                break
            if deadline is not None and time.monotonic() > deadline:
                return False
        self._announce_end(record, stored)
        return True

    def start_again(self, record: Record) -> None:
        """Store the rest of the log of the record's backend job. Later lines come from another backend job."""
        name = _name(record)
        with self._locks[name]:
            self.collect(record)
            self.store.append(self.store.job(name), [], {}, stage=_CREATED)
            if record.handle is not None:
                self._finished.add(record.handle.name)

    def write(self, record: Record, text: str, severity: int = _INFO) -> None:
        """Store a message of the service."""
        name = _name(record)
        with self._locks[name]:
            stored = self.store.find(name) or self._create(record, name)
            self.store.append(stored, [_service_line(text, severity)], stored.cursor)

    def _create(self, record: Record, name: str) -> JobLog:
        stored = self.store.job(name)
        former = self._folder / f"{file_name(record.key)}.jsonl"
        if former.exists():
            self._import(record, stored, former)
        return stored

    def _announce(self, record: Record, stored: JobLog) -> None:
        """Store the service's messages up to the state of the job."""
        state = JobState.PREPARING if record.stuck and not record.state.terminal else record.state
        # During and after a cancellation, only the start time shows which stage the job reached.
        reached = _STAGES.get(state, _CREATED if record.started is None else _RUNNING)
        if reached <= stored.stage:
            return
        messages = _VERTEX_MESSAGES if record.api == VERTEX else _MLENGINE_MESSAGES
        texts = list(record.notes) if stored.stage == 0 else []
        for stage in range(stored.stage + 1, reached + 1):
            texts += [text.format(id=record.id) for text in messages.get(stage, ())]
        self.store.append(stored, [_service_line(text) for text in texts], stored.cursor, stage=reached)

    def _announce_end(self, record: Record, stored: JobLog) -> None:
        """Store the service's last messages, unless they have been stored."""
        if not record.state.terminal or stored.stage == _ENDED:
            return
        lines = []
        if record.error is not None and record.state is JobState.FAILED:
            lines.append(_service_line(str(record.error["message"]), _ERROR))
        if record.started is not None:
            lines.append(_service_line("Finished tearing down training program."))
        if record.state in _LAST_MESSAGES:
            lines.append(_service_line(_LAST_MESSAGES[record.state]))
        self.store.append(stored, lines, stored.cursor, stage=_ENDED)

    def _import(self, record: Record, stored: JobLog, path: Path) -> None:
        """Move the lines from an earlier version's file to the store, with their times and ids."""
        rows: list[tuple[int, int, str, str]] = []
        cursor: dict[str, Any] = {}
        try:
            for batch in _batches(path):
                cursor = batch["cursor"]
                rows += [_former_row(entry) for entry in batch["entries"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EmulatorError) as error:
            raise EmulatorError(
                f"cannot read the log file {path}: {error!r}",
                hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
            ) from error
        self.store.restore(stored, rows, cursor, stage=_ENDED if record.state.terminal else _RUNNING)
        path.unlink()
        log.info("job %s: moved %d log lines from %s to the log store", record.id, len(rows), path.name)


def _name(record: Record) -> str:
    return json.dumps(record.key)


def _lines(record: Record, lines: Sequence[LogLine]) -> list[Lines]:
    return [
        Lines(_ERROR if stderr else _INFO, _task(record.api, replica), [_storable(line.text) for line in run])
        for (replica, stderr), run in groupby(lines, key=attrgetter("replica", "stderr"))
    ]


@cache
def _task(api: str, replica: str) -> str:
    """The service's name for a replica."""
    role, _, index = replica.rpartition("-")
    tasks = POOL_NAMES if api == VERTEX else _ML_TASKS
    return f"{tasks[Role(role)]}-{index}" if role in set(Role) and Role(role) in tasks else SERVICE


def _service_line(text: str, severity: int = _INFO) -> Lines:
    return Lines(severity, SERVICE, [_storable(text)])


def _storable(text: str) -> str:
    """``text`` without lone surrogates, which are valid in JSON but not in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _batches(path: Path) -> list[dict[str, Any]]:
    texts = path.read_text("utf-8").split("\n")
    # A process that was killed while writing has left an incomplete last line, which is read from the backend again.
    return [json.loads(text) for text in texts[:-1] if text]


def _former_row(entry: Mapping[str, Any]) -> tuple[int, int, str, str]:
    moment, severity = fields.nanoseconds(entry["timestamp"]) // 1000, fields.severity(entry["severity"])
    return moment, severity, entry["resource"]["labels"]["task_name"], _storable(entry["jsonPayload"]["message"])
