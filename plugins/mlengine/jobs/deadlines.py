"""The time limits of a wait as points in time, and the pause before the next attempt."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

from mlengine.backends import LeavesWaitLimit, TrainingBackend
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.spec import TrainingSpec

MAX_WAIT, QUEUED_TIMEOUT = "max_wait_seconds", "queued_timeout_seconds"
# The limits that apply until a job's first start.
BEFORE_START = frozenset({MAX_WAIT, QUEUED_TIMEOUT})
LONGEST_BACKOFF = 3600.0  # seconds
_WAITING = frozenset({JobState.QUEUED, JobState.PREPARING})


@dataclass(frozen=True)
class Deadlines:
    """The times at which a wait must end its job, in seconds since the epoch; infinity means never.

    They are passed to the trigger, because Airflow enforces no time limits in a triggerer, or while a DAG is paused.

    A job that waits for machines is QUEUED or PREPARING, depending on the service. After its first start, the limits of
    the wait no longer apply, even if the service restarts the job and it waits again.

    :param queued_until: a job that has not started by this time is cancelled.
    :param running_until: a job in any state is cancelled at this time.
    :param execution_until: like ``running_until``, from the task's ``execution_timeout``.
    :param wait_until: like ``running_until``, from the sensor's ``timeout``.
    :param max_wait_until: like ``queued_until``, from the job's own ``max_wait_seconds``.
    :param running_seconds: a job is cancelled this long after its first start. It replaces ``running_until`` if the job
        may wait without a limit.
    """

    queued_until: float = math.inf
    running_until: float = math.inf
    execution_until: float = math.inf
    wait_until: float = math.inf
    max_wait_until: float = math.inf
    running_seconds: float = math.inf

    @classmethod
    def starting(
        cls, since: float, queued_seconds: float, running_seconds: float, max_wait_seconds: float = math.inf
    ) -> Self:
        """The limits of an attempt that was submitted at ``since``, in seconds since the epoch."""
        waiting = min(queued_seconds, max_wait_seconds)
        return cls(
            queued_until=since + queued_seconds,
            running_until=since + waiting + running_seconds,
            max_wait_until=since + max_wait_seconds,
            running_seconds=running_seconds if waiting == math.inf else math.inf,
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read deadlines from JSON. A field that is missing or ``None`` means no limit."""
        given = {name: data.get(name) for name in cls.__dataclass_fields__}
        return cls(**{name: float(until) for name, until in given.items() if until is not None})

    def to_json(self) -> dict[str, float | None]:
        """The deadlines as JSON, with ``None`` for infinity, which JSON cannot represent."""
        return {name: until if math.isfinite(until) else None for name, until in asdict(self).items()}

    @property
    def limited(self) -> bool:
        """Whether a limit prevents a started job from running forever."""
        return min(self.running_until, self.execution_until, self.wait_until, self.running_seconds) < math.inf

    def seconds_left(self, status: JobStatus) -> float | None:
        """The seconds until the job's first deadline; ``None`` if it has none, or has ended."""
        left = min(self._limits(status).values(), default=math.inf) - time.time()
        return None if left == math.inf else max(left, 0.0)

    def exceeded(self, status: JobStatus) -> str | None:
        """The name of a limit that the job exceeds now; ``None`` if there is none, or if the job has ended."""
        now = time.time()
        return next((name for name, until in self._limits(status).items() if now >= until), None)

    def _limits(self, status: JobStatus) -> dict[str, float]:
        if status.has_ended:
            return {}
        waiting = _waits_for_machines(status)
        running = math.inf if status.started is None else status.started + self.running_seconds
        return {
            MAX_WAIT: self.max_wait_until if waiting else math.inf,
            QUEUED_TIMEOUT: self.queued_until if waiting else math.inf,
            "running_timeout_seconds": min(self.running_until, running),
            "execution_timeout": self.execution_until,
            "timeout": self.wait_until,
        }


def max_wait_seconds(backend: TrainingBackend, record: JobRecord) -> float | None:
    """How long the current attempt may wait for machines, if the backend does not enforce that itself.

    Returns ``None`` if no limit is set.
    """
    if not isinstance(backend, LeavesWaitLimit):
        return None
    return backend.max_wait_seconds(TrainingSpec.from_json(record.spec), record.fallback)


def waits_too_long(status: JobStatus, most: float | None) -> bool:
    """Whether a job has waited for machines for ``most`` seconds since its creation and has never run."""
    if most is None or status.created is None:
        return False
    return _waits_for_machines(status) and time.time() - status.created >= most


def _waits_for_machines(status: JobStatus) -> bool:
    return status.state in _WAITING and status.started is None


def backoff(attempt: int, first: float) -> float:
    """The seconds between the end of ``attempt`` and the next attempt, doubled each time, up to an hour."""
    return min(first * 2.0 ** min(attempt - 1, 30), LONGEST_BACKOFF)
