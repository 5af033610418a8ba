"""The outcome of a job, which the launcher determines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from mlengine.core.job import Failure, FailureCause, JobState


@dataclass(frozen=True)
class Outcome:
    """A terminal state, a message, and the failure if the job failed."""

    state: JobState
    detail: str
    failure: Failure | None = None

    @classmethod
    def failed(cls, failure: Failure) -> Self:
        return cls(JobState.FAILED, failure.message, failure)

    @classmethod
    def because(cls, cause: FailureCause, message: str) -> Self:
        """The outcome of a job that failed for a cause other than a replica."""
        return cls.failed(Failure(cause, message))

    @classmethod
    def cancelled(cls) -> Self:
        return cls(JobState.CANCELLED, "cancelled", Failure(FailureCause.CANCELLED, "the job was cancelled"))
