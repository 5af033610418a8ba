"""``mlengine status``, ``mlengine logs``, ``mlengine cancel``: a backend's jobs, for a person at a terminal."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mlengine import settings
from mlengine.backends import ListsJobs, TrainingBackend, get_backend
from mlengine.cli import say
from mlengine.cli.options import Commands
from mlengine.core import plaintext
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState, JobStatus

_PAUSE = 0.5
_PAGE = 500


def register(commands: Commands) -> None:
    status = commands.add_parser("status", help="a backend's jobs, or one of them")
    status.add_argument("job", nargs="?", metavar="JOB", help="a job id, or its name there")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(handler=_status)
    logs = commands.add_parser("logs", help="what a job's replicas wrote")
    logs.add_argument("job", metavar="JOB", help="the job's id, or its name in the backend")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    logs.add_argument("--replica", metavar="ROLE-INDEX", help="of this replica only, e.g. worker-0, or launcher")
    logs.set_defaults(handler=_logs)
    cancel = commands.add_parser("cancel", help="end a job and everything it started")
    cancel.add_argument("job", metavar="JOB", help="the job's id, or its name in the backend")
    cancel.add_argument("--no-wait", action="store_true", help="do not wait until it has ended")
    cancel.set_defaults(handler=_cancel)
    for parser in (status, logs, cancel):
        parser.add_argument("--state-dir", metavar="DIR", help="where the local backend keeps its jobs")
        parser.add_argument("--backend", help="local or vertex (default: the setting backend)")
        parser.add_argument("--project", help="of Vertex AI (default: the setting vertex_project)")
        parser.add_argument("--region", help="of Vertex AI (default: the setting vertex_region)")
        parser.add_argument("--attempt", type=int, help="default: the last")


class _Place(ListsJobs, TrainingBackend, Protocol):
    """What the commands need of a backend."""


def _backend(args: argparse.Namespace) -> _Place:
    """:raises BackendError: it cannot list its jobs."""
    given = {"state_dir": args.state_dir, "project": args.project, "region": args.region}
    name = "local" if args.state_dir else settings.get("backend", args.backend)
    backend: Any = get_backend(name, **{option: value for option, value in given.items() if value})
    if not isinstance(backend, ListsJobs):
        raise BackendError(f"the backend {name} cannot list its jobs", hint="look at them where they run")
    return backend  # type: ignore[return-value]


def _where(args: argparse.Namespace, backend: _Place) -> str:
    """For sentences: which place was looked at."""
    region = f", {args.region}" if args.region else ""
    return str(getattr(backend, "state_dir", "")) or f"the {backend.name} backend{region}"


def _status(args: argparse.Namespace) -> int:
    backend = _backend(args)
    if args.job is None:
        statuses = backend.describe(backend.jobs())
        if args.json:
            say(json.dumps([_to_json(status) for status in statuses], indent=1))
        elif not statuses:
            say(f"no jobs in {_where(args, backend)}")
        else:
            _table(statuses)
        return 0
    status = backend.describe([_find(backend, args)])[0]
    if args.json:
        say(json.dumps(_to_json(status), indent=1))
    else:
        _one(backend, status)
    return 0


def _logs(args: argparse.Namespace) -> int:
    backend = _backend(args)
    handle = _find(backend, args)
    cursor: Mapping[str, Any] = {}
    while True:
        # The state first: what was written before the end is then not missed at the end.
        ended = backend.describe([handle])[0].state.terminal
        page = backend.logs(handle, cursor, _PAGE)
        cursor = page.cursor
        for line in page.lines:
            if args.replica in {None, line.replica}:
                for text in plaintext.lines(line.text):
                    say(text if args.replica else f"{line.replica:<11} | {text}")
        if not page.more:
            if ended or not args.follow:
                return 0
            time.sleep(_PAUSE)


def _cancel(args: argparse.Namespace) -> int:
    backend = _backend(args)
    handle = _find(backend, args)
    before = backend.describe([handle])[0]
    if before.state.terminal:
        say(f"{handle.job_id} has ended already: {before.state}")
        return 0
    backend.cancel(handle)
    status = backend.describe([handle])[0]
    while not status.state.terminal and not args.no_wait:
        time.sleep(_PAUSE)
        status = backend.describe([handle])[0]
    say(f"{handle.job_id}: {status.state}")
    return 0 if args.no_wait or status.state is JobState.CANCELLED else 1


def _find(backend: _Place, args: argparse.Namespace) -> JobHandle:
    """:raises BackendError: if no job there is called that, or two are."""
    word, attempt = args.job, args.attempt
    found = backend.jobs(word)
    if attempt is not None:
        found = [handle for handle in found if handle.attempt == attempt]
    if not found:
        raise BackendError(
            f"no job {word!r}{f', attempt {attempt}' if attempt else ''} in {_where(args, backend)}",
            hint="`mlengine status` lists the jobs there; --backend, --region or --state-dir name another place",
        )
    # Attempts of one job share its dir; on this machine their names begin alike, too.
    keys = {(handle.job_dir, handle.name.rpartition("-")[0]) for handle in found}
    if len(keys) > 1:
        names = ", ".join(handle.name for handle in found)
        raise BackendError(f"{len(keys)} jobs are called {word!r}", hint=f"name one of {names}")
    return max(found, key=lambda handle: handle.attempt)


def _table(statuses: Sequence[JobStatus]) -> None:
    width = max(len(status.handle.job_id) for status in statuses)
    say(f"{'JOB':<{width}}  ATTEMPT  {'STATE':<10}  {'SUBMITTED':<16}  TOOK      DETAIL")
    for status in statuses:
        detail = status.detail.partition("\n")[0]
        say(
            f"{status.handle.job_id:<{width}}  {status.handle.attempt:>7}  {status.state.value:<10}  "
            f"{_moment(status.created):<16}  {_took(status):<8}  {detail}"
        )


def _one(backend: _Place, status: JobStatus) -> None:
    handle = status.handle
    rows = {
        "job": handle.job_id,
        "name": handle.name,
        "attempt": str(handle.attempt),
        "state": status.state.value,
        "detail": status.detail,
        "submitted": _moment(status.created),
        "started": _moment(status.started),
        "ended": _moment(status.ended),
        "took": _took(status),
        "job dir": handle.job_dir,
        "look at": backend.console_url(handle) or "",
    }
    for name, value in rows.items():
        if value:
            say(f"{name + ':':<11}" + f"\n{'':<11}".join(plaintext.lines(value)))
    if status.failure is not None:
        retried = "another attempt may be made" if status.failure.cause.retryable else "not tried again"
        say(f"{'cause:':<11}{status.failure.cause.value} ({retried})")
        if status.failure.log_tail:
            say(f"last lines of {status.failure.replica or 'the launcher'}:")
            for line in status.failure.log_tail:
                say(f"  {line}")


def _to_json(status: JobStatus) -> dict[str, Any]:
    return {
        **status.handle.to_json(),
        "state": status.state.value,
        "detail": status.detail,
        "created": status.created,
        "started": status.started,
        "ended": status.ended,
        "failure": None if status.failure is None else status.failure.to_json(),
    }


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _took(status: JobStatus) -> str:
    if status.started is None:
        return ""
    seconds = int((status.ended or time.time()) - status.started)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
