"""The deferred wait for one job: plain data in, one event out.

Runs in the triggerer. New log lines, progress and state changes go to the task's log as they come. The event carries
ids only; the worker that resumes re-reads the truth.

``on_kill`` cancels the job: a person marked the task failed or succeeded, or cleared it, or its DAG run ended.
``cleanup`` does not: it runs at every restart of the triggerer too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from mlengine.backends import TrainingBackend
from mlengine.connections import connect_backend, connect_storage
from mlengine.core.errors import StorageError
from mlengine.core.job import JobHandle, JobState
from mlengine.jobs.log_forwarding import Account, in_thread
from mlengine.jobs.polling import Poller
from mlengine.jobs.progress import Deadlines, read_told
from mlengine.jobs.submission import Submitter
from mlengine.jobs.throttled_warning import Complaint
from mlengine.jobs.watch import Look, Remark

# Airflow 3.3.2 can mark a task failed that resumes within about 5 s of deferring: the executor's report of the first
# leg arrives late and is taken for the second's (apache/airflow#71580). To be removed when that is fixed.
EARLIEST_EVENT_SECONDS = 8.0

T = TypeVar("T")


class TrainingJobTrigger(BaseTrigger):
    """Waits for a job to end, or for our own deadline.

    :param handle: the :class:`~mlengine.core.job.JobHandle` as JSON.
    :param gcp_conn_id: the connection of the bucket, and of a backend in the cloud.
    :param backend_options: the backend's settings.
    :param poll_interval_seconds: seconds between two looks.
    :param progress_interval_seconds: seconds between two progress lines.
    :param queued_until: seconds since the epoch; a job still QUEUED then is given up.
    :param running_until: likewise, for a job in any state.
    :param not_before: do not look at the job; wait until then, and say ``due``.
    """

    def __init__(
        self,
        *,
        handle: dict[str, Any],
        gcp_conn_id: str | None,
        backend_options: dict[str, Any] | None = None,
        poll_interval_seconds: float = 5.0,
        progress_interval_seconds: float = 15.0,
        queued_until: float = float("inf"),
        running_until: float = float("inf"),
        not_before: float = 0.0,
        **_from_another_version: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handle = handle
        self.gcp_conn_id = gcp_conn_id
        self.backend_options = backend_options or {}
        self.poll_interval_seconds = poll_interval_seconds
        self.progress_interval_seconds = progress_interval_seconds
        self.queued_until = queued_until
        self.running_until = running_until
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "mlengine.triggers.training_job.TrainingJobTrigger",
            {
                "handle": self.handle,
                "gcp_conn_id": self.gcp_conn_id,
                "backend_options": self.backend_options,
                "poll_interval_seconds": self.poll_interval_seconds,
                "progress_interval_seconds": self.progress_interval_seconds,
                "queued_until": self.queued_until,
                "running_until": self.running_until,
                "not_before": self.not_before,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: ``ended`` with the state seen, ``deadline`` with the sentence that says which, or ``due``: the
        pause before another attempt is over.
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
        """A person, or the end of the DAG run, ended the task: end the job too."""
        handle = JobHandle.from_json(self.handle)
        self.log.info("the task was ended while it waited; cancelling job %s", handle.job_id)
        await asyncio.to_thread(self._end, handle)

    async def _wait(self) -> dict[str, Any]:
        handle = JobHandle.from_json(self.handle)
        storage = connect_storage(self.gcp_conn_id)
        told = await self._patiently(read_told, storage, handle)
        poller = self._poller(handle)
        account = Account(
            storage, handle, told, self.log, pace=poller.pace, progress_interval=self.progress_interval_seconds
        )
        deadlines = Deadlines(self.queued_until, self.running_until)
        state = JobState.UNKNOWN
        try:
            async with poller.watch(handle, told.logs) as watch:
                while True:
                    left = None if state.terminal else deadlines.seconds_left(state)
                    look = await watch.look(_shortest(left, account.seconds_to_next()))
                    if isinstance(look, Remark):
                        account.remark(look.text)
                    else:
                        await account.tell(look)
                    if isinstance(look, Look):
                        state = look.status.state
                        if state.terminal and not look.page.more:
                            return {"job_id": handle.job_id, "event": "ended", "state": state.value}
                    if not state.terminal and (late := deadlines.passed(state)):
                        return {"job_id": handle.job_id, "event": "deadline", "reason": late}
        finally:
            # Also when the triggerer ends in order: the next one goes on at the very line.
            await asyncio.shield(account.close())

    async def _patiently(self, call: Callable[..., T], *args: Any) -> T:
        """In a thread, again and again while the bucket does not answer: a wait does not fail by that."""
        pause, bucket = 1.0, Complaint("the look into the bucket")
        while True:
            try:
                found = cast(T, await in_thread(call, *args))
            except StorageError as error:
                if not error.retryable:
                    raise
                self._say(bucket.failed(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 60.0)
            else:
                self._say(bucket.well())
                return found

    def _say(self, text: str | None) -> None:
        if text is not None:
            self.log.warning("%11s | %s", "wait", text)

    def _poller(self, handle: JobHandle) -> Poller:
        place = json.dumps([handle.backend, self.gcp_conn_id, self.backend_options], sort_keys=True)

        def make() -> TrainingBackend:
            return connect_backend(handle.backend, self.gcp_conn_id, self.backend_options)

        return Poller.shared(place, make, self.poll_interval_seconds)

    def _end(self, handle: JobHandle) -> None:
        backend = connect_backend(handle.backend, self.gcp_conn_id, self.backend_options)
        Submitter(connect_storage(self.gcp_conn_id), backend).end(handle, "the task was ended while it waited")


def _shortest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
