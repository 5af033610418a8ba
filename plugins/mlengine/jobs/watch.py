"""The state of one watched job: the news for its wait, and the time at which its log is read.

If a service limits how often logs are read, states and logs are polled independently. A wait is notified of its job's
end immediately. It ends after the last lines, or when no lines could be read for :data:`LAST_LINES_SECONDS`, and at the
latest :data:`ALL_LINES_SECONDS` after the job.

A service that reads the logs of many jobs in one call limits their number. With more jobs, logs are read in turns,
beginning with jobs that have ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobStatus
from mlengine.jobs.isolation import Retry
from mlengine.jobs.throttled_warning import ThrottledWarning

# The longest delays of the end of a wait: because the log cannot be read, and because it is long.
LAST_LINES_SECONDS = 10.0
ALL_LINES_SECONDS = 60.0
# The last lines are reported before the end if they can be read within this time.
ANNOUNCE_SECONDS = 1.0


@dataclass(frozen=True)
class PollResult:
    """The result of polling one job. ``page`` is empty if nothing was written since the last poll.

    A terminal state whose page says that there are no more lines is the last result.
    """

    status: JobStatus
    page: LogPage


@dataclass(frozen=True)
class PollWarning:
    """A message about polling itself, for the waiting task's log."""

    message: str


@dataclass
class Watch:
    """One watched job. Created by :meth:`~mlengine.jobs.polling.Poller.watch`."""

    handle: JobHandle
    cursor: Mapping[str, object]
    news: asyncio.Queue[PollResult | PollWarning] = field(default_factory=asyncio.Queue)
    last: JobStatus | None = None
    # When the log was last read, and whether unread lines were left. This decides which job is read next.
    read_at: float = float("-inf")
    more: bool = False
    # When the log may be read again (LogPage.wait).
    readable_at: float = float("-inf")
    ended_at: float | None = None
    # When lines were last read after the job's end.
    lines_at: float = float("-inf")
    # Whether the log should be read now, because the watch is new or the job has ended since the last read.
    due: bool = True
    over: bool = False
    unreadable: bool = False
    # The retry of reads that fail for this job but not for others.
    poll_retry: Retry = field(default_factory=Retry)
    log_retry: Retry = field(default_factory=Retry)
    poll_warning: ThrottledWarning = field(default_factory=lambda: ThrottledWarning("Polling the job"))
    log_warning: ThrottledWarning = field(default_factory=lambda: ThrottledWarning("Reading the job's log"))

    async def next(self, seconds: float | None = None) -> PollResult | PollWarning | None:
        """Wait for the next news; ``None`` if there is none within ``seconds``."""
        if not self.news.empty():
            return self.news.get_nowait()
        try:
            async with asyncio.timeout(seconds):
                return await self.news.get()
        except TimeoutError:
            return None

    def update(self, status: JobStatus, page: LogPage | None = None, *, final: bool = False) -> None:
        """Record a poll's result, and wake the wait if there is news.

        A job that has ended keeps its state, because a backend may report UNKNOWN after a failed read.

        :param page: ``None`` if the log was not read.
        :param final: whether the job has ended and these are its last lines.
        """
        if self.over:
            return
        if self.ended_at is not None and self.last is not None and not status.state.terminal:
            status = self.last
        changed, self.last = status is not self.last and status != self.last, status
        if page is not None:
            self.unreadable = False
            self.cursor, self.read_at, self.more = page.cursor, time.monotonic(), page.more
            self.readable_at = self.read_at + (page.wait or 0.0)
        if status.state.terminal and not final:
            self._begin_end()
            if page is None or not page.lines:
                return
            page, self.lines_at = replace(page, more=True), time.monotonic()
        page = page or LogPage((), self.cursor)
        if page.lines or changed or final:
            self.over = final
            self.news.put_nowait(PollResult(status, page))

    def give_up_lines(self) -> None:
        """End the wait of a job that has ended, because its last lines cannot be read in time."""
        if self.last is not None and self.ended_at is not None and not self.over:
            self.over = True
            line = LogLine("wait", last_lines_missing(self.handle))
            self.news.put_nowait(PollResult(self.last, LogPage((line,), self.cursor)))

    def seconds_for_lines(self) -> float:
        """The seconds for which the wait may still be delayed by the last lines."""
        if self.ended_at is None:
            return math.inf
        until = max(self.ended_at, self.lines_at) + LAST_LINES_SECONDS
        return min(until, self.ended_at + ALL_LINES_SECONDS) - time.monotonic()

    def _begin_end(self) -> None:
        """Start timers after the job's end, so that no call to a service can delay the news."""
        if self.ended_at is None:
            self.ended_at, self.due = time.monotonic(), True
            loop = asyncio.get_running_loop()
            loop.call_later(min(ANNOUNCE_SECONDS, LAST_LINES_SECONDS), self._announce)
            loop.call_later(LAST_LINES_SECONDS, self._check_lines)

    def _check_lines(self) -> None:
        left = self.seconds_for_lines()
        if left <= 0:
            self.give_up_lines()
        elif not self.over:
            asyncio.get_running_loop().call_later(left, self._check_lines)

    def _announce(self) -> None:
        if self.last is not None and not self.over:
            self.news.put_nowait(PollResult(self.last, LogPage((), self.cursor, more=True)))

    def warn(self, message: str | None) -> None:
        """Pass a warning about polling to the wait; ``None`` is ignored."""
        if message is not None:
            self.news.put_nowait(PollWarning(message))

    @property
    def urgent(self) -> bool:
        """Whether the log should be read before the next tick: it has unread lines, or its job's end waits for the last
        ones.

        It must not be read before :attr:`readable_at`.
        """
        return not self.over and not self.unreadable and (self.more or self.ended_at is not None)


def next_batch(watches: Sequence[Watch], most: int) -> list[Watch]:
    """The watches whose logs are read now, at most ``most``.

    Jobs that have ended come first. Half of the remaining places are for jobs with unread lines, and the others for the
    jobs that were read longest ago.
    """
    by_age = sorted((watch for watch in watches if not watch.over), key=lambda watch: watch.read_at)
    first = [watch for watch in by_age if watch.ended_at is not None][:most]
    others = [watch for watch in by_age if watch.ended_at is None]
    behind = [watch for watch in others if watch.more][: (most - len(first) + 1) // 2]
    taken = {id(watch) for watch in behind}
    return [*first, *behind, *(watch for watch in others if id(watch) not in taken)][:most]


def last_lines_missing(handle: JobHandle) -> str:
    """The message to log if a job has ended and its last lines could not be read in time."""
    return f"The last lines could not be read yet; `mlengine jobs logs {handle.job_id}` prints them"
