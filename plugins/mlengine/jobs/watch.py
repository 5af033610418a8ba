"""One watched job: what its wait receives, and when its log is read.

A service that reads the logs of many jobs in one call takes only so many. A tick makes one such call, so with more jobs
their logs are read in turns, jobs that have ended first: a wait learns of its job's end after the last lines, unless
these cannot be read for :data:`LAST_LINES_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobStatus
from mlengine.jobs.throttled_warning import ThrottledWarning

# How long the end of a job is held back because its log cannot be read.
LAST_LINES_SECONDS = 120.0


@dataclass(frozen=True)
class PollResult:
    """The result of polling one job. ``page`` is empty if nothing was written since the last poll."""

    status: JobStatus
    page: LogPage


@dataclass(frozen=True)
class PollWarning:
    """A message about polling itself, for the waiting task's log."""

    message: str


@dataclass
class Watch:
    """One watched job. Made by :meth:`~mlengine.jobs.polling.Poller.watch`."""

    handle: JobHandle
    cursor: Mapping[str, object]
    news: asyncio.Queue[PollResult | PollWarning] = field(default_factory=asyncio.Queue)
    last: JobStatus | None = None
    # When its log was read last, and whether that left unread lines: decides whose turn it is.
    read_at: float = float("-inf")
    more: bool = False
    ended_at: float | None = None
    over: bool = False
    unreadable: bool = False
    poll_warning: ThrottledWarning = field(default_factory=lambda: ThrottledWarning("Polling the job"))
    log_warning: ThrottledWarning = field(default_factory=lambda: ThrottledWarning("Reading the job's log"))

    async def next(self, seconds: float | None = None) -> PollResult | PollWarning | None:
        """The next news; ``None`` if there is none within ``seconds``."""
        if not self.news.empty():
            return self.news.get_nowait()
        try:
            async with asyncio.timeout(seconds):
                return await self.news.get()
        except TimeoutError:
            return None

    def update(self, status: JobStatus, page: LogPage | None) -> None:
        """Take a poll's result, and wake the wait if it has news. ``page`` is ``None`` if the log was not read now."""
        if self.over:
            return
        now = time.monotonic()
        ended = status.state.terminal
        if ended and self.ended_at is None:
            self.ended_at = now
        if page is not None:
            self.unreadable = False
            self.cursor, self.read_at, self.more = page.cursor, now, page.more
        elif ended and now - (self.ended_at or now) < LAST_LINES_SECONDS:
            return
        elif ended:
            message = f"The last lines could not be read for {LAST_LINES_SECONDS:.0f} s"
            page = LogPage((LogLine("wait", message),), self.cursor)
        else:
            page = LogPage((), self.cursor)
        if page.lines or status != self.last or ended:
            self.last = status
            self.over = ended and not page.more
            self.news.put_nowait(PollResult(status, page))

    def warn(self, message: str | None) -> None:
        """Pass a warning about polling to the wait; ``None`` is ignored."""
        if message is not None:
            self.news.put_nowait(PollWarning(message))

    @property
    def urgent(self) -> bool:
        """Whether it should not wait for the next tick: it has unread lines, or its end waits for its last lines."""
        return not self.over and not self.unreadable and (self.more or self.ended_at is not None)


def next_batch(watches: Sequence[Watch], statuses: Sequence[JobStatus], most: int) -> list[Watch]:
    """The watches whose logs are read now, ``most`` at most.

    First those of jobs that have ended. Half of the rest is for those with unread lines, then come those that were read
    longest ago.
    """
    by_age = sorted((watch for watch in watches if not watch.over), key=lambda watch: watch.read_at)
    ended = {id(watch) for watch, status in zip(watches, statuses, strict=True) if status.state.terminal}
    first = [watch for watch in by_age if id(watch) in ended][:most]
    others = [watch for watch in by_age if id(watch) not in ended]
    behind = [watch for watch in others if watch.more][: (most - len(first) + 1) // 2]
    taken = {id(watch) for watch in behind}
    return [*first, *behind, *(watch for watch in others if id(watch) not in taken)][:most]
