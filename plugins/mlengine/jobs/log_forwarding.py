"""What a deferred wait tells of its job in the task's log, and keeps of how far it told it.

New lines and state changes are told as they are seen. Two things cost calls to the bucket for each job, and are spread
and paced so that a thousand waits in one triggerer make about twenty of them a second: reading ``progress.json``, and
keeping ``logs/cursor.json``.

A triggerer that ends in order keeps the cursor first: not a line is lost or told twice. One that is killed takes with
it what its log writer had not written yet, which was seconds on a busy machine. So while the wait goes on, the cursor
is only moved over lines that were told a while ago: none is lost, and the last ones come twice, after a line that says
so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mlengine.core.errors import MlengineError
from mlengine.core.job import JobHandle
from mlengine.core.layout import JobDir
from mlengine.jobs.progress import Narrator, Told, read_progress, write_told
from mlengine.jobs.watch import Look
from mlengine.storage.client import Storage

# How long Airflow may take to write a line that was logged.
SETTLE_SECONDS = 15.0
# A few threads for all waits of a triggerer: they wait for the bucket, and share the interpreter with the loop.
THREADS = ThreadPoolExecutor(4, thread_name_prefix="mlengine-account")


class Account:
    """One job's telling.

    :param told: how far another process told it; ``open`` if that one was cut off.
    :param pace: how many seconds to leave between two calls of a kind for one job, so that all get their turn.
    :param progress_interval: seconds between two progress lines.
    """

    def __init__(
        self,
        storage: Storage,
        handle: JobHandle,
        told: Told,
        log: Any,
        *,
        pace: Callable[[], float],
        progress_interval: float,
    ) -> None:
        self._storage = storage
        self._handle = handle
        self._log = log
        self._pace = pace
        self._progress_interval = progress_interval
        self._narrator = Narrator(replace(told, open=False))
        self._kept = told
        # What will be kept once it has settled, and since when that is waited for. First of all, that somebody tells:
        # that moves nothing, and need not settle.
        self._settling: Told | None = replace(told, open=True)
        self._settling_since, self._settle_seconds = time.monotonic(), 0.0
        # Not all at once after a restart.
        self._progress_since, self._share = time.monotonic(), random.random()  # noqa: S311
        if told.open:
            log.info("%11s | %s", "wait", "the wait was cut off here; its last lines may follow once more")

    def seconds_to_next(self) -> float:
        """How long until there is something to do though nothing is new."""
        due = self._progress_due()
        if self._settling is not None:
            due = min(due, self._settled_at())
        return max(0.0, due - time.monotonic())

    async def tell(self, look: Look | None) -> None:
        """Tell what is new; ``None`` if only the progress may be."""
        ended = look is not None and look.status.state.terminal
        progress = None
        if ended or time.monotonic() >= self._progress_due():
            self._progress_since, self._share = time.monotonic(), random.uniform(0.8, 1.2)  # noqa: S311
            progress = await in_thread(read_progress, self._storage, JobDir(self._handle.job_dir))
        narrator = self._narrator
        for line in narrator.tell(look.status, look.page, progress) if look else narrator.tell_progress(progress):
            self._log.info("%s", line)
        if self._settling is not None and time.monotonic() >= self._settled_at():
            await self._keep(self._settling)
            self._settling = None
        now = replace(narrator.told, open=True)
        if self._settling is None and now != self._kept:
            self._settling, self._settling_since, self._settle_seconds = now, time.monotonic(), SETTLE_SECONDS

    def remark(self, text: str) -> None:
        """Say something of the wait itself; nothing is kept of it."""
        self._log.warning("%11s | %s", "wait", text)

    async def close(self) -> None:
        """Keep where it stands: this wait tells nothing more."""
        await self._keep(self._narrator.told)

    def _progress_due(self) -> float:
        return self._progress_since + self._share * max(self._progress_interval, self._pace())

    def _settled_at(self) -> float:
        return self._settling_since + max(self._settle_seconds, self._share * self._pace())

    async def _keep(self, told: Told) -> None:
        if told == self._kept:
            return
        try:
            await in_thread(write_told, self._storage, self._handle, told)
            self._kept = told
        except MlengineError as error:
            self._log.warning("how far this log got could not be kept; a restart would repeat lines: %s", error)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """A call to the bucket, off the event loop."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, call, *arguments)
