"""Follows a job at a terminal, and prints its logs until it ends, through all of its attempts.

If a service is temporarily unavailable, the call is repeated, and following continues.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mlengine import settings
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs.outages import persist
from mlengine.cli.output import note, say
from mlengine.core import plaintext
from mlengine.core.errors import JobFailedError, MlengineError
from mlengine.core.job import JobHandle, JobState, JobStatus
from mlengine.core.layout import JobDir

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend
    from mlengine.jobs.submission import Submitted, Submitter
    from mlengine.storage.client import Storage


def print_submission(backend: TrainingBackend, submitted: Submitted) -> None:
    """Print the result of a submission and the location of the job."""
    handle = submitted.handle
    say(f"job {handle.job_id}: {submitted.decision.value} on {backend.name}, as {handle.name}")
    say(f"job dir: {handle.job_dir}")
    url = backend.console_url(handle)
    if url:
        say(f"console: {url}")


def follow(backend: TrainingBackend, storage: Storage, submitter: Submitter, submitted: Submitted) -> int:
    """Print the logs until the job has ended. An attempt whose machines failed is followed by the next attempt.

    :returns: the exit code of the command.
    """
    job_dir = submitted.handle.job_dir
    cancel = f"to cancel it: mlengine jobs cancel {job_dir}"
    try:
        return _follow(backend, storage, submitter, submitted.handle)
    except KeyboardInterrupt:
        note(f"\nmlengine: the job continues; {cancel}")
        raise
    except MlengineError as error:
        if error.retryable:
            note(
                f"mlengine: the job may still be running; to follow it: mlengine jobs logs {job_dir} --follow; {cancel}"
            )
        raise


def _follow(backend: TrainingBackend, storage: Storage, submitter: Submitter, handle: JobHandle) -> int:
    while True:
        status = _follow_attempt(backend, storage, submitter, handle)
        if status is None:
            return ExitCode.JOB_FAILED
        if status.state is JobState.SUCCEEDED:
            _record_end(storage, backend, status)
            return ExitCode.OK
        if not _retryable(status) and not persist(partial(submitter.falls_back, status)):
            _record_end(storage, backend, status)
            return _failed(status)
        try:
            handle = persist(partial(submitter.next_attempt, status)).handle
        except JobFailedError as error:
            _record_end(storage, backend, status)
            say(str(error))
            return ExitCode.JOB_FAILED
        say(f"attempt {handle.attempt} resumes from the last checkpoint")


def _follow_attempt(
    backend: TrainingBackend, storage: Storage, submitter: Submitter, handle: JobHandle
) -> JobStatus | None:
    """Follow one attempt and return its last status.

    Returns ``None`` if the attempt is cancelled because it waited too long for machines, and no fallback is left.
    """
    from mlengine.jobs.deadlines import max_wait_seconds, waits_too_long
    from mlengine.jobs.following import LogFollower
    from mlengine.jobs.progress import LogCursor, LogFormatter, read_progress

    limit = max_wait_seconds(backend, persist(partial(submitter.record, JobDir(handle.job_dir))))
    restarting = cancelled = False
    formatter = LogFormatter(LogCursor(handle.attempt))
    for followed in LogFollower(backend, handle, {}, note).follow():
        status = followed.status
        progress = read_progress(storage, JobDir(handle.job_dir)) if formatter.progress_due else None
        for line in formatter.new_lines(status, followed.page, progress):
            say(line)
        if followed.page.more:
            continue
        # A service may show the cancellation only some time later.
        if not cancelled and waits_too_long(status, limit):
            fallback_left = _give_up_waiting(backend, submitter, handle, limit)
            if fallback_left is False:
                return None
            cancelled = fallback_left is True
        if status.restarting != restarting and (status.restarting or status.state is JobState.RUNNING):
            submitter.note_restart(status)
            restarting = status.restarting
    return status


def _give_up_waiting(
    backend: TrainingBackend, submitter: Submitter, handle: JobHandle, limit: float | None
) -> bool | None:
    """Cancel an attempt that waits too long for machines.

    Each repetition reads the state again, because the job may have started during an outage of the service.

    :returns: whether a fallback is left; ``None`` if the attempt no longer waits and was not cancelled.
    """
    from mlengine.jobs.deadlines import MAX_WAIT, waits_too_long

    asked = False

    def cancel() -> bool | None:
        nonlocal asked
        status = backend.describe([handle])[0]
        if not (asked and status.state is JobState.CANCELLING) and not waits_too_long(status, limit):
            return None
        asked = True
        if submitter.give_up_waiting(status):
            return True
        submitter.end(handle, f"{MAX_WAIT} exceeded", MAX_WAIT)
        return False

    fallback_left = persist(cancel)
    if fallback_left is not None:
        say(f"{handle.job_id} was cancelled: it exceeded {MAX_WAIT} ({limit:.0f} s)")
    return fallback_left


def _record_end(storage: Storage, backend: TrainingBackend, status: JobStatus) -> None:
    """Write the job's row to the job index of the configured bucket."""
    from mlengine.job_index.recording import record_end

    if bucket := settings.get("bucket"):
        record_end(storage, bucket, backend, status)


def _retryable(status: JobStatus) -> bool:
    return status.failure is not None and status.failure.cause.retryable


def _failed(status: JobStatus) -> int:
    failure = status.failure
    # Only the first line: the others, from a replica's log, were already printed with the state.
    message = f": {plaintext.lines(failure.message)[0]}" if failure else ""
    say(f"{status.handle.job_id}: {status.state.value}{message}")
    if failure:
        say(f"  What to do: {failure.advice(by_hand=True)}")
    return ExitCode.JOB_FAILED
