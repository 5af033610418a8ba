"""Backends whose submitted jobs a test can count and end: in memory, Vertex AI's with the emulator, and Ray's.

The contract tests run on all: each is a :class:`TrainingBackend`, and has the additional methods by which
:class:`MemoryBackend` lets a test act as the cloud.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlengine.backends import LogPage, Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.client import RestClient
from mlengine.backends.vertex.location import anonymous_credentials
from mlengine.core.job import FailureCause, JobHandle, JobState, JobStatus
from mlengine.core.spec import TrainingSpec
from mlengine.emulator.records import Record
from mlengine.emulator.vertex_api import job_name
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend, MemoryJob
from mlengine.testing.emulator import RunningEmulator, running
from tests.support.scripted_ray import RayOverMemory

_LONG_AGO = 3600.0  # longer than every delay before another attempt


def impatient() -> RestClient:
    """A client that does not retry, so that a failure is raised immediately."""
    return RestClient(
        anonymous_credentials(), deadline=0, quota_patience=0, sleep=lambda _: time.sleep(0.001), timeout=(5.0, 10.0)
    )


class EmulatedJob:
    """A job of the emulator, with the name, key and attempt that Vertex AI's client uses."""

    def __init__(self, service: RunningEmulator, record: Record, job: MemoryJob) -> None:
        self._service, self._record, self._job = service, record, job
        labels = record.labels
        name = job_name(record)
        attempt = int(labels["mlengine-attempt"])
        self.handle = replace(
            job.handle, backend="vertex", name=name, job_id=record.body["displayName"], attempt=attempt
        )
        self.submission = replace(job.submission, key=labels["mlengine-key"][1:], attempt=attempt)

    @property
    def state(self) -> JobState:
        return self._job.state

    @state.setter
    def state(self, state: JobState) -> None:
        self._job.state = state

    @property
    def ended(self) -> float | None:
        return self._job.ended

    @ended.setter
    def ended(self, moment: float) -> None:
        self._job.ended = moment
        engine = self._service.server.engine
        (record,) = engine.refresh([self._record])
        engine.store.put(replace(record, ended=moment))


class VertexOverMemory:
    """The vertex backend on the emulator with jobs in memory, with the additional methods of :class:`MemoryBackend`."""

    name = "vertex"
    logs_at_once = 150

    def __init__(self, service: RunningEmulator, memory: MemoryBackend) -> None:
        self._service, self._memory = service, memory
        self._vertex = VertexBackend(**service.settings, client=impatient())
        self._lose = 0
        self._before = {record.key for record in service.server.engine.store.all()}

    # The methods of the backend.

    def submit(self, submission: Submission) -> JobHandle:
        if self._lose:
            self._lose -= 1
            self._service.script("CreateCustomJob", "lose")
            # The client then searches for the job it may have created; that request must fail as well.
            self._service.script("ListCustomJobs", "status", skip=1)
        return self._vertex.submit(submission)

    def find(self, key: str) -> list[JobHandle]:
        return self._vertex.find(key)

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        return self._vertex.describe(handles)

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:
        return self._vertex.logs(handle, cursor, limit)

    def logs_many(self, wanted: Sequence[tuple[JobHandle, Mapping[str, Any]]], limit: int = 1000) -> list[LogPage]:
        return self._vertex.logs_many(wanted, limit)

    def learn_region(self, spec: TrainingSpec) -> None:
        self._vertex.learn_region(spec)

    def max_wait_seconds(self, spec: TrainingSpec, fallback: Mapping[str, Any] | None = None) -> float | None:
        return self._vertex.max_wait_seconds(spec, fallback)

    def cancel(self, handle: JobHandle) -> None:
        self._vertex.cancel(handle)

    def console_url(self, handle: JobHandle) -> str | None:
        return self._vertex.console_url(handle)

    # The methods with which a test observes and controls jobs.

    def another(self) -> VertexOverMemory:
        """A backend on the same emulator that does not list the existing jobs."""
        return VertexOverMemory(self._service, self._memory)

    @property
    def jobs(self) -> list[EmulatedJob]:
        """The jobs that were submitted with this backend, oldest first."""
        engine = self._service.server.engine
        records = [record for record in engine.refresh(engine.store.all()) if record.key not in self._before]
        by_name = {job.handle.name: job for job in self._memory.jobs}
        pairs = [(record, by_name[record.handle.name]) for record in records if record.handle is not None]
        return [
            EmulatedJob(self._service, record, job) for record, job in sorted(pairs, key=lambda pair: pair[0].created)
        ]

    @property
    def live(self) -> list[EmulatedJob]:
        return [job for job in self.jobs if not job.state.terminal]

    def end(self, name: str, state: JobState, cause: FailureCause | None = None) -> None:
        for record in self._service.server.engine.store.all():
            if record.handle is not None and name.endswith(f"/{record.id}"):
                self._memory.end(record.handle.name, state, cause)
                for job in self._memory.jobs:
                    if job.handle.name == record.handle.name:
                        job.ended = time.time() - _LONG_AGO

    @property
    def refuse(self) -> int:
        return len(self._service.server.script.unused())

    @refuse.setter
    def refuse(self, calls: int) -> None:
        """Answer the next ``calls`` calls with an error; 0 stops that."""
        self._service.server.script.clear()
        if calls:
            self._service.script("*", "status", times=calls)

    @property
    def lose_answers(self) -> int:
        """The number of next submissions that take effect and then raise."""
        return self._lose

    @lose_answers.setter
    def lose_answers(self, calls: int) -> None:
        self._lose = calls


ScriptedBackend = MemoryBackend | VertexOverMemory | RayOverMemory


def fresh(scripted_backend: ScriptedBackend) -> ScriptedBackend:
    """A new backend of the same kind that knows no jobs."""
    return MemoryBackend() if isinstance(scripted_backend, MemoryBackend) else scripted_backend.another()


@contextmanager
def vertex_over_memory(state_dir: Path, storage: Storage) -> Iterator[VertexOverMemory]:
    """An emulator with its own state directory, and the vertex backend on it."""
    memory = MemoryBackend()
    with running(state_dir, backend=memory, storage=storage) as service:
        yield VertexOverMemory(service, memory)
        service.server.script.clear()
