"""Calls for many jobs of which one may be at fault: a corrupt file, a malformed cursor, a missing permission.

Such a job fails the call for all of them. Repeating the call for ever smaller parts finds it. Errors of the service,
which concern all jobs, must not cost a call for each: they are recognized by their type, or because none of the first
:data:`MAX_FAILED` parts succeeds.
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
    """What ``call`` returns for each job; the error in place of the result for those that fail by themselves.

    :raises Exception: that of the call for all jobs, if several fail and none succeeds; any error that concerns the
        service.
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
    """:raises BackendError: there is not one result for each job."""
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
        """Call until there is a result or an error of each job, or too many have failed and none has succeeded."""
        self._split(range(len(self._jobs)))

    def _split(self, numbers: range) -> None:
        # Every other one: the jobs at fault may be next to each other, and are not found first.
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
    """When something that failed is tried again: after a pause that doubles up to a minute."""

    failures: int = 0
    at: float = -math.inf

    def failed(self, interval: float) -> None:
        """:param interval: seconds between two calls of something that does not fail."""
        self.failures = min(self.failures + 1, 6)
        pause = min(interval * 2.0**self.failures, max(LONGEST_PAUSE_SECONDS, interval))
        self.at = time.monotonic() + pause

    def succeeded(self) -> None:
        self.failures, self.at = 0, -math.inf

    @property
    def due(self) -> bool:
        """Whether it has not failed, or the pause is over."""
        return time.monotonic() >= self.at

    @property
    def seconds_left(self) -> float:
        """Seconds until it is tried again."""
        return max(0.0, self.at - time.monotonic())
