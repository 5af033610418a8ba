"""Stage: the wait for a job, deferred or not, with its logs, its progress, and what its end means.

The state is read again by whoever resumes; events carry ids only. Deferred, the triggerer waits for all jobs with one
poll. Without a triggerer, ``deferrable=False`` gives the same wait in ``mode="poke"`` or ``"reschedule"``.

What a job's end means: success returns; an end that machines are to blame for makes attempt n+1 in the same job dir,
within ``max_attempts``, after a pause, and waits on; the trainer's own failure fails the task without a retry, and so
does a cancellation by anybody but this task.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from mlengine import settings
from mlengine.backends import TrainingBackend
from mlengine.connections import connect_backend, connect_storage
from mlengine.core.errors import BackendUnavailableError, JobDeadlineError, JobFailedError, MlengineError
from mlengine.core.job import Decision, JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.jobs.progress import Deadlines, Narrator, Told, backoff, read_progress, read_told, write_told
from mlengine.jobs.submission import Submitter, ended_with_task, failed, submitted_at
from mlengine.jobs.throttled_warning import Complaint
from mlengine.links.job import WAIT_LINKS
from mlengine.operators import metrics
from mlengine.operators.ending import job_ends_with_task
from mlengine.operators.retry import RetryByCause
from mlengine.triggers.training_job import TrainingJobTrigger

# Airflow's own limit on the deferral lies behind ours, which ends the job before it ends the task.
_GRACE = 600.0


class TrainingJobSensor(BaseSensorOperator):
    """Wait for a training job.

    :param job: what :class:`~mlengine.operators.submit.SubmitTrainingJobOperator` returned.
    :param deferrable: wait in the triggerer; otherwise in a worker, as ``mode`` says.
    :param poll_interval_seconds: seconds between two looks.
    :param queued_timeout_seconds: seconds the job may be QUEUED.
    :param running_timeout_seconds: seconds it may take after that.
    :param max_attempts: how many attempts the job may have in all.

    Returns the handle of the attempt that succeeded, and its state; at once, for a job that is ``reused``.

    If the task is killed, deferred or not, or fails for good, the job is cancelled; so it is when a deadline of ours
    passes. ``timeout`` and ``execution_timeout`` count for a deferral too, each leg by itself; Airflow looks every
    15 s (``[scheduler] trigger_timeout_check_interval``).
    """

    template_fields: Sequence[str] = ("job", "backend_options", "gcp_conn_id")
    operator_extra_links = WAIT_LINKS
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        job: Any,
        deferrable: bool = True,
        backend_options: Mapping[str, Any] | None = None,
        poll_interval_seconds: float | None = None,
        queued_timeout_seconds: float | None = None,
        running_timeout_seconds: float | None = None,
        max_attempts: int | None = None,
        gcp_conn_id: str | None = "google_cloud_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"retry_policy": RetryByCause(), **kwargs})
        self.job = job
        self.deferrable = deferrable
        self.backend_options = backend_options
        self.poll_interval_seconds = poll_interval_seconds
        self.queued_timeout_seconds = queued_timeout_seconds
        self.running_timeout_seconds = running_timeout_seconds
        self.max_attempts = max_attempts
        self.gcp_conn_id = gcp_conn_id
        self.job_url: str | None = None
        self._handle: JobHandle | None = None
        self._since = time.time()
        # The first look of a try: who clears a task whose job was cancelled wants it to run again.
        self._first_look = False
        self._killed = False
        self._looks = Complaint("the look at the job")
        # Airflow's default of a week must not cut off what running_timeout_seconds allows.
        self._own_timeout = "timeout" in kwargs

    def execute(self, context: Any) -> Any:
        if self.job.get("decision") == Decision.REUSED:
            handle = JobHandle.from_json(dict(self.job))
            self.log.info("nothing to wait for: job %s stands in", handle.job_id)
            return {**handle.to_json(), "state": JobState.SUCCEEDED.value, "decision": Decision.REUSED.value}
        self._first_look = (
            self.deferrable or not self.reschedule or context["ti"].get_first_reschedule_date(context) is None
        )
        with job_ends_with_task(context, self._cancel):
            if self.deferrable:
                return self._wait_on(context)
            if self.poll_interval_seconds is not None:
                self.poke_interval = self.poll_interval_seconds
            if not self._own_timeout:
                self.timeout = self._longest() + _GRACE
            return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Resumed by the trigger's event: look again, and decide."""
        with job_ends_with_task(context, self._cancel):
            return self._wait_on(context, event.get("reason") if event.get("event") == "deadline" else None)

    def _wait_on(self, context: Any, too_late: str | None = None) -> dict[str, Any] | None:
        """Decide, if the job has ended; defer, if it has not."""
        try:
            handle = self._current()
            status = self._look(handle)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            if too_late:
                raise _too_late(self._handle, too_late) from error
            self.log.warning("the job could not be looked at, waiting on: %s", error)
            self._defer(self._handle)
            return None
        if not status.state.terminal:
            # A job that ended while its deadline passed has ended.
            if too_late:
                raise _too_late(handle, too_late)
            self.log.info(
                "job %s, attempt %d, is %s: waiting for it", handle.job_id, handle.attempt, status.state.value
            )
            self._defer(handle)
        elif (due := self._not_before(status)) > time.time():
            self._defer(handle, due)
        else:
            result = self._conclude(status, context)
            if result is not None:
                return result
            self._defer(self._current())
        return None

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Airflow ends a deferral that fails or takes too long without telling the trigger."""
        if next_method == "__fail__":
            self.log.warning("the deferral failed: %s", (next_kwargs or {}).get("error"))
            with job_ends_with_task(context, self._cancel):
                status = self._look(self._current())
                if status.state is JobState.SUCCEEDED:
                    return self._conclude(status, context)
                return super().resume_execution(next_method, next_kwargs, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Any) -> PokeReturnValue:
        """One look without a triggerer: tells what is new, and decides if the job has ended."""
        try:
            handle = self._current()
            status = self._look(handle)
            self._tell(status)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            if late := self._deadlines().passed(JobState.UNKNOWN):
                raise _too_late(self._handle, late) from error
            self._remark(self._looks.failed(error))
            return PokeReturnValue(False)
        self._remark(self._looks.well())
        if not status.state.terminal and (late := self._deadlines().passed(status.state)):
            raise _too_late(handle, late)
        result = None
        if status.state.terminal and self._not_before(status) <= time.time():
            result = self._conclude(status, context)
        self._first_look = False
        return PokeReturnValue(result is not None, result)

    def _remark(self, text: str | None) -> None:
        if text is not None:
            self.log.warning("%11s | %s", "wait", text)

    def on_kill(self) -> None:
        """Killed in the worker: cancel the job."""
        self._killed = True
        # Before its fields are rendered, a task knows no job; the end of its run ends that one.
        if self._handle is not None or isinstance(self.job, Mapping):
            self._cancel("the task was killed")

    def _cancel(self, why: str) -> None:
        handle = self._handle or self._current()
        with suppress(BackendUnavailableError):
            if self._backend(handle).describe([handle])[0].state.terminal:
                return
        self.log.warning("%s; cancelling job %s", why, handle.job_id)
        self._submitter(handle).end(handle, why)

    def _current(self) -> JobHandle:
        """The live attempt: the submission's, or a later one that this wait has made."""
        handle = JobHandle.from_json(dict(self.job))
        self._handle = handle  # what is ended if the record cannot be read
        record = self._submitter(handle).record(JobDir(handle.job_dir))
        self._handle = record.handle(handle.job_dir) or handle
        self._since = submitted_at(record) or self._since
        return self._handle

    def _look(self, handle: JobHandle) -> JobStatus:
        backend = self._backend(handle)
        self._handle = handle
        self.job_url = backend.console_url(handle)
        return backend.describe([handle])[0]

    def _not_before(self, status: JobStatus) -> float:
        """When a job that has ended may be concluded: at once, or after a pause if it may need another attempt."""
        retryable = status.failure is not None and status.failure.cause.retryable
        if not retryable or status.ended is None or status.handle.attempt >= self._attempts():
            return 0.0
        return status.ended + backoff(status.handle.attempt, settings.get_float("retry_backoff_seconds"))

    def _conclude(self, status: JobStatus, context: Any) -> dict[str, Any] | None:
        """The result of a job that has ended; ``None`` if a new attempt was made and the caller waits on."""
        handle = status.handle
        if status.state is JobState.SUCCEEDED:
            self.log.info("job %s SUCCEEDED", handle.job_id)
            self._submitter(handle).note_environment(handle)
            return {**handle.to_json(), "state": status.state.value}
        if self._killed:
            # Airflow calls on_kill from within and lets the task run on.
            raise AirflowFailException(f"the task was killed; job {handle.job_id} is {status.state.value}")
        submitter = self._submitter(handle)
        if (
            status.state is JobState.CANCELLED
            and not self._first_look
            and not ended_with_task(submitter.record(JobDir(handle.job_dir)))
        ):
            why = "by somebody else: in the console, or by `mlengine cancel`; clear `submit` to train again"
            raise AirflowFailException(str(failed(status, f"it was cancelled {why}")))
        try:
            submitted = submitter.next_attempt(status)
        except JobFailedError as error:
            # The message says it all; with its cause it would be shown twice.
            raise AirflowFailException(str(error)) from None
        metrics.count(submitted.decision, context, handle.backend)
        self.log.warning(
            "%s: attempt %d goes on from the last checkpoint", submitted.decision.value, submitted.handle.attempt
        )
        return None

    def _defer(self, handle: JobHandle, not_before: float = 0.0) -> None:
        deadlines = self._deadlines()
        left = deadlines.seconds_left()
        limits = [] if left is None else [left + _GRACE]
        if self._own_timeout or not limits:
            limits.append(self.timeout)
        if self.execution_timeout is not None:
            limits.append(self.execution_timeout.total_seconds())
        self.defer(
            trigger=TrainingJobTrigger(
                handle=handle.to_json(),
                gcp_conn_id=self.gcp_conn_id,
                backend_options=dict(self.backend_options or {}),
                poll_interval_seconds=settings.get_float("poll_interval_seconds", self.poll_interval_seconds),
                progress_interval_seconds=settings.get_float("progress_interval_seconds"),
                not_before=not_before,
                **asdict(deadlines),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=min(limits)),
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
            settings.get_float("queued_timeout_seconds", self.queued_timeout_seconds),
            settings.get_float("running_timeout_seconds", self.running_timeout_seconds),
        )

    def _longest(self) -> float:
        queued = settings.get_float("queued_timeout_seconds", self.queued_timeout_seconds)
        return queued + settings.get_float("running_timeout_seconds", self.running_timeout_seconds)

    def _submitter(self, handle: JobHandle) -> Submitter:
        return Submitter(
            connect_storage(self.gcp_conn_id),
            self._backend(handle),
            max_attempts=self._attempts(),
        )

    def _attempts(self) -> int:
        return settings.get_int("max_attempts", self.max_attempts)

    def _backend(self, handle: JobHandle) -> TrainingBackend:
        return connect_backend(handle.backend, self.gcp_conn_id, self.backend_options)


def _too_late(handle: JobHandle, reason: str) -> AirflowFailException:
    error = JobDeadlineError(
        f"job {handle.job_id} is cancelled: {reason}",
        remedy="raise queued_timeout_seconds or running_timeout_seconds, or give the job fewer steps or more machines",
    )
    return AirflowFailException(str(error))
