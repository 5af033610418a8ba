"""The limits of a wait as points in time, and the pause before another attempt."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

from mlengine.core.job import JobState


@dataclass(frozen=True)
class Deadlines:
    """When a wait has to end its job, in seconds since the epoch; infinity for never.

    They travel with the deferred wait: Airflow itself enforces no limit in a triggerer, and none while a DAG is paused.

    :param queued_until: a job still QUEUED then is cancelled.
    :param running_until: a job in any state is cancelled then.
    :param execution_until: likewise, by the task's ``execution_timeout``.
    :param wait_until: likewise, by the sensor's ``timeout``.
    """

    queued_until: float = math.inf
    running_until: float = math.inf
    execution_until: float = math.inf
    wait_until: float = math.inf

    @classmethod
    def starting(cls, since: float, queued_seconds: float, running_seconds: float) -> Self:
        """The limits of an attempt that was submitted at ``since``, in seconds since the epoch."""
        return cls(since + queued_seconds, since + queued_seconds + running_seconds)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Fields that are missing or ``None`` mean no limit."""
        given = {name: data.get(name) for name in cls.__dataclass_fields__}
        return cls(**{name: float(until) for name, until in given.items() if until is not None})

    def to_json(self) -> dict[str, float | None]:
        """``None`` for infinity, which JSON has no number for."""
        return {name: until if math.isfinite(until) else None for name, until in asdict(self).items()}

    def seconds_left(self, state: JobState = JobState.UNKNOWN) -> float | None:
        """How long the whole wait, or the wait in ``state``, may still take; ``None`` for no limit."""
        limits = [self.running_until, self.execution_until, self.wait_until]
        if state is JobState.QUEUED:
            limits.append(self.queued_until)
        left = min(limits) - time.time()
        return None if left == math.inf else max(left, 0.0)

    def exceeded(self, state: JobState) -> str | None:
        """The name of a limit that a job in ``state`` exceeds now; ``None`` if there is none."""
        limits = {
            "queued_timeout_seconds": self.queued_until if state is JobState.QUEUED else math.inf,
            "running_timeout_seconds": self.running_until,
            "execution_timeout": self.execution_until,
            "timeout": self.wait_until,
        }
        now = time.time()
        return next((name for name, until in limits.items() if now >= until), None)


def backoff(attempt: int, first: float) -> float:
    """Seconds between the end of ``attempt`` and the next: twice as long each time, an hour at most."""
    return min(first * 2.0 ** (attempt - 1), 3600.0)
