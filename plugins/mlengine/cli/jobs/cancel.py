"""``mlengine jobs cancel``: cancel a job and end every process that it started."""

from __future__ import annotations

import argparse
import time

from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs.lookup import add_job, find_job
from mlengine.cli.jobs.outages import persist
from mlengine.cli.options import Commands, add_by, add_command, reason, user
from mlengine.cli.output import note, say
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.job import JobHandle, JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.storage.client import Storage

_POLL_SECONDS = 0.5


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "cancel", "cancel a job and wait until it has ended")
    add_job(parser)
    parser.add_argument("--no-wait", action="store_true", help="request the cancellation and return")
    parser.add_argument("--reason", type=reason, metavar="TEXT", help="recorded with your name in job.json")
    add_by(parser)
    parser.set_defaults(handler=_cancel)


def _cancel(args: argparse.Namespace) -> int:
    from mlengine.jobs.cancellation import record_cancellation

    backend, handle = find_job(args)
    before = backend.describe([handle])[0]
    if before.state.terminal and _waits_for_next_attempt(before):
        # Only this record prevents the next attempt, so if it fails, the command fails.
        record_cancellation(Storage(), handle, by=user(args), why=args.reason or "")
        say(f"{handle.job_id}: {before.state}; its task will make no further attempt")
        return ExitCode.OK
    if before.state.terminal:
        say(f"{handle.job_id} has already ended: {before.state}")
        return ExitCode.OK
    backend.cancel(handle)
    _record(args, handle)  # recorded afterwards, because an outage of the bucket must not delay the cancellation

    def poll() -> JobStatus:
        return backend.describe([handle])[0]

    status = poll() if args.no_wait else persist(poll)
    while not status.state.terminal and not args.no_wait:
        time.sleep(_POLL_SECONDS)
        status = persist(poll)
    say(f"{handle.job_id}: {status.state}")
    return ExitCode.OK if args.no_wait or status.state is JobState.CANCELLED else ExitCode.JOB_FAILED


def _waits_for_next_attempt(status: JobStatus) -> bool:
    """Whether the job has failed, but its task may still make another attempt after a pause."""
    from mlengine.jobs.submission import may_be_tried_again

    try:
        data = Storage().read(JobDir(status.handle.job_dir).claim)
        return may_be_tried_again(JobRecord.from_bytes(data), status)
    except MlengineError:
        return False


def _record(args: argparse.Namespace, handle: JobHandle) -> None:
    """Record who cancelled the job, for its task and the page. If that fails, a note says so."""
    from mlengine.jobs.cancellation import record_cancellation

    try:
        record_cancellation(Storage(), handle, by=user(args), why=args.reason or "")
    except ObjectMissingError:
        return
    except MlengineError as error:
        note(f"mlengine: could not record in {handle.job_dir} who cancelled the job: {error.message}")
