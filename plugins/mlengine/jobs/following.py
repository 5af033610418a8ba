"""Follows the state and the log of one job for a user at a terminal, each at its own pace.

The state is read every second. The log is read as often as the backend allows. A log read that waits for a quota, or
that fails for some time, does not delay the state. While the job writes nothing, the log is read less and less often if
the service limits such reads. After the job's end, the rest of the log is read, however long that takes.

While the state cannot be read, the last known state is used. Like a log read, reading the state is retried after pauses
that double.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.backends import LimitsLogReads, LogPage, TrainingBackend
from mlengine.core.errors import UNAVAILABLE, BackendUnavailableError
from mlengine.core.job import JobHandle, JobState, JobStatus

POLL_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0
LONGEST_SEARCH_PAUSE_SECONDS = 5.0
# How long reading the log is retried while it fails and there is nothing else to wait for.
PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class Followed:
    """New information about a job. ``final`` means that the job has ended and its log was read to the end."""

    status: JobStatus
    page: LogPage
    final: bool = False


class LogFollower:
    """Follows one attempt of a job.

    :param cursor: the position up to which the log was read before.
    :param note: receives a message if the log or the state is temporarily unreadable.
    """

    def __init__(
        self, backend: TrainingBackend, handle: JobHandle, cursor: Mapping[str, Any], note: Callable[[str], None]
    ) -> None:
        self._backend, self._handle, self._cursor = backend, handle, cursor
        self._note = note
        self._due = 0.0  # the time of the next log read
        self._pause = 0.0
        self._failures = 0
        self._status = JobStatus(handle, JobState.UNKNOWN)
        self._status_due = -math.inf
        self._status_failures = 0
        self._waits = 0  # consecutive reads that found nothing and did not reach the end of the log
        self._progress_at = time.monotonic()

    def follow(self, *, to_end_of_job: bool = True) -> Iterator[Followed]:
        """Yield new states and lines until there are no more.

        :param to_end_of_job: ``False`` stops at the current end of the log.
        :raises BackendUnavailableError, StorageUnavailableError: the log could not be read for
            :data:`PATIENCE_SECONDS`, and there is nothing else to wait for. Without ``to_end_of_job``, also if the
            state cannot be read.
        """
        seen_end = more = False
        while True:
            status = self._read_status(more=more, patient=to_end_of_job)
            ended = status.state.terminal
            if ended and not seen_end:
                seen_end, self._progress_at = True, time.monotonic()
                if not self._failures:
                    self._due = min(self._due, self._progress_at)
            page = self._page(patient=not ended and to_end_of_job)
            more = page.more
            final = page.complete and (ended or not to_end_of_job)
            yield Followed(status, page, final)
            if final:
                return
            if not more:
                left = self._due - time.monotonic()
                # If there is only the log to wait for, the state need not be read again.
                time.sleep(max(0.0, left if ended or not to_end_of_job else min(left, POLL_SECONDS)))

    def _read_status(self, *, more: bool, patient: bool) -> JobStatus:
        """The job's status, or the last known one if it cannot be read, or if the job has ended.

        :param more: whether more lines can be read immediately. The state is not read more often because of that.
        """
        now = time.monotonic()
        too_early = now < self._status_due and (more or self._status_failures > 0)
        if too_early or self._status.state.terminal:
            return self._status
        try:
            self._status = self._backend.describe([self._handle])[0]
        except UNAVAILABLE as error:
            if not patient:
                raise
            self._status_failures += 1
            if self._status_failures == 1:
                self._note(f"could not read the state; retrying: {error.message}")
            self._status_due = time.monotonic() + retry_pause(self._status_failures)
        else:
            self._status_failures, self._status_due = 0, time.monotonic() + POLL_SECONDS
        return self._status

    def _page(self, *, patient: bool) -> LogPage:
        """Read new lines if it is time to read them."""
        now = time.monotonic()
        if now < self._due:
            return LogPage((), self._cursor, wait=self._due - now)
        out_of_patience = not patient and now - self._progress_at > PATIENCE_SECONDS
        try:
            page = self._backend.logs(self._handle, self._cursor)
        except UNAVAILABLE as error:
            if out_of_patience:
                raise
            self._failures += 1
            if self._failures == 1:
                self._note(f"could not read the log; retrying: {error.message}")
            wait = retry_pause(self._failures)
            self._due = time.monotonic() + wait
            return LogPage((), self._cursor, wait=wait)
        if page.wait is not None and out_of_patience:
            raise BackendUnavailableError(
                f"could not read the log of job {self._handle.job_id} for {PATIENCE_SECONDS:.0f} s",
                hint="try again later; other readers may be using up this project's quota",
            )
        self._failures, self._cursor, now = 0, page.cursor, time.monotonic()
        if page.wait is None:
            self._waits, self._progress_at = 0, now
            self._due = now + self._next_pause(page)
        else:
            # A search that takes many calls is not sped up, even if the quota allows more calls.
            self._waits += 1
            self._due = now + max(page.wait, min(0.1 * (self._waits - 1), LONGEST_SEARCH_PAUSE_SECONDS))
        return page

    def _next_pause(self, page: LogPage) -> float:
        """The seconds until the next read of the log."""
        if page.more:
            return 0.0
        if page.lines or not isinstance(self._backend, LimitsLogReads):
            self._pause = POLL_SECONDS
        else:
            self._pause = min(max(2 * self._pause, POLL_SECONDS), self._backend.quiet_log_seconds)
        return self._pause


def retry_pause(failures: int) -> float:
    """The seconds until the next call, after a number of consecutive failures."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
