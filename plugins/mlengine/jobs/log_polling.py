"""Polls the logs of watched jobs independently of their states, for backends that read many logs in one call.

A round is one call to the backend, for as many jobs as it accepts. The backend knows the service's quota, and each page
says how long to wait. While nothing is written, the pause grows to the one that the backend asks for. The log of a job
that has ended is read immediately. Its wait ends without the last lines if these would come too late
(:meth:`Watch.give_up_lines`).

A failed read is retried after a pause that doubles up to a minute, and is logged like a failed poll. If one job causes
the failure, the others are read without it (:mod:`mlengine.jobs.isolation`).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlengine.backends import BatchesLogs, LimitsLogReads, LogPage
from mlengine.core.errors import MlengineError
from mlengine.core.plural import number_of
from mlengine.jobs.isolation import call_for_each
from mlengine.jobs.watch import Watch, next_batch

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 60.0
# The maximum number of consecutive calls for the same jobs while a search finds nothing and does not end. Then it is
# the other jobs' turn.
MAX_SEARCH_CALLS = 10


class LogPoller:
    """Polls logs while there are watches. Owned by a :class:`~mlengine.jobs.polling.Poller`.

    :param watches: the poller's watches, a mapping that changes.
    """

    def __init__(self, watches: Mapping[int, Watch], threads: ThreadPoolExecutor) -> None:
        self._watches, self._threads = watches, threads
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._backend: BatchesLogs | None = None
        self._interval = 0.0
        self._quiet = 0.0
        self._failures = 0
        # The jobs of an incomplete search, and the number of its calls so far.
        self._searched: list[Watch] = []
        self._search_calls = 0

    def poll(self, backend: BatchesLogs, interval: float) -> None:
        """Start polling, and wake it if there is a reason. Called after each poll of the states.

        :param interval: the seconds between two rounds in which lines are read.
        """
        self._backend, self._interval = backend, interval
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="mlengine-log-poller", context=contextvars.Context())
        elif any(_is_due(watch) for watch in self._watches.values()):
            self._wake.set()

    def stop(self) -> None:
        """Stop polling, because no job is watched any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while self._watches:
            self._wake.clear()
            pause = await self._round()
            if self._failures:  # after failures, the end of a job is no reason to poll more often
                await asyncio.sleep(pause)
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    async def _round(self) -> float:
        """Read the logs of some jobs. Returns the seconds until the next round."""
        backend = self._backend
        batch = self._batch(backend) if backend is not None else []
        if backend is None or not batch:
            return self._interval
        for watch in batch:
            watch.due = False
        ended = {id(watch) for watch in batch if watch.ended_at is not None}
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _read, backend, batch, bool(ended))
        except Exception as error:  # noqa: BLE001 the states are polled, and decide
            return self._failed(batch, error)
        self._failures = 0
        read: list[Watch] = []
        pages: list[LogPage] = []
        for watch, page in zip(batch, found, strict=True):
            if isinstance(page, Exception):
                self._failed_alone(watch, page)
                continue
            read.append(watch)
            pages.append(page)
            watch.log_retry.succeeded()
            watch.warn(watch.log_warning.succeeded())
            if watch.last is not None:
                watch.update(watch.last, page, final=id(watch) in ended and page.complete)
        self._give_up(read, max((page.wait or 0.0 for page in pages), default=0.0))
        self._keep_search(read, pages)
        return self._pause(backend, read, pages)

    def _batch(self, backend: BatchesLogs) -> list[Watch]:
        watches = [watch for watch in self._watches.values() if watch.last is not None and _is_readable(watch)]
        searched = {id(watch) for watch in self._searched}
        if self._searched and not any(watch.ended_at is not None and id(watch) not in searched for watch in watches):
            return self._searched
        return next_batch(watches, backend.logs_at_once)

    def _keep_search(self, batch: list[Watch], pages: Sequence[LogPage]) -> None:
        """Continue a search without results with the same jobs, for a limited number of calls."""
        found = any(page.lines for page in pages)
        unfinished = any(page.wait == 0.0 for page in pages)
        self._search_calls = 0 if found or not unfinished else self._search_calls + 1
        goes_on = unfinished and self._search_calls < MAX_SEARCH_CALLS and any(not watch.over for watch in batch)
        self._searched = batch if goes_on else []

    def _pause(self, backend: BatchesLogs, batch: Sequence[Watch], pages: Sequence[LogPage]) -> float:
        wait = max((page.wait or 0.0 for page in pages), default=0.0)
        found = any(page.lines for page in pages)
        waiting = [watch for watch in self._watches.values() if _is_readable(watch)]
        if wait:
            just_ended = any(_is_due(watch) and watch.ended_at is not None for watch in waiting)
            return 0.0 if just_ended else min(wait, LONGEST_PAUSE_SECONDS)
        if self._searched or any(page.more for page in pages) or any(_is_due(watch) for watch in waiting):
            self._quiet = 0.0
            return 0.0
        if found or len(waiting) > len(batch) or not isinstance(backend, LimitsLogReads):
            self._quiet = 0.0
        else:
            self._quiet = min(max(2 * self._quiet, self._interval), backend.quiet_log_seconds)
        return max(self._interval, self._quiet) * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load

    def _failed(self, batch: Sequence[Watch], error: Exception) -> float:
        self._failures = min(self._failures + 1, 6)
        self._searched = []
        pause = min(self._interval * 2.0**self._failures, max(LONGEST_PAUSE_SECONDS, self._interval))
        message = error_message(error)
        log.warning("Reading the logs of %s failed; retrying: %s", number_of(len(batch), "job"), message)
        for watch in batch:
            watch.warn(watch.log_warning.failed(message))
        self._give_up(self._watches.values(), pause)
        return pause

    def _failed_alone(self, watch: Watch, error: Exception) -> None:
        """Handle a job whose log cannot be read, although the logs of other jobs can."""
        log.warning("Reading the log of job %s failed; retrying: %s", watch.handle.job_id, error_message(error))
        watch.log_retry.failed(self._interval)
        watch.warn(watch.log_warning.failed(error_message(error)))
        self._give_up([watch], watch.log_retry.seconds_left)

    def _give_up(self, watches: Iterable[Watch], wait: float) -> None:
        """End the waits of jobs that have ended and whose last lines will not be read in time."""
        for watch in list(watches):
            if wait > watch.seconds_for_lines():
                watch.give_up_lines()


def _is_due(watch: Watch) -> bool:
    return watch.due and watch.last is not None and _is_readable(watch)


def _is_readable(watch: Watch) -> bool:
    return not watch.over and watch.log_retry.due


def _read(backend: BatchesLogs, batch: Sequence[Watch], urgent: bool) -> list[LogPage | Exception]:
    """Read the logs of a batch of jobs. Runs in a thread."""

    def read(part: Sequence[Watch]) -> list[LogPage]:
        return backend.logs_many([(watch.handle, watch.cursor) for watch in part], urgent=urgent)

    return call_for_each(read, batch)


def error_message(error: Exception) -> str:
    """The message of an error for the log of a task."""
    return str(error) if isinstance(error, MlengineError) else f"{type(error).__name__}: {error}"
