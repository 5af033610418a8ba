"""One poll for all waiting jobs.

In one event loop there is one poller for each backend and its settings, however many triggers wait: a tick asks
``describe`` once for all jobs, and ``logs`` once where the backend can batch them, in turns if they are too many for
one call (:mod:`mlengine.jobs.watch`). All calls run in threads; the event loop never blocks. A wait is woken only
by news: a thousand quiet jobs cost the loop next to nothing.

A tick that fails decides nothing: the pause doubles up to a minute, and the next tick asks again. It is logged, and
told in the log of each task that waits, ever more seldom. Logs that cannot be read keep nobody from hearing of the
state. Ticks are spread by a random tenth so that several triggerers do not ask in step.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ClassVar

from mlengine.backends import BatchesLogs, LogPage, TrainingBackend
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobHandle, JobStatus
from mlengine.jobs.watch import Watch, turn

log = logging.getLogger(__name__)

MAX_PAUSE = 60.0
GATHER = 0.2
# Calls a second that all waits of a poller make together to the bucket, of each kind.
CALLS_PER_SECOND = 20.0


class Poller:
    """Polls one backend for every job that is watched in this event loop. Use :meth:`shared`.

    :param interval: seconds between two ticks.
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
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="mlengine-poll")
        self._wake = asyncio.Event()
        self._failures = 0
        self._log_failures, self._logs_from = 0, 0.0

    @classmethod
    def shared(cls, place: str, make_backend: Callable[[], TrainingBackend], interval: float) -> Poller:
        """The running loop's poller for ``place``: a string that names backend and settings."""
        pollers = cls._pollers.setdefault(asyncio.get_running_loop(), {})
        if place not in pollers:
            pollers[place] = cls(make_backend, interval)
        poller = pollers[place]
        poller._interval = min(poller._interval, interval)
        return poller

    def pace(self) -> float:
        """Seconds that one wait leaves between two calls of its own, so that all together make few."""
        waits = len(self._watches)
        return 0.0 if waits <= CALLS_PER_SECOND else waits / CALLS_PER_SECOND

    @asynccontextmanager
    async def watch(self, handle: JobHandle, cursor: Mapping[str, object]) -> AsyncIterator[Watch]:
        """Looks at one job for as long as the block lasts. After a terminal state comes no look without new lines."""
        watch = Watch(handle, cursor)
        self._watches[id(watch)] = watch
        self._wake.set()
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(
                # Not in the first trigger's context, whose task's log would get what is said of all.
                self._run(),
                name="mlengine-poller",
                context=contextvars.Context(),
            )
        try:
            yield watch
        finally:
            self._watches.pop(id(watch), None)

    async def _run(self) -> None:
        """Tick until nobody watches."""
        while self._watches:
            self._wake.clear()
            more = await self._tick()
            pause = 0.0 if more else self._pause(self._failures)
            try:
                # A new watch does not wait for the others' tick; a moment's rest gathers those that come together.
                await asyncio.wait_for(self._wake.wait(), pause * random.uniform(0.9, 1.1))  # noqa: S311
                await asyncio.sleep(min(GATHER, self._interval))
            except TimeoutError:
                continue

    def _pause(self, failures: int) -> float:
        return min(self._interval * 2.0**failures, max(MAX_PAUSE, self._interval))

    async def _tick(self) -> bool:
        """Ask once for all; returns whether some job has more log lines waiting."""
        watches = list(self._watches.values())
        try:
            statuses, pages = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, watches)
        except Exception as error:  # noqa: BLE001 a poll decides nothing, whatever went wrong with it
            self._failures = min(self._failures + 1, 6)
            log.warning("poll of %d jobs failed, asking again: %s", len(watches), _words(error))
            for watch in watches:
                watch.remark(watch.polls.failed(_words(error)))
            if not getattr(error, "retryable", False):
                self._backend = None  # a key may have been rotated: connect anew
            return False
        self._failures = 0
        for watch, status in zip(watches, statuses, strict=True):
            watch.remark(watch.polls.well())
            page = pages.get(id(watch))
            if isinstance(page, LogPage):
                watch.remark(watch.reads.well())
            elif page is not None:
                watch.remark(watch.reads.failed(page))
                page, watch.unreadable = None, True
            watch.take(status, page)
        return not self._log_failures and any(watch.urgent for watch in watches)

    def _ask(self, watches: list[Watch]) -> tuple[list[JobStatus], dict[int, LogPage | str]]:
        """Runs in a thread. State first, logs after: lines written before the end are not missed at the end.

        Of each watch whose turn it is, by its id: a page, or why there is none.
        """
        if self._backend is None:
            self._backend = self._make_backend()
        backend = self._backend
        statuses = backend.describe([watch.handle for watch in watches])
        if not isinstance(backend, BatchesLogs):
            return statuses, {id(watch): _page(backend, watch) for watch in watches if not watch.over}
        if time.monotonic() < self._logs_from:
            return statuses, {}
        due = turn(watches, statuses, backend.logs_at_once)
        try:
            pages = backend.logs_many([(watch.handle, watch.cursor) for watch in due]) if due else []
        except Exception as error:  # noqa: BLE001 the state is known, and decides
            self._log_failures = min(self._log_failures + 1, 6)
            self._logs_from = time.monotonic() + self._pause(self._log_failures)
            log.warning("the logs of %d jobs cannot be read, asking again: %s", len(due), _words(error))
            return statuses, {id(watch): _words(error) for watch in due}
        self._log_failures = 0
        return statuses, {id(watch): page for watch, page in zip(due, pages, strict=True)}


def _page(backend: TrainingBackend, watch: Watch) -> LogPage | str:
    """New lines of one job. What keeps them from being read keeps nobody from hearing of the state."""
    try:
        return backend.logs(watch.handle, watch.cursor)
    except Exception as error:  # noqa: BLE001 one job's logs must not blind the others' wait
        log.warning("the logs of job %s cannot be read: %s", watch.handle.job_id, error)
        return _words(error)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, MlengineError) else f"{type(error).__name__}: {error}"
