"""What a deferred wait tells of its job in the task's log, and keeps of how far it told it.

New lines and state changes are told as they are seen. Two things cost calls to the bucket for each job, and are paced
so that a thousand waits in one triggerer make about twenty of them a second: reading ``progress.json``, and keeping
``logs/cursor.json``. With few waits, progress is read as often as is readable, and the cursor is kept at once.

A triggerer that ends in order keeps the cursor first: not a line is lost or told twice. One that is killed has told at
most the lines since the cursor was last kept; the next tells those again, after a line that says so.
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
from mlengine.storage import Storage
from mlengine.triggers.poller import Look
from mlengine.waiting import Narrator, Told, read_progress, write_told

# A few threads for all waits of a triggerer: what they wait for is the bucket.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="mlengine-account")


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
        self._narrator = Narrator(replace(told, open=False), progress_interval=0.0)
        self._kept = told
        self._kept_at = float("-inf")
        # Not all at once after a restart.
        self._progress_at = time.monotonic() - random.uniform(0.0, progress_interval)  # noqa: S311
        if told.open:
            log.info("%11s | %s", "wait", "the wait was cut off here; its last lines may follow once more")

    def seconds_to_progress(self) -> float:
        """How long until there is something to do though nothing is new."""
        interval = max(self._progress_interval, self._pace())
        return max(0.0, self._progress_at + interval - time.monotonic())

    async def tell(self, look: Look | None) -> None:
        """Tell what is new; ``None`` if only the progress may be."""
        ended = look is not None and look.status.state.terminal
        progress = None
        if ended or self.seconds_to_progress() <= 0.0:
            self._progress_at = time.monotonic()
            progress = await self._in_thread(read_progress, self._storage, JobDir(self._handle.job_dir))
        lines = (
            self._narrator.tell(look.status, look.page, progress) if look else self._narrator.tell_progress(progress)
        )
        for line in lines:
            self._log.info("%s", line)
        if time.monotonic() - self._kept_at >= self._pace():
            await self._keep(replace(self._narrator.told, open=not ended))

    async def close(self) -> None:
        """Keep where it stands."""
        await self._keep(self._narrator.told)

    async def _keep(self, told: Told) -> None:
        if told == self._kept:
            return
        self._kept_at = time.monotonic()
        try:
            await self._in_thread(write_told, self._storage, self._handle, told)
            self._kept = told
        except MlengineError as error:
            self._log.warning("how far this log got could not be kept; a restart would repeat lines: %s", error)

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, call, *arguments)
