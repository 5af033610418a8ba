"""Finds the jobs that make a call for many jobs fail.

Such a job may have a corrupt file, a malformed cursor or a missing permission. It is found by repeating the call for
smaller and smaller parts. Errors of the service, which concern all jobs, must not cost one call per job. They are
recognized by their type, or because none of the first :data:`MAX_FAILED` parts succeeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlengine.core.errors import BackendError

LONGEST_PAUSE_SECONDS = 60.0
MAX_FAILED = 4  # single jobs


Job = TypeVar("Job")
Result = TypeVar("Result")


def call_for_each(call: Callable[[Sequence[Job]], Sequence[Result]], jobs: Sequence[Job]) -> list[Result | Exception]:
    """The result of ``call`` for each job, or the error for each job that fails by itself.

    :raises Exception: the error of the call for all jobs, if several fail and none succeeds; or any error that concerns
        the service.
    """
    try:
        return _complete(call, jobs)
    except Exception as error:
        if is_outage(error):
            raise
        if len(jobs) == 1:
            return [error]
        search = _Search(call, jobs)
        search.run()
        if not search.any_succeeded:
            raise
        return [search.found[number] for number in range(len(jobs))]


def _complete(call: Callable[[Sequence[Job]], Sequence[Result]], jobs: Sequence[Job]) -> list[Result | Exception]:
    """Make the call and check that its result is complete.

    :raises BackendError: there is not one result for each job.
    """
    found = call(jobs)
    if len(found) != len(jobs):
        raise BackendError(
            f"the backend returned {len(found)} results for {len(jobs)} jobs",
            hint="report this to the author of the backend",
        )
    return list(found)


def is_outage(error: Exception) -> bool:
    """Whether the error concerns the service, and a retry may succeed."""
    return getattr(error, "retryable", isinstance(error, ConnectionError | TimeoutError))


class _Search(Generic[Job, Result]):
    def __init__(self, call: Callable[[Sequence[Job]], Sequence[Result]], jobs: Sequence[Job]) -> None:
        self._call, self._jobs = call, jobs
        self.found: dict[int, Result | Exception] = {}
        self._failed = 0

    @property
    def any_succeeded(self) -> bool:
        return len(self.found) > self._failed

    def run(self) -> None:
        """Call until each job has a result or an error, or until too many jobs have failed and none has succeeded."""
        self._split(range(len(self._jobs)))

    def _split(self, numbers: range) -> None:
        # Every other job, so that faulty jobs that are next to each other are not all found first.
        for part in (numbers[::2], numbers[1::2]):
            if self._failed < MAX_FAILED or self.any_succeeded:
                self._try(part)

    def _try(self, numbers: range) -> None:
        try:
            self.found.update(
                zip(numbers, _complete(self._call, [self._jobs[number] for number in numbers]), strict=True)
            )
        except Exception as error:
            if is_outage(error):
                raise
            if len(numbers) > 1:
                self._split(numbers)
            else:
                self.found[numbers[0]] = error
                self._failed += 1


@dataclass
class Retry:
    """The time of the next retry of a failed action, after a pause that doubles up to a minute."""

    failures: int = 0
    at: float = -math.inf

    def failed(self, interval: float) -> None:
        """Record a failure, and set the time of the next try.

        :param interval: the seconds between two calls of an action that does not fail.
        """
        self.failures = min(self.failures + 1, 6)
        pause = min(interval * 2.0**self.failures, max(LONGEST_PAUSE_SECONDS, interval))
        self.at = time.monotonic() + pause

    def succeeded(self) -> None:
        self.failures, self.at = 0, -math.inf

    @property
    def due(self) -> bool:
        """Whether the action has not failed, or the pause is over."""
        return time.monotonic() >= self.at

    @property
    def seconds_left(self) -> float:
        """The seconds until the action is tried again."""
        return max(0.0, self.at - time.monotonic())
