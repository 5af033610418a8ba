"""The trigger that waits for one job in the triggerer. Its arguments are plain data, and it sends one event.

The trigger writes new log lines, progress and state changes to the task's log. The event contains only ids, and the
worker that resumes the task reads the job's state again.

A wait can end before its job does, for one of three reasons:

* ``on_kill``: a user marked the task as failed or succeeded, or cleared it, or its DAG run ended. The trigger cancels
  the job.
* A deadline has passed. The trigger cancels the job before it sends the event, because no worker resumes the task while
  the DAG is paused.
* ``cleanup``: Airflow also calls it when the triggerer restarts, so the trigger does not cancel the job. The next
  triggerer continues the wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from mlengine.backends import TrainingBackend, polling_location, polling_settings
from mlengine.connections import CloudAccess
from mlengine.core.errors import MlengineError, StorageError, StorageUnavailableError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.jobs.deadlines import MAX_WAIT, Deadlines
from mlengine.jobs.log_channel import log_channel
from mlengine.jobs.log_forwarding import LogForwarder
from mlengine.jobs.polling import Poller
from mlengine.jobs.progress import LogCursor, log_line, read_cursor
from mlengine.jobs.submission import Submitter
from mlengine.jobs.threads import BUCKET, in_cancel_thread
from mlengine.jobs.throttled_warning import ThrottledWarning
from mlengine.jobs.watch import ALL_LINES_SECONDS, PollResult, PollWarning
from mlengine.storage.client import Storage

# Seconds between the start of a trigger and its event. Airflow 3.3.2 can fail a task that resumes soon after it was
# deferred: the executor's event for the first part of the task arrives late, up to 12 s on a busy machine, and Airflow
# assigns it to the second part (apache/airflow#71580). Remove this when the issue is fixed.
EARLIEST_EVENT_SECONDS = 15.0
# Maximum time for retries to cancel a job whose deadline has passed, while the service does not respond.
CANCEL_RETRY_SECONDS = 300.0
# The longest time for Airflow to read the last lines of a wait that ends before its job.
STOPPED_SECONDS = 5.0
# If the bucket has not returned the log cursor after this time, the wait checks its deadlines before the first poll.
CURSOR_SECONDS = 30.0

T = TypeVar("T")


class _DeadlinePassed(Exception):  # noqa: N818 - ends a wait, and is not an error
    """The wait ends because its job exceeds a limit."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class TrainingJobTrigger(BaseTrigger):
    """Waits for a job to end, and cancels it when a deadline passes.

    All times are in seconds since the epoch. A deadline that is ``None`` does not apply.

    :param handle: the :class:`~mlengine.core.job.JobHandle` as JSON.
    :param gcp_conn_id: the Airflow connection for the bucket, and for a backend in the cloud.
    :param impersonation_chain: see :class:`~mlengine.connections.CloudAccess`.
    :param project_id: see :class:`~mlengine.connections.CloudAccess`.
    :param region: see :class:`~mlengine.connections.CloudAccess`.
    :param backend_options: see :class:`~mlengine.connections.CloudAccess`.
    :param poll_interval_seconds: seconds between two polls.
    :param progress_interval_seconds: seconds between two progress lines.
    :param queued_until: the job is cancelled if it has not started by this time, by ``queued_timeout_seconds``.
    :param running_until: the job is cancelled at this time in any state, by ``running_timeout_seconds``.
    :param execution_until: the job is cancelled at this time in any state, by the task's ``execution_timeout``.
    :param wait_until: the job is cancelled at this time in any state, by the sensor's ``timeout``.
    :param max_wait_until: the job is cancelled if it has not started by this time, by its own ``max_wait_seconds``.
    :param running_seconds: maximum number of seconds after the job's first start; ``None`` for no limit.
    :param not_before: if this time is in the future, do not poll the job, but wait until then and send ``due``.
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

        * ``ended``, with the job's ``state``
        * ``deadline``, with the name of the ``limit`` that was exceeded
        * ``due``: the pause before another attempt has ended
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
        """Cancel the job, because a user or the end of the DAG run ended the task."""
        handle = JobHandle.from_json(self.handle)
        self.log.info("The task was ended while it was waiting; cancelling job %s", handle.job_id)
        await in_cancel_thread(self._cancel, handle)

    async def _wait(self) -> dict[str, Any]:
        """Wait until the job has ended or a deadline has passed, and return the event."""
        handle = JobHandle.from_json(self.handle)
        try:
            state = await self._wait_for_end(handle)
        except _DeadlinePassed as passed:
            return {"job_id": handle.job_id, "event": "deadline", "limit": passed.limit}
        return {"job_id": handle.job_id, "event": "ended", "state": state.value}

    async def _wait_for_end(self, handle: JobHandle) -> JobState:
        storage = self._access().storage()
        cursor, status = await self._read_cursor(storage, handle)
        poller = self._poller(handle)
        forwarder = LogForwarder(
            storage,
            handle,
            cursor,
            self.log,
            log_channel(),
            pace=poller.pace,
            progress_interval_seconds=self.progress_interval_seconds,
        )
        restarting = ended = False
        try:
            async with poller.watch(handle, cursor.logs) as watch:
                while True:
                    left = self.deadlines.seconds_left(status)
                    news = await watch.next(_shortest(left, forwarder.seconds_to_next()))
                    if isinstance(news, PollWarning):
                        forwarder.warn(news.message)
                    else:
                        await forwarder.forward(news)
                    if isinstance(news, PollResult):
                        status = news.status
                        if ended := status.state.terminal and not news.page.more:
                            return status.state
                        restarting = await self._follow_restart(status, restarting)
                    if limit := self.deadlines.exceeded(status):
                        status = await self._end_late_job(handle, limit)
                        # The job has ended, or left QUEUED, since the last poll. The next poll reads its last lines.
                        poller.poll_soon()
        finally:
            # This also runs when the triggerer shuts down, so that the next triggerer continues after the same line.
            await asyncio.shield(forwarder.close(ALL_LINES_SECONDS if ended else STOPPED_SECONDS))

    async def _read_cursor(self, storage: Storage, handle: JobHandle) -> tuple[LogCursor, JobStatus]:
        """Read the saved log cursor.

        :returns: the cursor; and the job's status, which is unknown if it was not necessary to poll the job.
        :raises _DeadlinePassed: the job exceeded a limit while the bucket did not respond.
        """
        reading = asyncio.ensure_future(self._retrying(read_cursor, storage, handle))
        try:
            # The job has not been polled yet. Assume the state to which the most limits apply.
            status, assumed = JobStatus(handle, JobState.UNKNOWN), JobStatus(handle, JobState.QUEUED)
            left: float | None = CURSOR_SECONDS
            while not (await asyncio.wait({reading}, timeout=left))[0]:
                if limit := self.deadlines.exceeded(assumed):
                    status = assumed = await self._end_late_job(handle, limit)
                left = self.deadlines.seconds_left(assumed)
            return reading.result(), status
        finally:
            reading.cancel()

    async def _end_late_job(self, handle: JobHandle, limit: str) -> JobStatus:
        """Poll once more, and cancel the job if it still exceeds a limit.

        While the service does not respond, this is retried for :data:`CANCEL_RETRY_SECONDS`. After that, the worker
        that resumes the task tries it.

        :returns: the job's status, if it no longer exceeds a limit.
        :raises _DeadlinePassed: the job exceeds a limit.
        """
        pause, until, warning = 1.0, time.monotonic() + CANCEL_RETRY_SECONDS, ThrottledWarning("Cancelling the job")
        while True:
            try:
                status, exceeded = await in_cancel_thread(self._cancel_if_late, handle)
            except MlengineError as error:
                self._warn(warning.failed(error))
                if not error.retryable or time.monotonic() + pause > until:
                    raise _DeadlinePassed(limit) from error
                await asyncio.sleep(pause)
                pause = min(pause * 2, 60.0)
            else:
                if exceeded:
                    self._warn(f"Cancelled job {handle.job_id}: it exceeded {exceeded}")
                    raise _DeadlinePassed(exceeded)
                return status

    def _cancel_if_late(self, handle: JobHandle) -> tuple[JobStatus, str | None]:
        status = self._backend(handle).describe([handle])[0]
        limit = self.deadlines.exceeded(status)
        gave_up = limit == MAX_WAIT and self._submitter(handle).give_up_waiting(status)
        if limit and not gave_up:
            self._cancel(handle, f"{limit} exceeded", limit)
        return status, limit

    async def _follow_restart(self, status: JobStatus, restarting: bool) -> bool:
        """Record the beginning or the end of a restart by the service.

        :param restarting: whether the service was restarting the job at the previous poll.
        :returns: whether the service is restarting the job now.
        """
        began = status.restarting and not restarting
        if began or (restarting and status.state is JobState.RUNNING):
            try:
                await BUCKET.call(self._submitter(status.handle).note_restart, status, keep=True)
            except StorageUnavailableError as error:
                self._warn(f"Recording the service's restart is taking a long time; still waiting: {error}")
            return status.restarting
        return restarting

    async def _retrying(self, call: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread. Retry while the bucket does not respond, because that must not fail a wait."""
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
            self.log.warning("%s", log_line("wait", message))

    def _poller(self, handle: JobHandle) -> Poller:
        """The poller for this job. All waits with the same location and the same settings for polling share it."""
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
        self, handle: JobHandle, why: str = "the task was ended while it was waiting", limit: str | None = None
    ) -> None:
        self._submitter(handle).end(handle, why, limit)

    def _submitter(self, handle: JobHandle) -> Submitter:
        return Submitter(self._access().storage(), self._backend(handle))


def _shortest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
