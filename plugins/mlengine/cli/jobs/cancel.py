"""``mlengine jobs cancel``: cancel a job and end every process that it started."""

from __future__ import annotations

import argparse
import time

from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.jobs.lookup import add_job, find_job
from mlengine.cli.jobs.outages import persist
from mlengine.cli.options import Commands, add_command
from mlengine.cli.output import say
from mlengine.core.job import JobState, JobStatus

_POLL_SECONDS = 0.5


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "cancel", "cancel a job and wait until it has ended")
    add_job(parser)
    parser.add_argument("--no-wait", action="store_true", help="request the cancellation and return")
    parser.set_defaults(handler=_cancel)


def _cancel(args: argparse.Namespace) -> int:
    backend, handle = find_job(args)
    before = backend.describe([handle])[0]
    if before.state.terminal:
        say(f"{handle.job_id} has already ended: {before.state}")
        return ExitCode.OK
    backend.cancel(handle)

    def poll() -> JobStatus:
        return backend.describe([handle])[0]

    status = poll() if args.no_wait else persist(poll)
    while not status.state.terminal and not args.no_wait:
        time.sleep(_POLL_SECONDS)
        status = persist(poll)
    say(f"{handle.job_id}: {status.state}")
    return ExitCode.OK if args.no_wait or status.state is JobState.CANCELLED else ExitCode.JOB_FAILED
