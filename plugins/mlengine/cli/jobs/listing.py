"""``mlengine jobs list``: the jobs of the bucket, as on the page in Airflow, or those that a backend knows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlengine.backends import TrainingBackend, get_backend
from mlengine.cli.documents import BackendJobDocument, JobDocument
from mlengine.cli.jobs.lookup import describe_backend, open_backend
from mlengine.cli.jobs.status import to_document
from mlengine.cli.options import (
    Commands,
    add_backend,
    add_backend_options,
    add_bucket,
    add_command,
    add_json,
    bucket_of,
    count,
)
from mlengine.cli.output import elapsed, local_time, note, say, say_json, say_table, utc
from mlengine.core.errors import MlengineError, UsageError
from mlengine.core.job import JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.core.metrics import format_value
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    from mlengine.job_index.rows import Row

_ABOUT = """\
List the jobs of the bucket, newest first: those of DAGs and those of `mlengine jobs train`, on any backend. With
--backend, list the jobs that this backend knows instead, regardless of their bucket.
"""
_HEAD = ("JOB", "STATE", "SUBMITTED", "ELAPSED", "DETAIL")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "list", "list jobs, newest first", _ABOUT)
    parser.add_argument(
        "--state",
        action="append",
        type=str.upper,
        choices=[state.value for state in JobState],
        metavar="STATE",
        help="only jobs in this state, such as RUNNING or FAILED; repeatable",
    )
    parser.add_argument("--model", help="only jobs of this model")
    parser.add_argument("--limit", type=count, metavar="N", help="at most N jobs (default: all)")
    add_bucket(parser, "bucket of the jobs")
    add_backend(parser, "list the jobs of this backend (local, ray or vertex) instead of the bucket's")
    add_backend_options(parser)
    add_json(parser)
    parser.set_defaults(handler=_list)


def _list(args: argparse.Namespace) -> int:
    if args.backend:
        return _list_backend(args)
    rows = [row for row in _rows(args) if _selected(args, row.state, row.model)][: args.limit]
    bucket = bucket_of(args)
    if args.json:
        say_json([_row_document(bucket, row) for row in rows])
    elif rows:
        say_table(_HEAD, [_row_cells(row) for row in rows])
    else:
        say(f"no {_kind(args)} in {bucket}")
    return 0


def _rows(args: argparse.Namespace) -> Sequence[Row]:
    """The rows of the list.

    :raises MlengineError: the bucket cannot be read.
    """
    from mlengine.web.index import Index

    storage, bucket = Storage(), bucket_of(args)
    storage.list_dirs(bucket)  # raises an error if the bucket is missing or forbidden
    view = Index(storage, bucket, _backends(args)).refresh()
    if view.error:
        raise MlengineError(f"cannot list the jobs of {bucket}: {view.error}", hint="see the log above")
    return view.rows


def _backends(args: argparse.Namespace) -> Callable[[str], TrainingBackend | None]:
    """A function that returns the backend with a given name.

    If it cannot be used here, the function prints a note and returns ``None``.
    """
    options = {
        "local": {"state_dir": args.state_dir},
        "vertex": {"project": args.project, "region": args.region},
    }
    opened: dict[str, TrainingBackend | None] = {}

    def backend(name: str) -> TrainingBackend | None:
        if name not in opened:
            given = {option: value for option, value in options.get(name, {}).items() if value}
            try:
                opened[name] = get_backend(name, **given)
            except MlengineError as error:
                note(f"mlengine: states of jobs on backend {name} may be out of date: {error.message}")
                opened[name] = None
        return opened[name]

    return backend


def _selected(args: argparse.Namespace, state: str, model: str) -> bool:
    return (not args.state or state in args.state) and args.model in {None, model}


def _kind(args: argparse.Namespace) -> str:
    states = f"{' or '.join(args.state)} " if args.state else ""
    return f"{states}jobs{f' of model {args.model}' if args.model else ''}"


def _row_cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.model}/{row.job_id}",
        row.state,
        local_time(row.claimed),
        elapsed(row.started, row.ended),
        _row_detail(row),
    )


def _row_detail(row: Row) -> str:
    if row.verdict and row.state == JobState.SUCCEEDED:
        return row.verdict if row.metric_value is None else f"{row.verdict} {format_value(row.metric_value)}"
    if row.state == JobState.RUNNING and row.step is not None and row.of:
        return f"step {min(row.step, row.of)} of {row.of}"
    return row.detail


def _row_document(bucket: str, row: Row) -> JobDocument:
    return {
        "model": row.model,
        "job_id": row.job_id,
        "job_dir": JobDir.of(bucket, row.model, row.job_id).uri,
        "backend": row.backend,
        "attempt": row.attempt,
        "state": row.state,
        "detail": row.detail,
        "created": utc(row.claimed),
        "started": utc(row.started),
        "ended": utc(row.ended),
        "dag_id": row.dag_id,
        "run_id": row.run_id,
        "cluster": row.cluster,
        "dataset": row.dataset,
        "step": row.step,
        "steps": row.of,
        "verdict": row.verdict,
        "metric": row.metric,
        "metric_value": row.metric_value,
        "cost_usd": row.cost_usd,
    }


def _list_backend(args: argparse.Namespace) -> int:
    if args.bucket:
        raise UsageError("--bucket and --backend are mutually exclusive", hint="omit one of them")
    backend = open_backend(args)
    statuses = sorted(backend.describe(backend.jobs()), key=lambda status: status.created or 0.0, reverse=True)
    documents = [to_document(backend, status) for status in statuses]
    pairs = [
        (document, status)
        for document, status in zip(documents, statuses, strict=True)
        if _selected(args, document["state"], document["model"])
    ][: args.limit]
    if args.json:
        say_json([document for document, _ in pairs])
    elif pairs:
        say_table(_HEAD, [_cells(document, status) for document, status in pairs])
    else:
        say(f"no {_kind(args)} in {describe_backend(args, backend)}")
    return 0


def _cells(document: BackendJobDocument, status: JobStatus) -> tuple[str, ...]:
    attempt = f"attempt {status.handle.attempt}" if status.handle.attempt > 1 else ""
    return (
        f"{document['model']}/{document['job_id']}",
        document["state"],
        local_time(status.created),
        elapsed(status.started, status.ended),
        "; ".join(filter(None, (attempt, status.detail))),
    )
