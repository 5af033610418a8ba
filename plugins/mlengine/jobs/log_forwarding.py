"""Forwards a job's log lines, state changes and progress from a deferred wait to the task's log.

New lines and state changes are logged as they are seen. Two things cost calls to the bucket for each job: reading
``progress.json`` and saving ``logs/cursor.json``. They are spread and limited, so that a thousand waits in one
triggerer make about twenty such calls a second.

A triggerer that stops in order saves the cursor first: no line is lost or repeated. One that is killed takes with it
the lines that its log writer had not written yet, which were seconds' worth on a busy machine. So during the wait the
cursor is only moved past lines that were logged :data:`FLUSH_SECONDS` ago. After a kill no line is lost, and recent
ones repeat after a line that announces it.
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
from mlengine.jobs.progress import LogCursor, LogFormatter, read_progress, write_cursor
from mlengine.jobs.watch import PollResult
from mlengine.storage.client import Storage

# How long Airflow may take to write a line that was logged.
FLUSH_SECONDS = 15.0
# A few threads for all waits of a triggerer: they wait for the bucket, and share the interpreter with the event loop.
THREADS = ThreadPoolExecutor(4, thread_name_prefix="mlengine-logs")


class LogForwarder:
    """Forwards the log of one job.

    :param cursor: where another process stopped; ``open`` if that one was interrupted.
    :param pace: seconds between two calls of a kind for one job, so that all jobs get their turn.
    :param progress_interval_seconds: seconds between two progress lines.
    """

    def __init__(
        self,
        storage: Storage,
        handle: JobHandle,
        cursor: LogCursor,
        log: Any,
        *,
        pace: Callable[[], float],
        progress_interval_seconds: float,
    ) -> None:
        self._storage = storage
        self._handle = handle
        self._log = log
        self._pace = pace
        self._progress_interval = progress_interval_seconds
        self._formatter = LogFormatter(replace(cursor, open=False))
        self._saved = cursor
        # The cursor to save when its lines have been written, and since when it waits for that. The first one only says
        # that a wait is logging now: it moves past no line, and can be saved at once.
        self._pending: LogCursor | None = replace(cursor, open=True)
        self._pending_since, self._flush_seconds = time.monotonic(), 0.0
        # Not all at once after a restart.
        self._progress_since, self._share = time.monotonic(), random.random()  # noqa: S311
        if cursor.open:
            log.info("%11s | %s", "wait", "Resumed after an interruption; recent lines may repeat")

    def seconds_to_next(self) -> float:
        """Seconds until there is something to do though the job has no news."""
        due = self._progress_due()
        if self._pending is not None:
            due = min(due, self._flushed_at())
        return max(0.0, due - time.monotonic())

    async def forward(self, polled: PollResult | None) -> None:
        """Log what is new; ``None`` if only the progress may be."""
        ended = polled is not None and polled.status.state.terminal
        progress = None
        if ended or time.monotonic() >= self._progress_due():
            self._progress_since, self._share = time.monotonic(), random.uniform(0.8, 1.2)  # noqa: S311
            progress = await in_thread(read_progress, self._storage, JobDir(self._handle.job_dir))
        if polled is None:
            lines = self._formatter.progress_lines(progress)
        else:
            lines = self._formatter.new_lines(polled.status, polled.page, progress)
        for line in lines:
            self._log.info("%s", line)
        if self._pending is not None and time.monotonic() >= self._flushed_at():
            await self._save(self._pending)
            self._pending = None
        now = replace(self._formatter.cursor, open=True)
        if self._pending is None and now != self._saved:
            self._pending, self._pending_since, self._flush_seconds = now, time.monotonic(), FLUSH_SECONDS

    def warn(self, message: str) -> None:
        """Log a warning about the wait itself; it does not move the cursor."""
        self._log.warning("%11s | %s", "wait", message)

    async def close(self) -> None:
        """Save the cursor: this wait logs nothing more."""
        await self._save(self._formatter.cursor)

    def _progress_due(self) -> float:
        return self._progress_since + self._share * max(self._progress_interval, self._pace())

    def _flushed_at(self) -> float:
        return self._pending_since + max(self._flush_seconds, self._share * self._pace())

    async def _save(self, cursor: LogCursor) -> None:
        if cursor == self._saved:
            return
        try:
            await in_thread(write_cursor, self._storage, self._handle, cursor)
            self._saved = cursor
        except MlengineError as error:
            self._log.warning("Could not save the log cursor; after a restart, lines may repeat: %s", error)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call the bucket or a backend outside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(THREADS, call, *arguments)
