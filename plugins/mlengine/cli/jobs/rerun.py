"""``mlengine jobs rerun``: train again with the inputs that a job's ``job.json`` records."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlengine import settings
from mlengine.cli.jobs.follow import follow, print_submission
from mlengine.cli.jobs.lookup import job_dir_of, read_record
from mlengine.cli.options import Commands, add_backend, add_bucket, add_command, add_max_attempts, add_set, unique
from mlengine.cli.output import say
from mlengine.core.errors import (
    DatasetError,
    JobConflictError,
    JobFileError,
    MlengineError,
    ObjectMissingError,
    PackageError,
    UsageError,
)
from mlengine.core.inputs import inputs_digest
from mlengine.core.job import JobKey, JobRecord
from mlengine.core.layout import JobDir, join
from mlengine.core.software import software
from mlengine.core.spec import TrainingSpec

if TYPE_CHECKING:
    from mlengine.storage.client import Storage

_JOB_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
# Part of the key in stored job records, so it remains the original name of this command.
_KEY_OWNER = "mlengine rerun"
_ABOUT = """\
Train again with the package, dataset version, arguments and cluster that a job recorded in its job dir. The new job has
its own job dir next to it. It is neither validated nor published.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "rerun", "train again with the inputs of an earlier job", _ABOUT)
    parser.add_argument("job", metavar="JOB", help="MODEL/JOB_ID in the bucket, or the job dir as gs://…")
    add_bucket(parser, "bucket of MODEL/JOB_ID")
    parser.add_argument("--as", dest="new", metavar="JOB_ID", help="id of the new job (default: JOB_ID_again_TIME)")
    add_backend(parser, "local, ray or vertex (default: the backend of the earlier job)")
    add_set(parser, "an option of the backend, such as spot=true; repeatable")
    parser.add_argument(
        "--stream-logs", action="store_true", help="print the logs until the job ends; exit code 3 if it fails"
    )
    add_max_attempts(parser)
    parser.set_defaults(handler=_rerun)


def _rerun(args: argparse.Namespace) -> int:
    from mlengine.backends import CapsCluster, get_backend
    from mlengine.jobs.submission import Intent, Submitter
    from mlengine.storage.client import Storage

    storage = Storage()
    old = job_dir_of(args)
    record = read_record(storage, old)
    try:
        spec = TrainingSpec.from_json(record.spec)
    except JobFileError as error:
        raise MlengineError(f"{old.claim}: {error.message}", hint="the job cannot be rerun; train again") from error
    check_inputs(storage, record)
    new = JobDir(join(old.uri.rsplit("/", 1)[0], _new_id(args.new, old)))
    _check_free(storage, new, old)
    requested = spec
    backend = get_backend(settings.get("backend", args.backend or record.backend), **unique("--set", args.set))
    if isinstance(backend, CapsCluster):
        spec, notes = backend.cap(spec)
        for note in notes:
            say(f"# {note}")
    intent = Intent(
        key=JobKey(_KEY_OWNER, new.job_id, new.uri),
        model=record.model,
        job_dir=new,
        spec=replace(spec, job_dir=None),
        inputs=_inputs(record, spec, old),
        labels=spec.labels,
        requested=replace(requested, job_dir=None),
    )
    submitter = Submitter(storage, backend, max_attempts=settings.get_int("max_attempts", args.max_attempts))
    submitted = submitter.submit(intent)
    print_submission(backend, submitted)
    if not args.stream_logs:
        return 0
    code = follow(backend, storage, submitter, submitted)
    submitter.note_environment(submitted.handle)
    for line in environment_changes(storage, old, new):
        say(line)
    return code


def check_inputs(storage: Storage, record: JobRecord) -> None:
    """Check before submission that the packages exist and that the dataset version has not changed.

    :raises PackageError: a package no longer exists.
    :raises DatasetError: the dataset version no longer exists, or has changed.
    """
    for uri in record.spec.get("package_uris", ()):
        if not storage.exists(uri):
            raise PackageError(f"the job's package {uri} no longer exists", hint="train with the current trainer")
    dataset = record.inputs.get("dataset") or {}
    if not dataset.get("uri"):
        return
    from mlengine.datasets import read_manifest

    try:
        digest = read_manifest(storage, dataset["uri"]).digest
    except ObjectMissingError as error:
        raise DatasetError(f"the job's dataset {dataset['uri']} no longer exists", hint="register it again") from error
    if digest != dataset.get("digest"):
        raise DatasetError(
            f"{dataset['uri']} has digest {digest[:12]}, but the job trained on {str(dataset.get('digest'))[:12]}",
            hint="restore the files of that version",
        )


def environment_changes(storage: Storage, old: JobDir, new: JobDir) -> list[str]:
    """The differences between the environments of two jobs, one per line; empty unless both jobs recorded theirs."""
    try:
        before, after = (set(storage.read(one.environment).decode().splitlines()) for one in (old, new))
    except ObjectMissingError:
        return []
    if before == after:
        return [f"both jobs installed the same packages ({len(after)})"]
    gone, come = ", ".join(sorted(before - after)), ", ".join(sorted(after - before))
    return [
        f"only in the earlier job: {gone or '-'}",
        f"only in the new job:     {come or '-'}",
        "to pin the versions, add a constraints.txt to the trainer",
    ]


def _inputs(record: JobRecord, spec: TrainingSpec, old: JobDir) -> dict[str, Any]:
    """The inputs of the old job, with the current software versions and the cluster as reduced by the backend."""
    inputs: dict[str, Any] = {name: record.inputs[name] for name in ("package", "dataset") if name in record.inputs}
    digest = inputs_digest(spec, inputs.get("package", {}), inputs.get("dataset", {}))
    known = {} if digest is None else {"digest": digest}
    return {**inputs, **known, "software": software(), "rerun_of": old.uri}


def _new_id(given: str | None, old: JobDir) -> str:
    """The id of the new job, which is the last part of its job dir.

    :raises UsageError: ``given`` is not a job id.
    """
    if given is None:
        return f"{old.job_id}_again_{time.strftime('%Y%m%dT%H%M%S')}"
    if not _JOB_ID.fullmatch(given):
        raise UsageError(f"--as: invalid job id: {given!r}", hint="use letters, digits, _ and -; start with a letter")
    return given


def _check_free(storage: Storage, new: JobDir, old: JobDir) -> None:
    """Check that no other job has the new job dir. Repeating the same command is allowed: it follows the same job."""
    try:
        record = JobRecord.from_bytes(storage.read(new.claim))
    except ObjectMissingError:
        return
    if record.inputs.get("rerun_of") != old.uri:
        raise JobConflictError(f"{new.uri} already belongs to another job", hint="choose another id with --as")
