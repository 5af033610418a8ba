"""A training backend in memory, for tests of DAGs and of this project's own rules.

It behaves like the worst real service: ``submit`` is not idempotent, a response can be lost after its request took
effect, a list can lag behind, a call can fail. Jobs change their state only when the test requests it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlengine.backends import LogPage, Submission
from mlengine.core.errors import BackendUnavailableError
from mlengine.core.job import Failure, FailureCause, JobHandle, JobState, JobStatus


@dataclass
class MemoryJob:
    """One submitted job."""

    submission: Submission
    handle: JobHandle
    state: JobState = JobState.QUEUED
    failure: Failure | None = None
    listed: bool = True
    created: float | None = None
    started: float | None = None  # set by the first poll that finds the job running
    ended: float | None = None


@dataclass
class MemoryBackend:
    """A :class:`~mlengine.backends.TrainingBackend` without a service.

    :param lose_answers: the number of next submissions that take effect and then raise an error.
    :param refuse: the number of next calls of any method that raise an error before they take effect.
    :param lag: whether :meth:`find` does not return new jobs until :meth:`catch_up`.
    """

    name: str = "memory"
    jobs: list[MemoryJob] = field(default_factory=list)
    lose_answers: int = 0
    refuse: int = 0
    lag: bool = False
    calls: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def submit(self, submission: Submission) -> JobHandle:
        self._called("submit")
        handle = JobHandle(
            self.name, f"job-{next(self._numbers)}", submission.job_id, submission.attempt, submission.job_dir
        )
        self.jobs.append(MemoryJob(submission, handle, listed=not self.lag))
        if self.lose_answers:
            self.lose_answers -= 1
            raise BackendUnavailableError("the answer to the submission was lost")
        return handle

    def find(self, key: str) -> list[JobHandle]:
        self._called("find")
        return [job.handle for job in self.jobs if job.submission.key == key and job.listed]

    def describe(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        self._called("describe")
        return [self._status(handle) for handle in handles]

    def logs(self, handle: JobHandle, cursor: Mapping[str, Any], limit: int = 1000) -> LogPage:  # noqa: ARG002
        self._called("logs")
        return LogPage((), cursor)

    def cancel(self, handle: JobHandle) -> None:
        self._called("cancel")
        for job in self.jobs:
            if job.handle.name == handle.name and not job.state.terminal:
                job.state = JobState.CANCELLED
                job.failure = Failure(FailureCause.CANCELLED, "cancelled")

    def console_url(self, handle: JobHandle) -> str | None:  # noqa: ARG002
        return None

    @property
    def live(self) -> list[MemoryJob]:
        """The jobs that have not ended."""
        return [job for job in self.jobs if not job.state.terminal]

    def end(self, name: str, state: JobState, cause: FailureCause | None = None) -> None:
        """End a job in the given state."""
        for job in self.jobs:
            if job.handle.name == name:
                job.state = state
                job.failure = Failure(cause, f"ended by {cause.value}") if cause else None

    def catch_up(self) -> None:
        """From now on, :meth:`find` returns the jobs that were created so far."""
        for job in self.jobs:
            job.listed = True

    def _called(self, verb: str) -> None:
        self.calls.append(verb)
        if self.refuse:
            self.refuse -= 1
            raise BackendUnavailableError(f"{verb}: come back later")

    def _status(self, handle: JobHandle) -> JobStatus:
        for job in self.jobs:
            if job.handle.name == handle.name:
                if job.state is JobState.RUNNING and job.started is None:
                    job.started = time.time()
                return JobStatus(
                    replace(job.handle),
                    job.state,
                    failure=job.failure,
                    created=job.created,
                    started=job.started,
                    ended=job.ended,
                )
        return JobStatus(handle, JobState.FAILED, failure=Failure(FailureCause.LOST, "the backend knows no such job"))
