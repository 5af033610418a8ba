"""The result of a job, as the launcher decides it."""

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
        """A failure that no replica caused."""
        return cls.failed(Failure(cause, message))

    @classmethod
    def cancelled(cls) -> Self:
        return cls(JobState.CANCELLED, "cancelled", Failure(FailureCause.CANCELLED, "the job was cancelled"))
