"""Resolves the JOB argument of a command to a job on a backend."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from mlengine import settings
from mlengine.backends import ListsJobs, TrainingBackend, get_backend
from mlengine.cli.options import add_backend, add_backend_options, add_bucket, bucket_of
from mlengine.core.errors import BackendError, MlengineError, ObjectMissingError, UsageError
from mlengine.core.job import JobHandle, JobRecord
from mlengine.core.layout import JobDir, join
from mlengine.storage.client import Storage

JOB_HELP = "MODEL/JOB_ID or gs://… of a job in the bucket; or a job id, or a name, that the backend knows"
_FORMS = "pass the job dir as gs://BUCKET/MODEL/JOB_ID, or MODEL/JOB_ID with --bucket"


class ListingBackend(ListsJobs, TrainingBackend, Protocol):
    """A backend that can list its jobs."""


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the argument JOB and the options for finding it."""
    parser.add_argument("job", metavar="JOB", help=JOB_HELP)
    add_bucket(parser, "bucket of MODEL/JOB_ID")
    add_backend(parser, "local, ray or vertex (default: the setting backend; for MODEL/JOB_ID, the job's own)")
    add_backend_options(parser)
    parser.add_argument("--attempt", type=int, metavar="N", help="this attempt of the job (default: the last)")


def open_backend(args: argparse.Namespace, name: str | None = None) -> ListingBackend:
    """The backend from ``--backend``, else ``name``, else the setting.

    :raises BackendError: the backend cannot list its jobs.
    """
    options = {"state_dir": args.state_dir, "project": args.project, "region": args.region}
    chosen = args.backend or name or ("local" if args.state_dir else settings.get("backend", None))
    backend: Any = get_backend(chosen, **{option: value for option, value in options.items() if value})
    if not isinstance(backend, ListsJobs):
        raise BackendError(
            f"backend {chosen} cannot list its jobs",
            hint="choose a backend that can: --backend local, ray or vertex",
        )
    return backend  # type: ignore[return-value]


def describe_backend(args: argparse.Namespace, backend: ListingBackend) -> str:
    """The state directory, or the backend and region, in which jobs were searched, for messages."""
    region = f" in {args.region}" if args.region else ""
    return str(getattr(backend, "state_dir", "")) or f"the backend {backend.name}{region}"


def find_job(args: argparse.Namespace) -> tuple[ListingBackend, JobHandle]:
    """The backend of JOB, and the attempt that ``--attempt`` selects, by default the last.

    :raises BackendError: there is no such job, or more than one.
    """
    if args.job.startswith("gs://") or args.job.count("/") == 1:
        return _find_in_bucket(args)
    backend = open_backend(args)
    found = _attempt(backend.jobs(args.job), args.attempt)
    if not found:
        raise _no_job(args, describe_backend(args, backend))
    # The attempts of a job share its job dir. On the local backend their names also share a prefix.
    keys = {(handle.job_dir, handle.name.rpartition("-")[0]) for handle in found}
    if len(keys) > 1:
        names = ", ".join(handle.name for handle in found)
        raise BackendError(f"{len(keys)} jobs have the id {args.job!r}", hint=f"use the name of one of them: {names}")
    return backend, max(found, key=lambda handle: handle.attempt)


def _find_in_bucket(args: argparse.Namespace) -> tuple[ListingBackend, JobHandle]:
    job_dir = job_dir_of(args)
    record = read_record(Storage(), job_dir)
    backend = open_backend(args, record.backend)
    handle = record.handle(job_dir.uri)
    if handle is None:
        raise BackendError(
            f"job {record.job_id} has not been submitted yet", hint="try again once it has been submitted"
        )
    if args.attempt in {None, handle.attempt}:
        return backend, handle
    same_dir = [one for one in backend.jobs(record.job_id) if one.job_dir == job_dir.uri]
    found = _attempt(same_dir, args.attempt)
    if not found:
        raise _no_job(args, describe_backend(args, backend))
    return backend, found[0]


def _attempt(handles: list[JobHandle], attempt: int | None) -> list[JobHandle]:
    return [handle for handle in handles if attempt in {None, handle.attempt}]


def _no_job(args: argparse.Namespace, where: str) -> BackendError:
    attempt = "" if args.attempt is None else f", attempt {args.attempt}"
    return BackendError(
        f"no job {args.job!r}{attempt} in {where}",
        hint="`mlengine jobs list` lists the jobs in the bucket; give MODEL/JOB_ID as it does, "
        "or choose another --backend, --region or --state-dir",
    )


def job_dir_of(args: argparse.Namespace) -> JobDir:
    """The job dir of JOB, which is given as ``gs://…`` or as ``MODEL/JOB_ID`` in the bucket.

    :raises UsageError: JOB has another form.
    """
    if args.job.startswith("gs://"):
        return JobDir(args.job.rstrip("/"))
    if args.job.count("/") != 1 or not all(args.job.split("/")):
        raise UsageError(f"JOB: invalid job dir: {args.job!r}", hint=_FORMS)
    return JobDir(join(bucket_of(args), args.job))


def read_record(storage: Storage, job_dir: JobDir) -> JobRecord:
    """Read the record of a job.

    :raises MlengineError: there is no record, or it is damaged.
    """
    try:
        return JobRecord.from_bytes(storage.read(job_dir.claim))
    except ObjectMissingError as error:
        raise MlengineError(f"no job in {job_dir.uri}", hint=_FORMS) from error
