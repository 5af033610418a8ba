"""Forwards a job's log lines, state changes and progress from a deferred wait to the task's log.

New lines and state changes are logged immediately. Two actions cost calls to the bucket for each job: reading
``progress.json`` and saving ``logs/cursor.json``. They are spread over time and limited, so that a thousand waits of
one poller make about twenty calls of each kind per second. With many waits, the progress of a job that neither logs nor
progresses is read less often, and that of a job that waits for machines is not read at all. A bucket that hangs delays
news and deadlines by at most a few seconds.

A triggerer that shuts down cleanly saves the cursor first, so that no line is lost or repeated. A triggerer that is
killed does not write the lines that its other process has not read yet (:mod:`mlengine.jobs.log_channel`). Therefore,
during the wait, the cursor is only moved past lines that were read, and that were logged at least
:data:`FLUSH_SECONDS` ago. So the next wait logs the missing lines, and repeats recent ones after a message that
announces this. The same happens if the last lines of a wait are not read in time.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mlengine.core.errors import MlengineError, StorageError, StorageUnavailableError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.layout import JobDir
from mlengine.jobs.log_channel import LogChannel, PacedLog
from mlengine.jobs.progress import LogCursor, LogFormatter, Progress, log_line, read_progress, write_cursor
from mlengine.jobs.threads import BUCKET
from mlengine.jobs.throttled_warning import ThrottledWarning
from mlengine.jobs.watch import PollResult
from mlengine.storage.client import Storage

# The longest time that Airflow may take to write a line that it has read.
FLUSH_SECONDS = 15.0
# The pause before another check if Airflow has not read the lines.
UNREAD_SECONDS = 1.0
# The message of a wait that continues one that was interrupted.
RESUMED = "Resumed after an interruption; recent lines may repeat"
# With many waits, the longest pause between two reads of a quiet job's progress, as a multiple of the pace.
LONGEST_QUIET = 4
_NOT_STARTED = frozenset({JobState.QUEUED, JobState.PREPARING})


class LogForwarder:
    """Forwards the log of one job.

    :param cursor: the position at which another process stopped; ``open`` if that process was interrupted.
    :param channel: the channel on which ``log`` sends its lines.
    :param pace: the seconds between two calls of one kind for one job, so that all jobs get their turn.
    :param progress_interval_seconds: the seconds between two progress lines.
    """

    def __init__(
        self,
        storage: Storage,
        handle: JobHandle,
        cursor: LogCursor,
        log: Any,
        channel: LogChannel,
        *,
        pace: Callable[[], float],
        progress_interval_seconds: float,
    ) -> None:
        self._storage = storage
        self._handle = handle
        self._channel, self._log = channel, PacedLog(log, channel)
        self._pace = pace
        self._progress_interval = progress_interval_seconds
        self._formatter = LogFormatter(replace(cursor, open=False))
        self._saved = cursor
        # The cursor to save when its lines have been written, and the time since it has been waiting for that. The
        # first cursor only records that a wait is logging now. It moves past no line, so it can be saved immediately.
        self._pending: LogCursor | None = replace(cursor, open=True)
        self._pending_since = self._changed_at = time.monotonic()
        self._logged = self._formatter.cursor  # moves past lines when they are logged, not when they are formatted
        self._first_save = True
        # A random share, so that not all waits read at the same time after a restart.
        self._progress_since, self._share = time.monotonic(), random.random()  # noqa: S311
        self._state = JobState.UNKNOWN
        self._save_warning = ThrottledWarning("Saving the log cursor")
        self._writing = threading.Lock()
        self._asked = self._written = 0  # numbers of cursors: the last one to save, and the last one that was saved
        self._quiet = 1  # the pause between two reads of the progress, as a multiple of the pace
        self._unread_until = -math.inf  # the time of the next check if Airflow has read the lines
        if cursor.open:
            self._log.log(logging.INFO, log_line("wait", RESUMED))

    def seconds_to_next(self) -> float:
        """The seconds until there is something to do even if there is no news of the job."""
        if (pause := self._log.seconds_to_next) is not None:
            return pause
        due = self._progress_due()
        if self._pending is not None:
            due = min(due, max(self._flushed_at(), self._unread_until))
        return max(0.0, due - time.monotonic())

    async def forward(self, polled: PollResult | None) -> None:
        """Log what is new. ``polled`` is ``None`` if there can only be new progress."""
        if polled is not None:
            self._state = polled.status.state
            self._quiet = 1 if polled.page.lines else self._quiet
        progress = await self._read_progress(ended=polled is not None and self._state.terminal)
        self._channel.check()
        self._log.send()
        if polled is None:
            lines = self._formatter.progress_lines(progress)
        else:
            lines = self._formatter.new_lines(polled.status, polled.page, progress)
        for line in lines:
            self._log.log(logging.INFO, line)
        if self._formatter.cursor is not self._logged and self._log.seconds_to_next is None:
            self._logged, self._changed_at = self._formatter.cursor, time.monotonic()
        await self._save_written()

    async def _read_progress(self, *, ended: bool) -> Progress | None:
        """Read the progress if it is time for that, or if the job has ended."""
        if not ended and time.monotonic() < self._progress_due():
            return None
        self._progress_since, self._share = time.monotonic(), random.uniform(0.8, 1.2)  # noqa: S311
        try:
            progress = await BUCKET.call(read_progress, self._storage, JobDir(self._handle.job_dir))
        except StorageError:
            progress = None
        new = progress is not None and progress.step != self._formatter.cursor.step
        self._quiet = 1 if new else min(2 * self._quiet, LONGEST_QUIET)
        return progress

    async def _save_written(self) -> None:
        """Save the cursor up to the lines that have been written by now."""
        now = time.monotonic()
        current = replace(self._logged, open=True)
        if self._pending is not None and now >= self._flushed_at():
            quiet = now - self._changed_at >= FLUSH_SECONDS
            cursor, logged_at = (current, self._changed_at) if quiet else (self._pending, self._pending_since)
            if cursor != replace(self._saved, open=True) and not self._channel.read_since(logged_at):
                self._unread_until = now + UNREAD_SECONDS
                return
            await self._save(cursor)
            self._pending, self._first_save = None, False
        if self._pending is None and current != self._saved:
            self._pending, self._pending_since = current, now

    def warn(self, message: str) -> None:
        """Log a warning about the wait itself; it does not move the cursor."""
        self._log.log(logging.WARNING, log_line("wait", message))

    async def close(self, seconds: float) -> None:
        """Save the cursor, because this wait logs nothing more.

        :param seconds: the longest time for Airflow to read the last lines. After it, the saved cursor stays open, and
            the next wait logs these lines again.
        """
        if await self._log.drained(seconds):
            await self._save(self._formatter.cursor, keep=True)

    def _progress_due(self) -> float:
        if self._state in _NOT_STARTED:
            return math.inf
        return self._progress_since + self._share * max(self._progress_interval, self._quiet * self._pace())

    def _flushed_at(self) -> float:
        pace = self._pace()
        if self._first_save:
            # With many waits, the first cursor is saved later, together with the first lines.
            return self._pending_since + self._share * pace + (FLUSH_SECONDS if pace > FLUSH_SECONDS else 0.0)
        return self._pending_since + max(FLUSH_SECONDS, self._share * pace)

    def _write(self, cursor: LogCursor, number: int, last: bool) -> None:
        """Write a cursor. Runs in a thread.

        An earlier write whose caller has stopped waiting may still be in progress. It must not overwrite this one.

        :param last: wait for the earlier write. Otherwise, this write is rejected, so that each job occupies only one
            thread.
        :raises StorageUnavailableError: an earlier write has not ended.
        """
        if not self._writing.acquire(blocking=last):
            raise StorageUnavailableError("an earlier write of the cursor is still in progress")
        try:
            if number > self._written:
                write_cursor(self._storage, self._handle, cursor)
                self._written = number
        finally:
            self._writing.release()

    async def _save(self, cursor: LogCursor, *, keep: bool = False) -> None:
        if cursor == self._saved:
            return
        try:
            self._asked += 1
            await BUCKET.call(self._write, cursor, self._asked, keep, keep=keep)
            self._saved = cursor
            message = self._save_warning.succeeded()
        except MlengineError as error:
            message = self._save_warning.failed(f"after a restart, lines may repeat: {error}")
        if message is not None:
            self.warn(message)
