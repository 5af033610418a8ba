"""The deferred wait for one job: plain data in, one event out.

Runs in the triggerer. New log lines, progress and state changes go to the task's log as they come. The event carries
ids only; the worker that resumes reads the job's state again.

Three things can end a wait before its job does:

* ``on_kill``: a person marked the task failed or succeeded, or cleared it, or its DAG run ended. It cancels the job.
* A deadline. The trigger cancels the job itself, since a paused DAG gets no worker that could; the event follows.
* ``cleanup``: it also runs when the triggerer restarts, so it cancels nothing. The next triggerer continues.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from mlengine.backends import TrainingBackend, polling_location, polling_settings
from mlengine.connections import CloudAccess
from mlengine.core.errors import MlengineError, StorageError, StorageUnavailableError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.deadlines import MAX_WAIT, Deadlines
from mlengine.jobs.log_forwarding import LogForwarder
from mlengine.jobs.polling import Poller
from mlengine.jobs.progress import LogCursor, read_cursor
from mlengine.jobs.submission import Submitter
from mlengine.jobs.threads import BUCKET, in_cancel_thread
from mlengine.jobs.throttled_warning import ThrottledWarning
from mlengine.jobs.watch import PollResult, PollWarning
from mlengine.storage.client import Storage

# Airflow 3.3.2 can mark a task failed that resumes within about 5 s of deferring: the executor's report of the first
# leg arrives late and is taken for the second's (apache/airflow#71580). To be removed when that is fixed.
EARLIEST_EVENT_SECONDS = 8.0
# How long a trigger retries to cancel a job whose deadline has passed, while the service does not answer.
CANCEL_RETRY_SECONDS = 300.0
# How long the bucket may take to give the log cursor before the wait checks its deadlines without polling.
CURSOR_SECONDS = 30.0

T = TypeVar("T")


@dataclass
class _Seen:
    """What a wait knows about its job.

    :param over: the job has ended, even if the backend does not know yet how.
    """

    state: JobState = JobState.UNKNOWN
    started: float | None = None
    over: bool = False

    def take(self, status: JobStatus) -> None:
        self.state, self.started = status.state, status.started
        self.over = status.state.terminal or status.ended is not None


class TrainingJobTrigger(BaseTrigger):
    """Waits for a job to end; cancels it when a deadline passes.

    :param handle: the :class:`~mlengine.core.job.JobHandle` as JSON.
    :param gcp_conn_id: the connection of the bucket, and of a backend in the cloud.
    :param impersonation_chain: :param project_id: :param region: :param backend_options: as of
        :class:`~mlengine.connections.CloudAccess`.
    :param poll_interval_seconds: seconds between two polls.
    :param progress_interval_seconds: seconds between two progress lines.
    :param queued_until: in seconds since the epoch; a job that has not run by then is cancelled. ``None``: no limit.
    :param running_until: likewise, for a job in any state: the wait's ``running_timeout_seconds``.
    :param execution_until: likewise: the task's ``execution_timeout``.
    :param wait_until: likewise: the sensor's ``timeout``.
    :param max_wait_until: as ``queued_until``: the job's own ``max_wait_seconds``.
    :param running_seconds: how long the job may take after its first start; ``None``: no limit of this kind.
    :param not_before: do not poll the job; wait until then, and send ``due``.
    """

    def __init__(
        self,
        *,
        handle: dict[str, Any],
        gcp_conn_id: str | None,
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        region: str | None = None,
        backend_options: dict[str, Any] | None = None,
        poll_interval_seconds: float = 5.0,
        progress_interval_seconds: float = 15.0,
        queued_until: float | None = None,
        running_until: float | None = None,
        execution_until: float | None = None,
        wait_until: float | None = None,
        max_wait_until: float | None = None,
        running_seconds: float | None = None,
        not_before: float = 0.0,
        **_from_another_version: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handle = handle
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = impersonation_chain
        self.project_id = project_id
        self.region = region
        self.backend_options = backend_options or {}
        self.poll_interval_seconds = poll_interval_seconds
        self.progress_interval_seconds = progress_interval_seconds
        self.deadlines = Deadlines.from_json(
            {
                "queued_until": queued_until,
                "running_until": running_until,
                "execution_until": execution_until,
                "wait_until": wait_until,
                "max_wait_until": max_wait_until,
                "running_seconds": running_seconds,
            }
        )
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "mlengine.triggers.training_job.TrainingJobTrigger",
            {
                "handle": self.handle,
                "gcp_conn_id": self.gcp_conn_id,
                "impersonation_chain": self.impersonation_chain,
                "project_id": self.project_id,
                "region": self.region,
                "backend_options": self.backend_options,
                "poll_interval_seconds": self.poll_interval_seconds,
                "progress_interval_seconds": self.progress_interval_seconds,
                **self.deadlines.to_json(),
                "not_before": self.not_before,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Send one event.

        * ``ended``, with the state that was seen
        * ``deadline``, with the name of the ``limit`` that was exceeded
        * ``due``: the pause before another attempt is over
        """
        began = time.monotonic()
        if self.not_before > time.time():
            await asyncio.sleep(self.not_before - time.time())
            event = {"job_id": self.handle["job_id"], "event": "due"}
        else:
            event = await self._wait()
        await asyncio.sleep(max(0.0, EARLIEST_EVENT_SECONDS - (time.monotonic() - began)))
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Cancel the job: a person, or the end of the DAG run, ended the task."""
        handle = JobHandle.from_json(self.handle)
        self.log.info("The task was ended while it waited; cancelling job %s", handle.job_id)
        await in_cancel_thread(self._cancel, handle)

    async def _wait(self) -> dict[str, Any]:
        handle, seen = JobHandle.from_json(self.handle), _Seen()
        storage = self._access().storage()
        cursor = await self._read_cursor(storage, handle, seen)
        if isinstance(cursor, str):
            return {"job_id": handle.job_id, "event": "deadline", "limit": cursor}
        poller = self._poller(handle)
        forwarder = LogForwarder(
            storage,
            handle,
            cursor,
            self.log,
            pace=poller.pace,
            progress_interval_seconds=self.progress_interval_seconds,
        )
        restarting = False
        try:
            async with poller.watch(handle, cursor.logs) as watch:
                while True:
                    left = None if seen.over else self.deadlines.seconds_left(seen.state, seen.started)
                    news = await watch.next(_shortest(left, forwarder.seconds_to_next()))
                    if isinstance(news, PollWarning):
                        forwarder.warn(news.message)
                    else:
                        await forwarder.forward(news)
                    if isinstance(news, PollResult):
                        seen.take(news.status)
                        if seen.state.terminal and not news.page.more:
                            return {"job_id": handle.job_id, "event": "ended", "state": seen.state.value}
                        restarting = await self._follow_restart(news.status, restarting)
                    if not seen.over and (limit := self.deadlines.exceeded(seen.state, seen.started)):
                        limit = await self._end_late_job(handle, limit, seen)
                        if limit:
                            return {"job_id": handle.job_id, "event": "deadline", "limit": limit}
                        # It has ended, or left QUEUED, since the last poll. Its last lines come with the next one.
                        poller.poll_soon()
        finally:
            # Also when the triggerer stops in order: the next one continues at this line.
            await asyncio.shield(forwarder.close())

    async def _read_cursor(self, storage: Storage, handle: JobHandle, seen: _Seen) -> LogCursor | str:
        """The saved cursor, or the name of a limit that the job has exceeded while the bucket did not answer."""
        reading = asyncio.ensure_future(self._retrying(read_cursor, storage, handle))
        try:
            # Nothing was polled yet: the job may be in the state with the most limits.
            state = JobState.QUEUED
            left: float | None = CURSOR_SECONDS
            while not (await asyncio.wait({reading}, timeout=left))[0]:
                if not seen.over and (limit := self.deadlines.exceeded(state, seen.started)):
                    limit = await self._end_late_job(handle, limit, seen)
                    if limit:
                        return limit
                    state = seen.state
                left = None if seen.over else self.deadlines.seconds_left(state, seen.started)
            return reading.result()
        finally:
            reading.cancel()

    async def _end_late_job(self, handle: JobHandle, limit: str, seen: _Seen) -> str | None:
        """Poll once more, and cancel the job if it still exceeds a limit.

        While the service does not answer, this is retried for :data:`CANCEL_RETRY_SECONDS`; then the worker that
        resumes tries it.

        :param seen: takes what that poll returns.
        :returns: the limit that it exceeds; ``None`` if it does not any more.
        """
        pause, until, warning = 1.0, time.monotonic() + CANCEL_RETRY_SECONDS, ThrottledWarning("Cancelling the job")
        while True:
            try:
                status, exceeded = await in_cancel_thread(self._cancel_if_late, handle)
            except MlengineError as error:
                self._warn(warning.failed(error))
                if not error.retryable or time.monotonic() + pause > until:
                    return limit
                await asyncio.sleep(pause)
                pause = min(pause * 2, 60.0)
            else:
                self._warn(f"{exceeded} exceeded; job {handle.job_id} is cancelled" if exceeded else None)
                seen.take(status)
                return exceeded

    def _cancel_if_late(self, handle: JobHandle) -> tuple[JobStatus, str | None]:
        status = self._backend(handle).describe([handle])[0]
        over = status.state.terminal or status.ended is not None
        limit = None if over else self.deadlines.exceeded(status.state, status.started)
        gave_up = limit == MAX_WAIT and self._submitter(handle).give_up_waiting(status)
        if limit and not gave_up:
            self._cancel(handle, f"{limit} exceeded", limit)
        return status, limit

    async def _follow_restart(self, status: JobStatus, restarting: bool) -> bool:
        """Record a restart by the service, or its end.

        :param restarting: whether the service restarted the job at the last poll.
        :returns: whether it restarts the job now.
        """
        began = status.restarting and not restarting
        if began or (restarting and status.state is JobState.RUNNING):
            try:
                await BUCKET.call(self._submitter(status.handle).note_restart, status, keep=True)
            except StorageUnavailableError as error:
                self._warn(f"Recording a restart by the service takes long; the wait continues: {error}")
            return status.restarting
        return restarting

    async def _retrying(self, call: Callable[..., T], *args: Any) -> T:
        """Call in a thread, again while the bucket does not answer: that must not fail a wait."""
        pause, warning = 1.0, ThrottledWarning("Reading the bucket")
        while True:
            try:
                found = await BUCKET.start(call, *args)
            except StorageError as error:
                if not error.retryable:
                    raise
                self._warn(warning.failed(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 60.0)
            else:
                self._warn(warning.succeeded())
                return found

    def _warn(self, message: str | None) -> None:
        if message is not None:
            self.log.warning("%11s | %s", "wait", message)

    def _poller(self, handle: JobHandle) -> Poller:
        """Shared by all waits at one location whose jobs differ only in settings that do not matter to polling."""
        access = self._access()
        access = replace(access, backend_options=polling_settings(handle.backend, access.backend_options or {}))
        location = polling_location(handle.backend, handle)
        key = json.dumps([handle.backend, location, asdict(access)], sort_keys=True)
        return Poller.shared(key, lambda: access.backend(handle.backend), self.poll_interval_seconds)

    def _access(self) -> CloudAccess:
        return CloudAccess(
            self.gcp_conn_id, self.impersonation_chain, self.project_id, self.region, self.backend_options
        )

    def _backend(self, handle: JobHandle) -> TrainingBackend:
        return self._access().backend(handle.backend)

    def _cancel(
        self, handle: JobHandle, why: str = "the task was ended while it waited", limit: str | None = None
    ) -> None:
        self._submitter(handle).end(handle, why, limit)

    def _submitter(self, handle: JobHandle) -> Submitter:
        return Submitter(self._access().storage(), self._backend(handle))


def _shortest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
