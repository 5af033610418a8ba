"""``mlengine jobs status``: one job, with its failure if it has one."""

from __future__ import annotations

import argparse

from mlengine.backends import TrainingBackend
from mlengine.cli.documents import BackendJobDocument
from mlengine.cli.jobs.lookup import add_job, find_job
from mlengine.cli.options import Commands, add_command, add_json
from mlengine.cli.output import elapsed, local_time, say, say_json, utc
from mlengine.core import plaintext
from mlengine.core.job import JobStatus

_WIDTH = 12  # characters of the column of field names


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "status", "show one job and, if it failed, the cause and the last log lines")
    add_job(parser)
    add_json(parser)
    parser.set_defaults(handler=_status)


def _status(args: argparse.Namespace) -> int:
    backend, handle = find_job(args)
    status = backend.describe([handle])[0]
    if args.json:
        say_json(to_document(backend, status))
    else:
        _print(backend, status)
    return 0


def to_document(backend: TrainingBackend, status: JobStatus) -> BackendJobDocument:
    """One attempt as a JSON document."""
    handle = status.handle
    parts = handle.job_dir.rstrip("/").split("/")
    return {
        "model": parts[-2] if len(parts) > 4 else "",
        "job_id": handle.job_id,
        "job_dir": handle.job_dir,
        "backend": backend.name,
        "attempt": handle.attempt,
        "state": status.state.value,
        "detail": status.detail,
        "created": utc(status.created),
        "started": utc(status.started),
        "ended": utc(status.ended),
        "name": handle.name,
        "console_url": backend.console_url(handle) or "",
        "links": dict(status.links),
        "failure": None if status.failure is None else status.failure.to_json(),
    }


def _print(backend: TrainingBackend, status: JobStatus) -> None:
    handle = status.handle
    fields = {
        "job": handle.job_id,
        "state": status.state.value,
        "detail": status.detail,
        "attempt": str(handle.attempt),
        "submitted": local_time(status.created),
        "started": local_time(status.started),
        "ended": local_time(status.ended),
        "elapsed": elapsed(status.started, status.ended),
        "backend": backend.name,
        "name": handle.name,
        "job dir": handle.job_dir,
        "console": backend.console_url(handle) or "",
        "web access": "\n".join(f"{replica}: {url}" for replica, url in status.links.items()),
    }
    if status.failure is not None:
        retried = "can be retried" if status.failure.cause.retryable else "not retried"
        fields["cause"] = f"{status.failure.cause.value} ({retried})"
    for name, value in fields.items():
        if value:
            say(f"{name + ':':<{_WIDTH}}" + f"\n{'':<{_WIDTH}}".join(plaintext.lines(value)))
    if status.failure is not None and status.failure.log_tail:
        say(f"last lines of {status.failure.replica or 'the launcher'}:")
        for line in status.failure.log_tail:
            say(f"  {line}")
