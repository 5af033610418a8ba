"""Follows one job for a reader at a terminal: its state and its log, each at its own pace.

The state is read every second. The log is read as often as the backend allows: a read that has to wait for a quota, or
fails for a while, holds no state back. While the job writes nothing, the log is read less and less often where the
service limits such reads. After the job's end, the rest of the log is read, however long that takes.

A state that cannot be read for a while is the last one; it is retried after pauses that double, like a log.
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
# How long a log that cannot be read at all is retried, once there is nothing else to wait for.
PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class Followed:
    """What is new. ``final``: the job has ended, and its log was read to the end."""

    status: JobStatus
    page: LogPage
    final: bool = False


class LogFollower:
    """Follows one attempt of a job.

    :param cursor: where the log was read to before.
    :param note: gets a message when the log or the state cannot be read for a while.
    """

    def __init__(
        self, backend: TrainingBackend, handle: JobHandle, cursor: Mapping[str, Any], note: Callable[[str], None]
    ) -> None:
        self._backend, self._handle, self._cursor = backend, handle, cursor
        self._note = note
        self._due = 0.0  # when the log is read again
        self._pause = 0.0
        self._failures = 0
        self._status = JobStatus(handle, JobState.UNKNOWN)
        self._status_due = -math.inf
        self._status_failures = 0
        self._waits = 0  # reads in a row that did not reach the end of the log and found nothing
        self._progress_at = time.monotonic()

    def follow(self, *, to_end_of_job: bool = True) -> Iterator[Followed]:
        """Yield what is new until there is nothing more.

        :param to_end_of_job: ``False`` ends at the present end of the log.
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
                # With nothing but the log to wait for, the state need not be asked for again.
                time.sleep(max(0.0, left if ended or not to_end_of_job else min(left, POLL_SECONDS)))

    def _read_status(self, *, more: bool, patient: bool) -> JobStatus:
        """The job's status; the last one while it cannot be read, or has ended.

        :param more: lines can be read at once: the state is not read more often because of that.
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
                self._note(f"the state cannot be read now; retrying: {error.message}")
            self._status_due = time.monotonic() + retry_pause(self._status_failures)
        else:
            self._status_failures, self._status_due = 0, time.monotonic() + POLL_SECONDS
        return self._status

    def _page(self, *, patient: bool) -> LogPage:
        """New lines if it is time to read them."""
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
                self._note(f"the log cannot be read now; retrying: {error.message}")
            wait = retry_pause(self._failures)
            self._due = time.monotonic() + wait
            return LogPage((), self._cursor, wait=wait)
        if page.wait is not None and out_of_patience:
            raise BackendUnavailableError(
                f"job {self._handle.job_id}: its log could not be read for {PATIENCE_SECONDS:.0f} s",
                hint="try again later; other readers use the quota of this project",
            )
        self._failures, self._cursor, now = 0, page.cursor, time.monotonic()
        if page.wait is None:
            self._waits, self._progress_at = 0, now
            self._due = now + self._next_pause(page)
        else:
            # A search that takes many calls is not hurried, whatever the quota allows.
            self._waits += 1
            self._due = now + max(page.wait, min(0.1 * (self._waits - 1), LONGEST_SEARCH_PAUSE_SECONDS))
        return page

    def _next_pause(self, page: LogPage) -> float:
        """Seconds until the next read."""
        if page.more:
            return 0.0
        if page.lines or not isinstance(self._backend, LimitsLogReads):
            self._pause = POLL_SECONDS
        else:
            self._pause = min(max(2 * self._pause, POLL_SECONDS), self._backend.quiet_log_seconds)
        return self._pause


def retry_pause(failures: int) -> float:
    """Seconds until the next call after so many failures in a row."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
