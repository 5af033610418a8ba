"""Polls all waiting jobs with one poller.

An event loop has one poller for each combination of backend, location and settings that affect polling, however many
triggers wait. A tick calls ``describe`` once for all jobs. If the backend can batch logs, they are polled independently
(:mod:`mlengine.jobs.log_polling`); otherwise, they are polled in the tick. All calls run in threads, so the event loop
never blocks. A wait is woken only by news, so a thousand quiet jobs cost the loop almost nothing.

A failed tick has no consequences for jobs: the pause doubles up to a minute, and the next tick polls again. The failure
is logged by the triggerer and, less and less often, in the log of each waiting task. Unreadable logs do not delay
states. If one job causes the failure, the others are polled without it (:mod:`mlengine.jobs.isolation`). The pauses
vary randomly by a tenth, so that several triggerers do not poll at the same time.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ClassVar

from mlengine.backends import BatchesLogs, LogPage, TrainingBackend
from mlengine.core.job import JobHandle, JobStatus
from mlengine.core.plural import number_of
from mlengine.jobs.isolation import call_for_each
from mlengine.jobs.log_polling import LogPoller, error_message
from mlengine.jobs.watch import Watch

log = logging.getLogger(__name__)

MAX_PAUSE_SECONDS = 60.0
GATHER_SECONDS = 0.2
# The calls of each kind that all waits of a poller together may make to the bucket per second.
CALLS_PER_SECOND = 20.0


class Poller:
    """Polls one backend for every job that is watched in this event loop. Use :meth:`shared`.

    :param interval: the seconds between two ticks.
    """

    _pollers: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, make_backend: Callable[[], TrainingBackend], interval: float) -> None:
        self._make_backend = make_backend
        self._interval = interval
        self._backend: TrainingBackend | None = None
        self._watches: dict[int, Watch] = {}
        self._loop_task: asyncio.Task[None] | None = None
        # One thread for states and one for logs, so that neither waits for the other.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="mlengine-poll")
        self._wake = asyncio.Event()
        self._failures = 0
        self._logs = LogPoller(self._watches, self._threads)

    @classmethod
    def shared(cls, key: str, make_backend: Callable[[], TrainingBackend], interval: float) -> Poller:
        """The running loop's poller for ``key``: a string that identifies backend, location and settings.

        :param interval: the polling interval in seconds. The shortest one of all waits is used, until no job is
            watched.
        """
        pollers = cls._pollers.setdefault(asyncio.get_running_loop(), {})
        if key not in pollers:
            pollers[key] = cls(make_backend, interval)
        poller = pollers[key]
        poller._interval = min(poller._interval, interval) if poller._watches else interval
        return poller

    def pace(self) -> float:
        """The seconds between two calls of one wait with which all waits together stay within the limit."""
        waits = len(self._watches)
        return 0.0 if waits <= CALLS_PER_SECOND else waits / CALLS_PER_SECOND

    def poll_soon(self) -> None:
        """Start the next tick now instead of after the interval."""
        self._wake.set()

    @asynccontextmanager
    async def watch(self, handle: JobHandle, cursor: Mapping[str, object]) -> AsyncIterator[Watch]:
        """Poll one job during the ``async with`` block.

        After a terminal state, there are only results with new lines.
        """
        watch = Watch(handle, cursor)
        self._watches[id(watch)] = watch
        self.poll_soon()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(
                # Not in the first trigger's context, because its task's log would get the messages about all jobs.
                self._run(),
                name="mlengine-poller",
                context=contextvars.Context(),
            )
        try:
            yield watch
        finally:
            self._watches.pop(id(watch), None)

    async def _run(self) -> None:
        """Tick until no job is watched."""
        try:
            while self._watches:
                self._wake.clear()
                pause = await self._tick()
                try:
                    # A new watch does not wait for the next tick. A short pause collects watches that begin together.
                    await asyncio.wait_for(self._wake.wait(), pause)
                    await asyncio.sleep(min(GATHER_SECONDS, self._interval))
                except TimeoutError:
                    continue
        finally:
            self._logs.stop()

    def _pause(self) -> float:
        pause = min(self._interval * 2.0**self._failures, max(MAX_PAUSE_SECONDS, self._interval))
        return pause * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load

    async def _tick(self) -> float:
        """Poll all jobs once, and return the seconds until the next tick."""
        watches = [watch for watch in self._watches.values() if watch.poll_retry.due]
        if not watches:
            return self._pause()
        try:
            statuses, pages = await asyncio.get_running_loop().run_in_executor(self._threads, self._poll, watches)
        except Exception as error:  # noqa: BLE001 a poll decides nothing, whatever failed
            self._failures = min(self._failures + 1, 6)
            log.warning("Polling %s failed; retrying: %s", number_of(len(watches), "job"), error_message(error))
            for watch in watches:
                watch.warn(watch.poll_warning.failed(error_message(error)))
            if not getattr(error, "retryable", False):
                self._backend = None  # connect again, because credentials may have been rotated
            return self._pause()
        self._failures = 0
        for watch, status in zip(watches, statuses, strict=True):
            if isinstance(status, Exception):
                self._failed_alone(watch, status)
            else:
                _take(watch, status, pages.get(id(watch)))
        if isinstance(self._backend, BatchesLogs):
            self._logs.poll(self._backend, self._interval)
            return self._pause()
        # Logs whose reads are limited must not be read immediately.
        waits = [watch.readable_at - time.monotonic() for watch in watches if watch.urgent and watch.poll_retry.due]
        return max(0.0, min([*waits, self._pause()]))

    def _failed_alone(self, watch: Watch, error: Exception) -> None:
        """Handle a job whose state cannot be read, although those of any other jobs can."""
        log.warning("Polling job %s failed; retrying: %s", watch.handle.job_id, error_message(error))
        watch.poll_retry.failed(self._interval)
        watch.warn(watch.poll_warning.failed(error_message(error)))
        if len(self._watches) == 1:
            self._backend = None  # as above

    def _poll(self, watches: list[Watch]) -> tuple[list[JobStatus | Exception], dict[int, LogPage | str]]:
        """Read the states and logs of jobs. Runs in a thread.

        States are read before logs, so that lines that were written just before the end are read. Pages are keyed by
        the watch's id; a string is the reason why a log could not be read. There are no pages if the backend batches
        logs.
        """
        if self._backend is None:
            self._backend = self._make_backend()
        backend = self._backend

        def describe(part: Sequence[Watch]) -> list[JobStatus]:
            return backend.describe([watch.handle for watch in part])

        statuses = call_for_each(describe, watches)
        if isinstance(backend, BatchesLogs):
            return statuses, {}
        now = time.monotonic()
        polled = [watch for watch, status in zip(watches, statuses, strict=True) if isinstance(status, JobStatus)]
        readable = [watch for watch in polled if not watch.over and now >= watch.readable_at]
        return statuses, {id(watch): _page(backend, watch) for watch in readable}


def _take(watch: Watch, status: JobStatus, page: LogPage | str | None) -> None:
    """Pass the result of a poll to the watch."""
    watch.poll_retry.succeeded()
    watch.warn(watch.poll_warning.succeeded())
    if isinstance(page, LogPage):
        watch.warn(watch.log_warning.succeeded())
    elif page is not None:
        watch.warn(watch.log_warning.failed(page))
        page, watch.unreadable = None, True
    ended = status.state.terminal or watch.ended_at is not None
    watch.update(status, page, final=ended and page is not None and page.complete)


def _page(backend: TrainingBackend, watch: Watch) -> LogPage | str:
    """New lines of one job, or the reason why they cannot be read, which must not delay the job's state."""
    try:
        return backend.logs(watch.handle, watch.cursor)
    except Exception as error:  # noqa: BLE001 one unreadable log must not stop the other waits
        log.warning("Reading the log of job %s failed: %s", watch.handle.job_id, error)
        return error_message(error)
