"""Stage: the wait for a job, deferred or not, with its logs, its progress, and what its end means.

The state is read again by whoever resumes; events carry ids only. Deferred, the triggerer waits for all jobs with one
poll. Without a triggerer, ``deferrable=False`` gives the same wait in ``mode="poke"`` or ``"reschedule"``.

What a job's end means: success returns; an end that machines are to blame for makes attempt n+1 in the same job dir,
within ``max_attempts``, and waits on; the trainer's own failure fails the task without a retry.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from mlengine import settings
from mlengine.backends import TrainingBackend
from mlengine.connect import connect_backend, connect_storage
from mlengine.core.errors import JobDeadlineError, JobFailedError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.links.job import JobLink
from mlengine.operators.ending import job_ends_with_task
from mlengine.submission import Submitter
from mlengine.triggers.training_job import TrainingJobTrigger
from mlengine.waiting import Deadlines, Narrator, Told, read_progress, read_told, write_told

# Airflow's own limit on the deferral lies behind ours, which ends the job before it ends the task.
_GRACE = timedelta(minutes=10)


class TrainingJobSensor(BaseSensorOperator):
    """Wait for a training job.

    :param job: what :class:`~mlengine.operators.submit.SubmitTrainingJobOperator` returned.
    :param deferrable: wait in the triggerer; otherwise in a worker, as ``mode`` says.
    :param poll_interval: seconds between two looks.
    :param queued_timeout: seconds the job may be QUEUED.
    :param running_timeout: seconds it may take after that.
    :param max_attempts: how many attempts the job may have in all.

    Returns the handle of the attempt that succeeded, and its state.

    If the task is killed, deferred or not, or fails for good, the job is cancelled; so it is when a deadline of ours
    passes.
    """

    template_fields: Sequence[str] = ("job", "backend_options", "gcp_conn_id")
    operator_extra_links = (JobLink(),)
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        job: Any,
        deferrable: bool = True,
        backend_options: Mapping[str, Any] | None = None,
        poll_interval: float | None = None,
        queued_timeout: float | None = None,
        running_timeout: float | None = None,
        max_attempts: int | None = None,
        gcp_conn_id: str | None = "google_cloud_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.deferrable = deferrable
        self.backend_options = backend_options
        self.poll_interval_seconds = poll_interval
        self.queued_timeout = queued_timeout
        self.running_timeout = running_timeout
        self.max_attempts = max_attempts
        self.gcp_conn_id = gcp_conn_id
        self.job_url: str | None = None
        self._handle: JobHandle | None = None
        self._since = time.time()

    def execute(self, context: Any) -> Any:
        with job_ends_with_task(context, self._cancel):
            if self.deferrable:
                return self._wait_on()
            if self.poll_interval_seconds is not None:
                self.poke_interval = self.poll_interval_seconds
            return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Resumed by the trigger's event: look again, and decide."""
        with job_ends_with_task(context, self._cancel):
            if event.get("event") == "deadline":
                raise _too_late(self._current(), event.get("reason", "its deadline passed"))
            return self._wait_on()

    def _wait_on(self) -> dict[str, Any] | None:
        """Decide, if the job has ended; defer, if it has not."""
        handle = self._current()
        status = self._look(handle)
        if status.state.terminal:
            return self._conclude(status)
        self._defer(handle)
        return None

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Airflow ends a deferral that fails or takes too long without telling the trigger."""
        if next_method == "__fail__":
            self.log.warning("the deferral failed: %s", (next_kwargs or {}).get("error"))
            with job_ends_with_task(context, self._cancel):
                return super().resume_execution(next_method, next_kwargs, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002
        """One look without a triggerer: tells what is new, and decides if the job has ended."""
        handle = self._current()
        status = self._look(handle)
        self._tell(status)
        if not status.state.terminal and (late := self._deadlines().passed(status.state)):
            raise _too_late(handle, late)
        if status.state.terminal:
            result = self._conclude(status, wait_on=False)
            return PokeReturnValue(result is not None, result)
        return PokeReturnValue(False)

    def on_kill(self) -> None:
        """Killed in the worker: cancel the job."""
        self._cancel()

    def _cancel(self) -> None:
        handle = self._handle or self._current()
        self.log.warning("the task ends; cancelling job %s", handle.job_id)
        self._backend(handle).cancel(handle)

    def _current(self) -> JobHandle:
        """The live attempt: the submission's, or a later one that this wait has made."""
        handle = JobHandle.from_json(dict(self.job))
        record = self._submitter(handle).record(JobDir(handle.job_dir))
        self._handle = record.handle(handle.job_dir) or handle
        self._since = record.history[-1]["time"] if record.history else self._since
        return self._handle

    def _look(self, handle: JobHandle) -> JobStatus:
        backend = self._backend(handle)
        self._handle = handle
        self.job_url = backend.console_url(handle)
        return backend.describe([handle])[0]

    def _conclude(self, status: JobStatus, *, wait_on: bool = True) -> dict[str, Any] | None:
        """The result of a job that has ended; ``None`` if a new attempt was made and the caller looks again."""
        if status.state is JobState.SUCCEEDED:
            self.log.info("job %s SUCCEEDED", status.handle.job_id)
            return {**status.handle.to_json(), "state": status.state.value}
        try:
            submitted = self._submitter(status.handle).next_attempt(status)
        except JobFailedError as error:
            raise AirflowFailException(str(error)) from error
        self.log.warning(
            "%s: attempt %d goes on from the last checkpoint", submitted.decision.value, submitted.handle.attempt
        )
        if wait_on:
            self._current()
            self._defer(submitted.handle)
        return None

    def _defer(self, handle: JobHandle) -> None:
        deadlines = self._deadlines()
        self.defer(
            trigger=TrainingJobTrigger(
                handle=handle.to_json(),
                gcp_conn_id=self.gcp_conn_id,
                backend_options=dict(self.backend_options or {}),
                poll_interval=settings.get_float("poll_interval", self.poll_interval_seconds),
                progress_interval=settings.get_float("progress_interval"),
                **asdict(deadlines),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=deadlines.seconds_left() or 0) + _GRACE,
        )

    def _tell(self, status: JobStatus) -> None:
        """Without a triggerer: log what is new since the last look, whichever process took it."""
        storage, handle = connect_storage(self.gcp_conn_id), status.handle
        narrator = Narrator(read_told(storage, handle))
        while True:
            page = self._backend(handle).logs(handle, narrator.told.logs)
            progress = read_progress(storage, JobDir(handle.job_dir))
            before: Told = narrator.told
            for line in narrator.tell(status, page, progress):
                self.log.info("%s", line)
            if narrator.told != before:
                write_told(storage, handle, narrator.told)
            if not page.more:
                return

    def _deadlines(self) -> Deadlines:
        """Counted from the attempt's submission, so that a wait which is begun again does not begin to count anew."""
        return Deadlines.starting(
            self._since,
            settings.get_float("queued_timeout", self.queued_timeout),
            settings.get_float("running_timeout", self.running_timeout),
        )

    def _submitter(self, handle: JobHandle) -> Submitter:
        return Submitter(
            connect_storage(self.gcp_conn_id),
            self._backend(handle),
            max_attempts=settings.get_int("max_attempts", self.max_attempts),
        )

    def _backend(self, handle: JobHandle) -> TrainingBackend:
        return connect_backend(handle.backend, self.gcp_conn_id, self.backend_options)


def _too_late(handle: JobHandle, reason: str) -> AirflowFailException:
    error = JobDeadlineError(
        f"job {handle.job_id} is cancelled: {reason}",
        remedy="raise queued_timeout or running_timeout, or give the job fewer steps or more machines",
    )
    return AirflowFailException(str(error))
