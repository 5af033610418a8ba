"""One job that is watched: what its wait shall hear, and whose turn it is to have its log read.

A service that reads the logs of many jobs in one call takes only so many. A tick makes one such call, so with more
jobs than that their logs are read in turns. Those that have ended come first: no wait hears of its job's end before the
last lines, unless they cannot be had for :data:`LAST_LINES_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlengine.backends import LogLine, LogPage
from mlengine.core.job import JobHandle, JobStatus
from mlengine.jobs.throttled_warning import Complaint

# How long the end of a job is kept back because its log cannot be read.
LAST_LINES_SECONDS = 120.0


@dataclass(frozen=True)
class Look:
    """One look at one job. ``page`` is empty if nothing was written since the last."""

    status: JobStatus
    page: LogPage


@dataclass(frozen=True)
class Remark:
    """What the waiting task's log should say of the poll itself."""

    text: str


@dataclass
class Watch:
    """One job that is watched. Made by :meth:`~mlengine.jobs.polling.Poller.watch`."""

    handle: JobHandle
    cursor: Mapping[str, object]
    news: asyncio.Queue[Look | Remark] = field(default_factory=asyncio.Queue)
    last: JobStatus | None = None
    # Its place in the turns: when its log was read last, and whether that left something.
    read_at: float = float("-inf")
    more: bool = False
    ended_at: float | None = None
    over: bool = False
    unreadable: bool = False
    polls: Complaint = field(default_factory=lambda: Complaint("the look at the job"))
    reads: Complaint = field(default_factory=lambda: Complaint("the reading of its log"))

    async def look(self, seconds: float | None = None) -> Look | Remark | None:
        """The next look that has news; ``None`` if there is none within ``seconds``."""
        if not self.news.empty():
            return self.news.get_nowait()
        try:
            async with asyncio.timeout(seconds):
                return await self.news.get()
        except TimeoutError:
            return None

    def take(self, status: JobStatus, page: LogPage | None) -> None:
        """Keep a look for whoever waits, if it has news. ``page`` is ``None`` if the log was not read now."""
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
            words = f"its last lines could not be read for {LAST_LINES_SECONDS:.0f} s"
            page = LogPage((LogLine("wait", words),), self.cursor)
        else:
            page = LogPage((), self.cursor)
        if page.lines or status != self.last or ended:
            self.last = status
            self.over = ended and not page.more
            self.news.put_nowait(Look(status, page))

    def remark(self, text: str | None) -> None:
        if text is not None:
            self.news.put_nowait(Remark(text))

    @property
    def urgent(self) -> bool:
        """Whether it should not wait for the next tick: there is more to read, or its end waits for its turn."""
        return not self.over and not self.unreadable and (self.more or self.ended_at is not None)


def turn(watches: Sequence[Watch], statuses: Sequence[JobStatus], most: int) -> list[Watch]:
    """Whose logs are read now, ``most`` at most: of jobs that have ended; then, for half of what is left, of those that
    have more; then of those that were not read for longest.
    """
    by_age = sorted((watch for watch in watches if not watch.over), key=lambda watch: watch.read_at)
    ended = {id(watch) for watch, status in zip(watches, statuses, strict=True) if status.state.terminal}
    first = [watch for watch in by_age if id(watch) in ended][:most]
    others = [watch for watch in by_age if id(watch) not in ended]
    behind = [watch for watch in others if watch.more][: (most - len(first) + 1) // 2]
    taken = {id(watch) for watch in behind}
    return [*first, *behind, *(watch for watch in others if id(watch) not in taken)][:most]
