"""Conditions that end a job early: a cancellation, a deadline, the loss of its files, or a signal to its launcher."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlengine.backends.local.outcome import Outcome
from mlengine.backends.local.record import Job
from mlengine.backends.local.waker import Waker
from mlengine.core.job import FailureCause
from mlengine.core.spec import TrainingSpec


class StopConditions:
    """The stop conditions of one job, which the launcher checks whenever it waits.

    :param on_cancel: called once, when a cancellation is first seen.
    """

    def __init__(self, job: Job, spec: TrainingSpec, waker: Waker, on_cancel: Callable[[], None]) -> None:
        self._job = job
        self._spec = spec
        self._waker = waker
        self._on_cancel = on_cancel
        self._cancelled = False
        self._queued_at = time.monotonic()
        self._training_at: float | None = None

    def training_begins(self) -> None:
        """From now on, apply the limit ``max_running_seconds`` instead of ``max_wait_seconds``."""
        self._training_at = time.monotonic()

    def check(self) -> Outcome | None:
        """The outcome of a job that must end now; ``None`` if the job may continue."""
        if self._cancelled or self._job.cancel_file.exists():
            if not self._cancelled:
                self._cancelled = True
                self._on_cancel()
            return Outcome.cancelled()
        if not self._job.submission_file.exists():
            # Other processes consider the job lost, and continue with another attempt.
            return Outcome.because(FailureCause.LOST, f"the job's directory {self._job.root} was deleted")
        if self._waker.stopped:
            return Outcome.because(FailureCause.PREEMPTED, f"the launcher was stopped ({self._waker.stopped})")
        return self._late()

    def _late(self) -> Outcome | None:
        if self._training_at is None:
            most, since, what = self._spec.max_wait_seconds, self._queued_at, "waited"
        else:
            most, since, what = self._spec.max_running_seconds, self._training_at, "run"
        if most is None or time.monotonic() - since < most:
            return None
        return Outcome.because(FailureCause.DEADLINE, f"the job has {what} for more than {most} s")
