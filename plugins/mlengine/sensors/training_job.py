"""Stage: the wait for a job, deferred or not, with its logs and its progress, and the decision when it has ended.

Deferred, the triggerer polls all waiting jobs together; its event carries ids only, and the worker that resumes reads
the state again. Without a triggerer, ``deferrable=False`` does the same in ``mode="poke"`` or ``"reschedule"``.

When the job has ended:

* Success returns.
* A failure of the machines makes attempt n+1 in the same job dir, after a pause and within ``max_attempts``; the wait
  continues.
* The trainer's own failure fails the task without a retry. So does a cancellation by anybody but this task.

With ``soft_fail`` or ``never_fail`` the task is skipped instead of failed, whenever it happens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

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
from mlengine.jobs.progress import LogFormatter, read_cursor, read_progress, write_cursor
from mlengine.jobs.submission import Submitter, cancelled_outside, exceeded_limit, failed, submitted_at
from mlengine.jobs.throttled_warning import ThrottledWarning
from mlengine.jobs.watch import LAST_LINES_SECONDS, last_lines_missing
from mlengine.links.job import WAIT_LINKS
from mlengine.operators._base import BackendOperator
from mlengine.operators._job_tasks import RefusesFailFast, count, job_ends_with_task
from mlengine.operators.lineage import tasks as lineage
from mlengine.triggers.training_job import TrainingJobTrigger

_HANDLE = ("backend", "name", "job_id", "attempt", "job_dir")
# Airflow's limit on the deferral comes this many seconds after ours: the trigger cancels the job first.
_GRACE = 600.0
_READ_AGAIN_SECONDS = 1.0  # after a log that could not be read, if its last lines are waited for
_HINTS = {
    "max_wait_seconds": "raise max_wait_seconds or maxWaitTime, or ask for machines that are free sooner",
    "queued_timeout_seconds": "raise queued_timeout_seconds, or ask for machines that are free sooner",
    "running_timeout_seconds": "raise running_timeout_seconds, or give the job fewer steps or more machines",
    "execution_timeout": "raise the task's execution_timeout, or give the job fewer steps or more machines",
    "timeout": "raise the sensor's timeout, or give the job fewer steps or more machines",
}


class TrainingJobSensor(BackendOperator, RefusesFailFast, BaseSensorOperator):
    """Wait for a training job.

    :param job: what :class:`~mlengine.operators.submit.SubmitTrainingJobOperator` returned.
    :param deferrable: wait in the triggerer; otherwise in a worker, as ``mode`` says. By default as Airflow's setting
        ``[operators] default_deferrable``.
    :param poll_interval_seconds: polling interval of the job; the setting of that name if not given. The same holds for
        the other durations, and for ``max_attempts``. A wait that is not deferred polls every ``poke_interval``, which
        is a minute, where neither is given.
    :param progress_interval_seconds: between two progress lines in the task's log.
    :param queued_timeout_seconds: how long the job may be QUEUED and PREPARING before it is cancelled. On Vertex AI, a
        limit of the job replaces the default: ``max_wait_seconds`` in ``backend_options``, or ``maxWaitTime``.
    :param running_timeout_seconds: how long it may take after that.
    :param max_attempts: how many attempts the job may have in all.
    :param retry_backoff_seconds: before attempt 2; doubled for each further attempt.
    :param mode: without ``deferrable``: ``reschedule`` frees the worker between two polls, ``poke`` does not.

    :returns: :class:`~mlengine.core.xcoms.JobXCom`: the handle of the attempt that succeeded, and its state. For a job
        that is ``reused``, at once.

    If the task is killed, deferred or not, or fails without a retry, the job is cancelled. It is also cancelled when
    ``max_wait_seconds``, ``queued_timeout_seconds``, ``running_timeout_seconds``, ``execution_timeout`` or ``timeout``
    passes. In a deferred wait, this applies even while the DAG is paused. ``execution_timeout`` and ``timeout`` count
    for each deferral by itself.
    """

    # "job" is the last one: from then on, a killed task cancels its job, for which it needs the others.
    template_fields: Sequence[str] = (
        *BackendOperator.template_fields,
        "poll_interval_seconds",
        "progress_interval_seconds",
        "queued_timeout_seconds",
        "running_timeout_seconds",
        "max_attempts",
        "retry_backoff_seconds",
        "job",
    )
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
        self.deferrable = (
            conf.getboolean("operators", "default_deferrable", fallback=False) if deferrable is None else deferrable
        )
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
        # The first poll of a try: who clears a task whose job was cancelled wants it to run again.
        self._first_poll = False
        self._killed = False
        self._poll_warning = ThrottledWarning("Polling the job")
        self._cancel_warning = ThrottledWarning("Cancelling the job")
        self._log_warning = ThrottledWarning("Reading the job's log")
        # Airflow's default of a week must not cut off what running_timeout_seconds allows.
        given = {**(kwargs.get("default_args") or {}), **kwargs}
        self._own_timeout = given.get("timeout") is not None
        self._own_poke_interval = given.get("poke_interval") is not None

    def execute(self, context: Context) -> Any:
        job = self.returned("job", *_HANDLE)
        if job.get("decision") == Decision.REUSED:
            handle = JobHandle.from_json(job)
            self._lineage = partial(lineage.reused, handle)
            self.log.info("Nothing to wait for: job %s is reused", handle.job_id)
            return {**handle.to_json(), "state": JobState.SUCCEEDED.value, "decision": Decision.REUSED.value}
        self._first_poll = (
            self.deferrable or not self.reschedule or context["ti"].get_first_reschedule_date(context) is None
        )
        with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
            if self._first_poll:
                self.keep_access(context, job=job)
            if self.deferrable:
                return self._wait_on(context)
            self.poke_interval = self._poke_interval()
            if not self._own_timeout:
                self.timeout = math.inf  # each poke checks the deadlines of the job
            return super().execute(context)

    def _poke_interval(self) -> float:
        """Without a triggerer: Airflow's ``poke_interval``, unless an argument or a setting gives another one."""
        access = self.access
        if settings.is_given(self.poll_interval_seconds):
            return access.number("poll_interval_seconds", self.poll_interval_seconds)
        if not self._own_poke_interval and access.configured("poll_interval_seconds"):
            return access.number("poll_interval_seconds")
        return float(self.poke_interval)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Resumed by the trigger's event: poll again, and decide."""
        with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
            return self._wait_on(context, event.get("limit") if event.get("event") == "deadline" else None)

    @contextmanager
    def _skipped_if_soft(self) -> Iterator[None]:
        """``soft_fail`` and ``never_fail``: Airflow's sensor heeds them in some places only.

        Within :func:`job_ends_with_task`, which then ends the job of a skipped task, whatever tries are left.
        """
        try:
            yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            final = isinstance(error, AirflowFailException | AirflowSensorTimeout | AirflowTaskTimeout)
            if not (self.never_fail or (self.soft_fail and final)):
                raise
            # Airflow shows only its own reason for the skip.
            self.log.warning("Skipped instead of failed: %s", error)
            raise AirflowSkipException(str(error)) from error

    def _wait_on(self, context: Context, limit: str | None = None) -> dict[str, Any] | None:
        """Decide if the job has ended; defer if it has not.

        :param limit: the limit that the job has exceeded, as the trigger says.
        """
        try:
            handle = self._current()
            status = self._poll(handle)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            # After max_wait_seconds a fallback may be left: the trigger repeats what it has to do.
            if limit and limit != MAX_WAIT:
                raise _too_late(self._handle, limit) from error
            self.log.warning("Poll failed; still waiting: %s", error)
            self._defer(self._handle)
            return None
        # A job that ended by itself while its deadline passed has ended.
        if limit and (not _over(status) or status.state is JobState.CANCELLED):
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
        """Airflow resumes here when a trigger fails or exceeds the deferral's timeout; the trigger is not told."""
        if next_method == "__fail__":
            self.log.warning("The deferral failed: %s", (next_kwargs or {}).get("error"))
            with job_ends_with_task(context, self._cancel), self._skipped_if_soft():
                status = self._poll(self._current())
                if status.state is JobState.SUCCEEDED:
                    return self._conclude(status, context)
                return super().resume_execution(next_method, next_kwargs, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """One poll without a triggerer: logs what is new, and decides if the job has ended."""
        try:
            handle = self._current()
            status = self._poll(handle)
        except MlengineError as error:
            if not error.retryable or self._handle is None:
                raise
            if limit := self._deadlines().exceeded(JobState.UNKNOWN):
                raise _too_late(self._handle, limit) from error
            self._warn(self._poll_warning.failed(error))
            return PokeReturnValue(False)
        self._warn(self._poll_warning.succeeded())
        self._note_restart(status)
        try:
            self._forward_logs(status)
        except MlengineError as error:
            self._warn(f"Could not save the log cursor; lines may repeat: {error}")  # the state is known, and decides
        if not _over(status) and (limit := self._deadlines().exceeded(status.state, status.started)):
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
            self.log.warning("%11s | %s", "wait", message)

    def on_kill(self) -> None:
        """Killed in the worker: cancel the job."""
        self._killed = True
        # A task that is killed before its fields are rendered knows no job; that one ends with the DAG run.
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
        """The live attempt: the submission's, or a later one that this wait has made."""
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
        """Record a restart by the service, or its end."""
        resumed = status.state is JobState.RUNNING and self._record is not None and self._record.restarting
        if status.restarting or resumed:
            self._submitter(status.handle).note_restart(status)

    def _not_before(self, status: JobStatus) -> float:
        """When to act on a job that has ended: at once, or after a pause if it may need another attempt."""
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
        """The result of a job that has ended; ``None`` if a new attempt was made and the wait continues."""
        handle = status.handle
        if status.state is JobState.SUCCEEDED:
            self.log.info("Job %s SUCCEEDED", handle.job_id)
            self._submitter(handle).note_environment(handle)
            self._record_end(status)
            if self._record is not None:
                self._lineage = partial(lineage.trained, handle, self._record)
            return {**handle.to_json(), "state": status.state.value}
        if self._killed:
            # Airflow calls on_kill from within the task's process, and the task continues.
            raise AirflowFailException(f"the task was killed; job {handle.job_id} is {status.state.value}")
        submitter = self._submitter(handle)
        # A person who clears the task asks for another attempt.
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
            # Without the cause, whose message would be shown twice.
            raise AirflowFailException(str(error)) from None
        count(submitted.decision, context, handle.backend)
        self.log.warning(
            "%s: attempt %d continues from the last checkpoint", submitted.decision.value, submitted.handle.attempt
        )
        return None

    def _is_first_try_after_clear(self, context: Context) -> bool:
        """Airflow sets ``max_tries`` to ``retries`` at first, and to ``try_number + retries`` when the task is cleared;
        the next try then has a ``try_number`` that is one more.
        """
        ti = context["ti"]
        most = ti.max_tries or 0
        retries = self.retries or 0
        return most != retries and most - ti.try_number >= retries - 1

    def _exceeded(self, record: JobRecord, status: JobStatus) -> str | None:
        """The limit for which this task cancelled the attempt, if it did and no fallback is left.

        It may have been interrupted since: by a restart of the triggerer, or by a retry that Airflow makes by itself.
        """
        limit = exceeded_limit(record, status) if status.state is JobState.CANCELLED else None
        return limit if limit and not self._submitter(status.handle).falls_back(status) else None

    def _record_end(self, status: JobStatus) -> None:
        """Write the job's row to the job index of the configured bucket."""
        with suppress(StorageError):  # no bucket is configured
            record_end(self.access.storage(), self.access.bucket(), self._backend(status.handle), status)

    def _defer(self, handle: JobHandle, not_before: float = 0.0) -> None:
        deadlines = self._deadlines_of_deferral()
        left = deadlines.seconds_left()
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
        """Without a triggerer: log what is new since the last poll, in whichever process that was.

        A log that cannot be read yet comes with the next poll; the last lines are waited for a little.
        """
        storage, handle, backend = self.access.storage(), status.handle, self._backend(status.handle)
        formatter = LogFormatter(read_cursor(storage, handle))
        until = time.monotonic() + (LAST_LINES_SECONDS if status.state.terminal else 0.0)
        while True:
            try:
                page = backend.logs(handle, formatter.cursor.logs)
                self._warn(self._log_warning.succeeded())
            except MlengineError as error:
                self._warn(self._log_warning.failed(error))
                page = LogPage((), formatter.cursor.logs, wait=_READ_AGAIN_SECONDS)
            progress = None if page.more else read_progress(storage, JobDir(handle.job_dir))
            before = formatter.cursor
            for line in formatter.new_lines(status, page, progress):
                self.log.info("%s", line)
            if formatter.cursor != before:
                write_cursor(storage, handle, formatter.cursor)
            if page.wait is not None and time.monotonic() + page.wait < until:
                time.sleep(page.wait)
            elif not page.more:
                if page.wait is not None and status.state.terminal:
                    self.log.warning("%s", last_lines_missing(handle))
                return

    def _check_falls_back(self, status: JobStatus, limit: str) -> None:
        """Cancel an attempt that has exceeded a limit; after too long a wait for machines, go on with a fallback.

        :raises AirflowException: no fallback is left, or the job has exceeded another limit.
        """
        submitter = self._submitter(status.handle)
        if limit != MAX_WAIT or not submitter.give_up_waiting(status):
            if not status.state.terminal:
                with suppress(BackendUnavailableError):  # the task cancels it once more when it ends
                    submitter.end(status.handle, f"{limit} exceeded", limit)
            raise _too_late(status.handle, limit)
        if not status.state.terminal:
            self.log.warning("Job %s is cancelled: it exceeded %s; a fallback is left", status.handle.job_id, limit)

    def _deadlines(self) -> Deadlines:
        """Counted from the attempt's submission, so that a wait that starts again does not start counting again."""
        most = self._max_wait_seconds()
        queued = self.access.number("queued_timeout_seconds", self.queued_timeout_seconds)
        configured = settings.is_given(self.queued_timeout_seconds) or self.access.configured("queued_timeout_seconds")
        if most is not None and not configured:
            queued = math.inf  # the default is for jobs without a limit of their own
        running = self.access.number("running_timeout_seconds", self.running_timeout_seconds)
        return Deadlines.starting(self._since, queued, running, math.inf if most is None else most)

    def _max_wait_seconds(self) -> float | None:
        """The job's own limit of the wait for machines; ``None`` if it has none, or if the backend keeps it."""
        if self._handle is None or self._record is None:
            return None
        return max_wait_seconds(self._backend(self._handle), self._record)

    def _deadlines_of_deferral(self) -> Deadlines:
        """Ours, and Airflow's: counted from now."""
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
    """Airflow retries neither of the two."""
    error = JobDeadlineError(f"job {handle.job_id} is cancelled: it exceeded {limit}", hint=_HINTS.get(limit, ""))
    kind = AirflowSensorTimeout if limit in {"execution_timeout", "timeout"} else AirflowFailException
    return kind(str(error))


def _over(status: JobStatus) -> bool:
    """Whether the job has ended, even if the backend does not know yet how."""
    return status.state.terminal or status.ended is not None
