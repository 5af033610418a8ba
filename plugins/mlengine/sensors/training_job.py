"""The stage that waits for a job: it forwards logs and progress to the task's log, and decides when the job has ended.

In a deferred wait, the triggerer polls all jobs together. Its event contains only ids, and the worker that resumes the
task reads the job's state again. With ``deferrable=False``, the sensor polls in a worker instead, in ``mode="poke"`` or
``mode="reschedule"``.

When the job has ended:

* If the job succeeded, the task succeeds and returns its handle.
* If machines failed, the next attempt is submitted in the same job directory, after a pause and within
  ``max_attempts``, and the wait continues.
* If the trainer failed, or the job was cancelled by someone other than this task, the task fails without a retry.

With ``soft_fail`` or ``never_fail``, the task is skipped instead of failed, wherever the error occurs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue, XComArg
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from mlengine import settings
from mlengine.backends import LogPage, TrainingBackend
from mlengine.core.arguments import fixed_flag
from mlengine.core.errors import (
    BackendUnavailableError,
    JobDeadlineError,
    JobFailedError,
    MlengineError,
    StorageError,
)
from mlengine.core.job import Decision, JobHandle, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.xcoms import JobXCom
from mlengine.job_index.recording import record_end
from mlengine.jobs.deadlines import MAX_WAIT, Deadlines, backoff, max_wait_seconds
from mlengine.jobs.log_forwarding import RESUMED
from mlengine.jobs.progress import LogFormatter, log_line, read_cursor, read_progress, write_cursor
from mlengine.jobs.submission import Submitter, cancelled_outside, exceeded_limit, failed, submitted_at
from mlengine.jobs.throttled_warning import ThrottledWarning
from mlengine.jobs.watch import LAST_LINES_SECONDS, last_lines_missing
from mlengine.links.job import WAIT_LINKS
from mlengine.operators._base import BackendOperator
from mlengine.operators._job_tasks import RefusesFailFast, count, job_ends_with_task
from mlengine.operators.lineage import tasks as lineage
from mlengine.triggers.training_job import TrainingJobTrigger

_NUMBERS = (
    "poll_interval_seconds",
    "progress_interval_seconds",
    "queued_timeout_seconds",
    "running_timeout_seconds",
    "max_attempts",
    "retry_backoff_seconds",
)
_HANDLE = ("backend", "name", "job_id", "attempt", "job_dir")
# Airflow's time limit of the deferral is this many seconds after the last deadline, so that the trigger cancels the job
# first.
_GRACE = 600.0
_READ_AGAIN_SECONDS = 1.0  # pause after a log could not be read, while the job's last lines are still expected
_HINTS = {
    "max_wait_seconds": "raise max_wait_seconds or maxWaitTime, or request machines that are more readily available",
    "queued_timeout_seconds": "raise queued_timeout_seconds, or request machines that are more readily available",
    "running_timeout_seconds": "raise running_timeout_seconds, reduce the number of steps, or add machines",
    "execution_timeout": "raise the task's execution_timeout, reduce the number of steps, or add machines",
    "timeout": "raise the sensor's timeout, reduce the number of steps, or add machines",
}


class TrainingJobSensor(BackendOperator, RefusesFailFast, BaseSensorOperator):
    """Wait for a training job.

    :param job: the output of :class:`~mlengine.operators.submit.SubmitTrainingJobOperator`.
    :param deferrable: whether to wait in the triggerer instead of a worker. The default is Airflow's setting
        ``[operators] default_deferrable``.
    :param poll_interval_seconds: polling interval of the job. By default, this and the other durations, and
        ``max_attempts``, are the settings with the same names. If neither the argument nor the setting is given, a wait
        that is not deferred polls every ``poke_interval``, which is one minute by default.
    :param progress_interval_seconds: interval between two progress lines in the task's log.
    :param queued_timeout_seconds: maximum time that the job may be QUEUED and PREPARING before it is cancelled. On
        Vertex AI, a limit of the job replaces the default: ``max_wait_seconds`` in ``backend_options``, or
        ``maxWaitTime`` in the job file.
    :param running_timeout_seconds: maximum time that the job may take after it has started.
    :param max_attempts: maximum number of attempts of the job.
    :param retry_backoff_seconds: pause before attempt 2; doubled for each further attempt.
    :param mode: how to wait in a worker: ``reschedule`` frees the worker's slot between two polls, ``poke`` does not.

    :returns: :class:`~mlengine.core.xcoms.JobXCom`: the handle of the attempt that succeeded, and its state. If the job
        is ``reused``, the task returns immediately.

    If the task is killed, deferred or not, or fails without a retry, the job is cancelled. The job is also cancelled
    when ``max_wait_seconds``, ``queued_timeout_seconds``, ``running_timeout_seconds``, ``execution_timeout`` or
    ``timeout`` is exceeded. In a deferred wait, this applies even while the DAG is paused. ``execution_timeout`` and
    ``timeout`` start again with each deferral.
    """

    # "job" must be the last template field: as soon as it is rendered, a killed task cancels its job, and the
    # cancellation uses the other fields.
    template_fields: Sequence[str] = (*BackendOperator.template_fields, *_NUMBERS, "job")
    parsers: ClassVar = {name: partial(settings.check, name) for name in _NUMBERS}
    operator_extra_links = WAIT_LINKS
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        job: JobXCom | XComArg | str,
        deferrable: bool | None = None,
        poll_interval_seconds: float | str | None = None,
        progress_interval_seconds: float | str | None = None,
        queued_timeout_seconds: float | str | None = None,
        running_timeout_seconds: float | str | None = None,
        max_attempts: int | str | None = None,
        retry_backoff_seconds: float | str | None = None,
        mode: str = "reschedule",
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.job = job
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = fixed_flag("deferrable", deferrable)
        self.poll_interval_seconds = poll_interval_seconds
        self.progress_interval_seconds = progress_interval_seconds
        self.queued_timeout_seconds = queued_timeout_seconds
        self.running_timeout_seconds = running_timeout_seconds
        self.max_attempts = max_attempts
        self.retry_backoff_seconds = retry_backoff_seconds
        self.job_url: str | None = None
        self._handle: JobHandle | None = None
        self._record: JobRecord | None = None
        self._since = time.time()
        # Whether this is the first poll of a try: a user who clears a task whose job was cancelled wants a new attempt.
        self._first_poll = False
        self._killed = False
        self._poll_warning = ThrottledWarning("Polling the job")
        self._cancel_warning = ThrottledWarning("Cancelling the job")
        self._log_warning = ThrottledWarning("Reading the job's log")
        # Airflow's default timeout of one week must not end a wait that running_timeout_seconds still allows.
        given = {**(kwargs.get("default_args") or {}), **kwargs}
        self._own_timeout = given.get("timeout") is not None
        self._own_poke_interval = given.get("poke_interval") is not None
        self.check_literals()

    def execute(self, context: Context) -> Any:
        job = self.returned("job", *_HANDLE)
        if job.get("decision") == Decision.REUSED:
            handle = JobHandle.from_json(job)
            self._lineage = partial(lineage.reused, handle)
            self.log.info("Nothing to wait for: reusing job %s", handle.job_id)
            return {**handle.to_json(), "state": JobState.SUCCEEDED.value, "decision": Decision.REUSED.value}
        self._first_poll = (
            self.deferrable or not self.reschedule or context["ti"].get_first_reschedule_date(context) is None
        )
        with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
            for name in self.parsers:
                self.given(name)  # the output of a task that returned nothing must not be replaced by the setting
            if self._first_poll:
                self.keep_access(context, job=job)
            if self.deferrable:
                return self._wait_on(context)
            self.poke_interval = self._poke_interval()
            if not self._own_timeout:
                self.timeout = math.inf  # each poke checks the job's deadlines instead
            return super().execute(context)

    def _poke_interval(self) -> float:
        """The polling interval in a worker, in seconds: the argument, the setting, or else ``poke_interval``.

        A ``poke_interval`` that the DAG gives has precedence over the setting.
        """
        access = self.access
        if settings.is_given(self.poll_interval_seconds):
            return access.number("poll_interval_seconds", self.poll_interval_seconds)
        if not self._own_poke_interval and access.configured("poll_interval_seconds"):
            return access.number("poll_interval_seconds")
        return float(self.poke_interval)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Continue after the trigger's event: poll the job again, and decide."""
        with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
            return self._wait_on(context, event.get("limit") if event.get("event") == "deadline" else None)

    @contextmanager
    def _skipped_if_soft(self) -> Iterator[None]:
        """Skip the task instead of failing it, if ``soft_fail`` or ``never_fail`` is set.

        Airflow's own sensor applies these arguments only in some places. This must be entered inside of
        :func:`job_ends_with_task`, which then cancels the job of a skipped task even if tries are left.
        """
        try:
            yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            final = isinstance(error, AirflowFailException | AirflowSensorTimeout | AirflowTaskTimeout)
            if not (self.never_fail or (self.soft_fail and final)):
                raise
            # Airflow does not show the original error of a skipped task.
            self.log.warning("Skipping the task instead of failing it: %s", error)
            raise AirflowSkipException(str(error)) from error

    def _wait_on(self, context: Context, limit: str | None = None) -> dict[str, Any] | None:
        """Poll the job. If it has ended, decide; otherwise, defer.

        :param limit: the limit that the job has exceeded, from the trigger's event.
        :returns: the task's result. If the job has not ended, :meth:`defer` raises an exception instead.
        """
        try:
            handle = self._current()
            status = self._poll(handle)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            # After max_wait_seconds, a fallback may be left. The trigger will find the limit exceeded again.
            if limit and limit != MAX_WAIT:
                raise _too_late(self._handle, limit) from error
            self.log.warning("Poll failed; still waiting: %s", error)
            self._defer(self._handle)
            return None
        # If the job ended by itself when its deadline passed, its own result counts.
        if limit and (not status.has_ended or status.state is JobState.CANCELLED):
            try:
                self._check_falls_back(status, limit)
            except MlengineError as error:
                if not error.retryable:
                    raise
                self.log.warning("Cancelling the job failed; still waiting: %s", error)
                self._defer(handle)
                return None
        if not status.state.terminal:
            self.log.info("Waiting for job %s, attempt %d: %s", handle.job_id, handle.attempt, status.state.value)
            self._note_restart(status)
            self._defer(handle)
        elif (due := self._not_before(status)) > time.time():
            self._defer(handle, due)
        else:
            result = self._conclude(status, context)
            if result is not None:
                return result
            self._defer(self._current())
        return None

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the deferral. Airflow also calls this when a trigger fails or the deferral times out.

        A job that has succeeded in the meantime still counts as a success. Otherwise, the task fails.
        """
        if next_method == "__fail__":
            self.log.warning("Deferring the task failed: %s", (next_kwargs or {}).get("error"))
            with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
                status = self._poll(self._current())
                if status.state is JobState.SUCCEEDED:
                    return self._conclude(status, context)
                return super().resume_execution(next_method, next_kwargs, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll the job once, in a worker: forward new log lines, and decide if the job has ended."""
        try:
            handle = self._current()
            status = self._poll(handle)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            if limit := self._deadlines().exceeded(JobStatus(self._handle, JobState.UNKNOWN)):
                raise _too_late(self._handle, limit) from error
            self._warn(self._poll_warning.failed(error))
            return PokeReturnValue(False)
        self._warn(self._poll_warning.succeeded())
        self._note_restart(status)
        try:
            self._forward_logs(status)
        except MlengineError as error:
            self._warn(f"Could not save the log cursor; lines may repeat: {error}")  # the state is known
        if limit := self._deadlines().exceeded(status):
            try:
                self._check_falls_back(status, limit)
            except MlengineError as error:
                if not error.retryable:
                    raise
                self._warn(self._cancel_warning.failed(error))
                return PokeReturnValue(False)
        result = None
        if status.state.terminal and self._not_before(status) <= time.time():
            result = self._conclude(status, context)
        self._first_poll = False
        return PokeReturnValue(result is not None, result)

    def _warn(self, message: str | None) -> None:
        if message is not None:
            self.log.warning("%s", log_line("wait", message))

    def on_kill(self) -> None:
        """Cancel the job, because the task was killed in the worker."""
        self._killed = True
        # Before its fields are rendered, a task does not know its job. That job is cancelled when the DAG run ends.
        if self._handle is not None or isinstance(self.job, Mapping):
            self._cancel("the task was killed")

    def _cancel(self, why: str) -> None:
        handle = self._handle or self._current()
        with suppress(BackendUnavailableError):
            if self._backend(handle).describe([handle])[0].state.terminal:
                return
        self.log.warning("Cancelling job %s: %s", handle.job_id, why)
        self._submitter(handle).end(handle, why)

    def _current(self) -> JobHandle:
        """The job's current attempt: the one that was submitted first, or a later one that a wait has submitted."""
        handle = JobHandle.from_json(self.returned("job", *_HANDLE))
        self._handle = handle  # the attempt to cancel if the record cannot be read
        record = self._submitter(handle).record(JobDir(handle.job_dir))
        self._record = record
        self._handle = record.handle(handle.job_dir) or handle
        self._since = submitted_at(record) or self._since
        return self._handle

    def _poll(self, handle: JobHandle) -> JobStatus:
        backend = self._backend(handle)
        self._handle = handle
        self.job_url = backend.console_url(handle)
        return backend.describe([handle])[0]

    def _note_restart(self, status: JobStatus) -> None:
        """Record the beginning or the end of a restart by the service."""
        resumed = status.state is JobState.RUNNING and self._record is not None and self._record.restarting
        if status.restarting or resumed:
            self._submitter(status.handle).note_restart(status)

    def _not_before(self, status: JobStatus) -> float:
        """The earliest time to act on a job that has ended, in seconds since the epoch.

        There is a pause before another attempt. In all other cases, the result is 0.
        """
        retryable = status.failure is not None and status.failure.cause.retryable
        submitter, restarts, more = self._submitter(status.handle), 0, 0
        if self._record is not None:
            restarts, more = submitter.counted_restarts(self._record), self._record.fallback_attempts
        if not retryable or status.ended is None or status.handle.attempt + restarts >= self._attempts() + more:
            return 0.0
        if submitter.falls_back(status):
            return 0.0  # other machines may be free now
        first = self.access.number("retry_backoff_seconds", self.retry_backoff_seconds)
        return status.ended + backoff(status.handle.attempt, first)

    def _conclude(self, status: JobStatus, context: Context) -> dict[str, Any] | None:
        """Decide about a job that has ended.

        :returns: the task's result; ``None`` if a new attempt was submitted, so that the wait continues.
        :raises AirflowFailException: the job failed or was cancelled, and there is no further attempt.
        """
        handle = status.handle
        if status.state is JobState.SUCCEEDED:
            self.log.info("Job %s SUCCEEDED", handle.job_id)
            self._submitter(handle).note_environment(handle)
            self._record_end(status)
            if self._record is not None:
                self._lineage = partial(lineage.trained, handle, self._record)
            return {**handle.to_json(), "state": status.state.value}
        if self._killed:
            # Airflow calls on_kill in the task's process, and the task's code then continues.
            raise AirflowFailException(f"the task was killed; job {handle.job_id} is {status.state.value}")
        submitter = self._submitter(handle)
        # A user who clears the task asks for another attempt.
        cleared = self._first_poll and self._is_first_try_after_clear(context)
        record = None if cleared else submitter.record(JobDir(handle.job_dir))
        if record and (why := cancelled_outside(record, status)):
            self._record_end(status)
            raise AirflowFailException(str(failed(status, why)))
        if record and (limit := self._exceeded(record, status)):
            self._record_end(status)
            raise _too_late(handle, limit)
        try:
            submitted = submitter.next_attempt(status, wanted=cleared)
        except JobFailedError as error:
            self._record_end(status)
            # With the cause, Airflow would show the message twice.
            raise AirflowFailException(str(error)) from None
        count(submitted.decision, context, handle.backend)
        self.log.warning(
            "%s: attempt %d continues from the last checkpoint", submitted.decision.value, submitted.handle.attempt
        )
        return None

    def _is_first_try_after_clear(self, context: Context) -> bool:
        """Whether this is the first try after the task was cleared.

        Airflow initially sets ``max_tries`` to ``retries``. When the task is cleared, Airflow sets it to
        ``try_number + retries``, and the next try has the next ``try_number``.
        """
        ti = context["ti"]
        most = ti.max_tries or 0
        retries = self.retries or 0
        return most != retries and most - ti.try_number >= retries - 1

    def _exceeded(self, record: JobRecord, status: JobStatus) -> str | None:
        """The limit because of which this task cancelled the attempt; ``None`` if it did not, or a fallback is left.

        The record has the limit, because the task may have been interrupted after the cancellation: by a restart of the
        triggerer, or by a retry.
        """
        limit = exceeded_limit(record, status) if status.state is JobState.CANCELLED else None
        return limit if limit and not self._submitter(status.handle).falls_back(status) else None

    def _record_end(self, status: JobStatus) -> None:
        """Write the job's row to the job index of the configured bucket."""
        with suppress(StorageError):  # no bucket is configured
            record_end(self.access.storage(), self.access.bucket(), self._backend(status.handle), status)

    def _defer(self, handle: JobHandle, not_before: float = 0.0) -> None:
        deadlines = self._deadlines_of_deferral()
        left = deadlines.seconds_left(JobStatus(handle, JobState.UNKNOWN))
        self.defer(
            trigger=TrainingJobTrigger(
                handle=handle.to_json(),
                gcp_conn_id=self.gcp_conn_id,
                impersonation_chain=self.impersonation_chain,
                project_id=self.project_id,
                region=self.region,
                backend_options=self.access.options,
                poll_interval_seconds=self.access.number("poll_interval_seconds", self.poll_interval_seconds),
                progress_interval_seconds=self.access.number(
                    "progress_interval_seconds", self.progress_interval_seconds
                ),
                not_before=not_before,
                **deadlines.to_json(),
            ),
            method_name="execute_complete",
            timeout=None if left is None else timedelta(seconds=left + _GRACE),
        )

    def _forward_logs(self, status: JobStatus) -> None:
        """Log the job's new lines since the last poll, in a worker.

        The cursor is stored in the bucket, because another process may have made the last poll. If the log cannot be
        read, the next poll tries again. When the job has ended, this call waits up to
        :data:`~mlengine.jobs.watch.LAST_LINES_SECONDS` seconds for the last lines.
        """
        storage, handle, backend = self.access.storage(), status.handle, self._backend(status.handle)
        saved = read_cursor(storage, handle)
        if saved.open:  # the trigger was interrupted, or Airflow had not read its last lines
            self.log.info("%s", log_line("wait", RESUMED))
        formatter = LogFormatter(replace(saved, open=False))
        until = time.monotonic() + (LAST_LINES_SECONDS if status.state.terminal else 0.0)
        while True:
            try:
                page = backend.logs(handle, formatter.cursor.logs)
                self._warn(self._log_warning.succeeded())
            except MlengineError as error:
                self._warn(self._log_warning.failed(error))
                page = LogPage((), formatter.cursor.logs, wait=_READ_AGAIN_SECONDS)
            progress = None if page.more else read_progress(storage, JobDir(handle.job_dir))
            for line in formatter.new_lines(status, page, progress):
                self.log.info("%s", line)
            if formatter.cursor != saved:
                write_cursor(storage, handle, formatter.cursor)
                saved = formatter.cursor
            if page.wait is not None and time.monotonic() + page.wait < until:
                time.sleep(page.wait)
            elif not page.more:
                if page.wait is not None and status.state.terminal:
                    self.log.warning("%s", last_lines_missing(handle))
                return

    def _check_falls_back(self, status: JobStatus, limit: str) -> None:
        """Cancel an attempt that has exceeded a limit. If it has waited too long for machines, use the next fallback.

        :raises AirflowException: no fallback is left, or the job has exceeded another limit.
        """
        submitter = self._submitter(status.handle)
        if limit != MAX_WAIT or not submitter.give_up_waiting(status):
            if not status.state.terminal:
                with suppress(BackendUnavailableError):  # the task cancels the job again when it fails
                    submitter.end(status.handle, f"{limit} exceeded", limit)
            raise _too_late(status.handle, limit)
        if not status.state.terminal:
            self.log.warning("Cancelling job %s: it exceeded %s; trying the next fallback", status.handle.job_id, limit)

    def _deadlines(self) -> Deadlines:
        """The job's deadlines. They count from the attempt's submission, so they do not start again with the wait."""
        most = self._max_wait_seconds()
        queued = self.access.number("queued_timeout_seconds", self.queued_timeout_seconds)
        configured = settings.is_given(self.queued_timeout_seconds) or self.access.configured("queued_timeout_seconds")
        if most is not None and not configured:
            queued = math.inf  # the default applies only to jobs without a limit of their own
        running = self.access.number("running_timeout_seconds", self.running_timeout_seconds)
        return Deadlines.starting(self._since, queued, running, math.inf if most is None else most)

    def _max_wait_seconds(self) -> float | None:
        """The job's own limit of the wait for machines, in seconds.

        :returns: the limit; ``None`` if the job has none, or if the backend enforces it.
        """
        if self._handle is None or self._record is None:
            return None
        return max_wait_seconds(self._backend(self._handle), self._record)

    def _deadlines_of_deferral(self) -> Deadlines:
        """The job's deadlines, and those that count from now: ``execution_timeout`` and ``timeout``."""
        deadlines, now = self._deadlines(), time.time()
        if self.execution_timeout is not None:
            deadlines = replace(deadlines, execution_until=now + self.execution_timeout.total_seconds())
        if self._own_timeout or not deadlines.limited:
            deadlines = replace(deadlines, wait_until=now + self.timeout)
        return deadlines

    def _submitter(self, handle: JobHandle) -> Submitter:
        return Submitter(
            self.access.storage(),
            self._backend(handle),
            max_attempts=self._attempts(),
        )

    def _attempts(self) -> int:
        return self.access.integer("max_attempts", self.max_attempts)

    def _backend(self, handle: JobHandle) -> TrainingBackend:
        return self.access.backend(handle.backend)


def _too_late(handle: JobHandle, limit: str) -> AirflowException:
    """The error for a job that has exceeded a limit, as one of two types that Airflow does not retry."""
    error = JobDeadlineError(f"job {handle.job_id} was cancelled: it exceeded {limit}", hint=_HINTS.get(limit, ""))
    kind = AirflowSensorTimeout if limit in {"execution_timeout", "timeout"} else AirflowFailException
    return kind(str(error))
