"""One poll for all waiting jobs.

In one event loop there is one poller for each backend and its settings, however many triggers wait: a tick asks
``describe`` once for all jobs, and ``logs`` once where the backend can batch them. All calls run in threads; the event
loop never blocks. A wait is woken only by news: a thousand quiet jobs cost the loop next to nothing.

A tick that fails decides nothing: it is logged, the pause doubles up to a minute, and the next tick asks again. Ticks
are spread by a random tenth so that several triggerers do not ask in step.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from mlengine.backends import BatchesLogs, LogPage, TrainingBackend
from mlengine.core.errors import MlengineError
from mlengine.core.job import JobHandle, JobStatus

log = logging.getLogger(__name__)

MAX_PAUSE = 60.0
GATHER = 0.2
# Calls a second that all waits of a poller make together to the bucket, of each kind.
CALLS_PER_SECOND = 20.0


@dataclass(frozen=True)
class Look:
    """One look at one job. ``page`` is empty if nothing was written since the last."""

    status: JobStatus
    page: LogPage


@dataclass
class Watch:
    """One job that is watched. Made by :meth:`Poller.watch`."""

    handle: JobHandle
    cursor: Mapping[str, object]
    looks: asyncio.Queue[Look] = field(default_factory=asyncio.Queue)
    last: JobStatus | None = None

    async def look(self, seconds: float | None = None) -> Look | None:
        """The next look that has news; ``None`` if there is none within ``seconds``."""
        if not self.looks.empty():
            return self.looks.get_nowait()
        try:
            async with asyncio.timeout(seconds):
                return await self.looks.get()
        except TimeoutError:
            return None

    def take(self, look: Look) -> None:
        """Keep the look for whoever waits, if it has news."""
        self.cursor = look.page.cursor
        if look.page.lines or look.status != self.last or look.status.state.terminal:
            self.last = look.status
            self.looks.put_nowait(look)


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
            pause = 0.0 if more else min(self._interval * 2**self._failures, max(MAX_PAUSE, self._interval))
            try:
                # A new watch does not wait for the others' tick; a moment's rest gathers those that come together.
                await asyncio.wait_for(self._wake.wait(), pause * random.uniform(0.9, 1.1))  # noqa: S311
                await asyncio.sleep(min(GATHER, self._interval))
            except TimeoutError:
                continue

    async def _tick(self) -> bool:
        """Ask once for all; returns whether some job has more log lines waiting."""
        watches = list(self._watches.values())
        try:
            looks = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, watches)
        except Exception as error:  # noqa: BLE001 a poll decides nothing, whatever went wrong with it
            self._failures = min(self._failures + 1, 6)
            kind = "" if isinstance(error, MlengineError) else f"{type(error).__name__}: "
            log.warning("poll of %d jobs failed, asking again: %s%s", len(watches), kind, error)
            if not getattr(error, "retryable", False):
                self._backend = None  # a key may have been rotated: connect anew
            return False
        self._failures = 0
        for watch, look in zip(watches, looks, strict=True):
            watch.take(look)
        return any(look.page.more for look in looks)

    def _ask(self, watches: list[Watch]) -> list[Look]:
        """Runs in a thread. State first, logs after: lines written before the end are not missed at the end."""
        if self._backend is None:
            self._backend = self._make_backend()
        statuses = self._backend.describe([watch.handle for watch in watches])
        if isinstance(self._backend, BatchesLogs):
            pages = self._backend.logs_many([(watch.handle, watch.cursor) for watch in watches])
        else:
            pages = [_page(self._backend, watch) for watch in watches]
        return [Look(status, page) for status, page in zip(statuses, pages, strict=True)]


def _page(backend: TrainingBackend, watch: Watch) -> LogPage:
    """New lines of one job. What keeps them from being read keeps nobody from hearing of the state."""
    try:
        return backend.logs(watch.handle, watch.cursor)
    except Exception as error:  # noqa: BLE001 one job's logs must not blind the others' wait
        log.warning("the logs of job %s cannot be read: %s", watch.handle.job_id, error)
        return LogPage((), watch.cursor)
