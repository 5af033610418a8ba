"""``mlengine rerun``: the training of a job once more, from what its ``job.json`` says went in."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlengine import settings
from mlengine.cli import say
from mlengine.cli.arguments import attempts
from mlengine.cli.emulator import settings_of
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.cli.train import follow
from mlengine.core.errors import DatasetError, MlengineError, ObjectMissingError, PackageError
from mlengine.core.inputs import inputs_digest
from mlengine.core.job import JobKey, JobRecord
from mlengine.core.layout import JobDir, join
from mlengine.core.software import software
from mlengine.core.spec import TrainingSpec

if TYPE_CHECKING:
    from mlengine.storage.client import Storage

_JOB_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
_ABOUT = """\
Train the same again: package, dataset version, arguments and cluster are those of the job, whose record must be in its
job dir. The new job gets a dir of its own beside it; it is not judged and not published.
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser("rerun", help="train the same as a job did, once more", description=_ABOUT)
    parser.add_argument("job", metavar="JOB", help="a job dir gs://…, or MODEL/JOB_ID in the bucket")
    add_bucket(parser)
    parser.add_argument(
        "--as", dest="new", metavar="JOB_ID", help="the new job's id (default: the old one's, _again_…)"
    )
    parser.add_argument("--backend", help="local or vertex (default: where the job ran)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a backend's setting")
    parser.add_argument(
        "--stream-logs", action="store_true", help="follow it to its end; exit code 1 unless it succeeds"
    )
    parser.add_argument("--max-attempts", type=attempts, default=3, help="how often the job may be tried in all (3)")
    parser.set_defaults(handler=_rerun)


def _rerun(args: argparse.Namespace) -> int:
    from mlengine.backends import CapsCluster, get_backend
    from mlengine.jobs.submission import Intent, Submitter
    from mlengine.storage.client import Storage

    storage = Storage()
    old = _job_dir(args)
    record = read_record(storage, old)
    spec = TrainingSpec.from_json(record.spec)
    check_inputs(storage, record)
    new = JobDir(join(old.uri.rsplit("/", 1)[0], _new_id(args.new, old)))
    _check_free(storage, new, old)
    requested = spec
    backend = get_backend(settings.get("backend", args.backend or record.backend), **settings_of(args.set))
    if isinstance(backend, CapsCluster):
        spec, notes = backend.cap(spec)
        for note in notes:
            say(f"# {note}")
    intent = Intent(
        key=JobKey("mlengine rerun", new.job_id, new.uri),
        model=record.model,
        job_dir=new,
        spec=replace(spec, job_dir=None),
        inputs=_inputs(record, spec, old),
        labels=spec.labels,
        requested=replace(requested, job_dir=None),
    )
    submitter = Submitter(storage, backend, max_attempts=args.max_attempts)
    submitted = submitter.submit(intent)
    say(f"job {new.job_id}: {submitted.decision.value}, as {submitted.handle.name} on {backend.name}")
    say(f"job dir: {submitted.handle.job_dir}")
    if not args.stream_logs:
        return 0
    code = follow(backend, storage, submitter, submitted)
    submitter.note_environment(submitted.handle)
    for line in environment_changes(storage, old, new):
        say(line)
    return code


def read_record(storage: Storage, job_dir: JobDir) -> JobRecord:
    """:raises MlengineError: there is no record of a job."""
    try:
        return JobRecord.from_bytes(storage.read(job_dir.claim))
    except ObjectMissingError as error:
        raise MlengineError(
            f"no job in {job_dir.uri}", hint="give the job dir as gs://BUCKET/MODEL/JOB_ID, or MODEL/JOB_ID"
        ) from error


def check_inputs(storage: Storage, record: JobRecord) -> None:
    """Before anything is paid for: the packages are there, and the dataset version is what it was.

    :raises PackageError: a package is gone; :raises DatasetError: the data are gone, or others.
    """
    for uri in record.spec.get("package_uris", ()):
        if not storage.exists(uri):
            raise PackageError(f"the job's package {uri} is gone", hint="package the trainer of that time again")
    dataset = record.inputs.get("dataset") or {}
    if not dataset.get("uri"):
        return
    from mlengine.datasets import read_manifest

    try:
        digest = read_manifest(storage, dataset["uri"]).digest
    except ObjectMissingError as error:
        raise DatasetError(f"the job's dataset {dataset['uri']} is gone", hint="register it again") from error
    if digest != dataset.get("digest"):
        raise DatasetError(
            f"{dataset['uri']} has digest {digest[:12]}, the job trained on {str(dataset.get('digest'))[:12]}",
            hint="restore the version's files; a version never changes",
        )


def environment_changes(storage: Storage, old: JobDir, new: JobDir) -> list[str]:
    """What was installed otherwise the second time, a line each; nothing where it is not known of both."""
    try:
        before, after = (set(storage.read(one.environment).decode().splitlines()) for one in (old, new))
    except ObjectMissingError:
        return []
    if before == after:
        return [f"the same {len(after)} packages as then"]
    gone, come = ", ".join(sorted(before - after)), ", ".join(sorted(after - before))
    return [
        f"installed then: {gone or '-'}",
        f"installed now:  {come or '-'}; a constraints.txt in the trainer pins them",
    ]


def _inputs(record: JobRecord, spec: TrainingSpec, old: JobDir) -> dict[str, Any]:
    """The old job's, with what is of this time: the software, the cluster as it is capped here."""
    inputs: dict[str, Any] = {name: record.inputs[name] for name in ("package", "dataset") if name in record.inputs}
    digest = inputs_digest(spec, inputs.get("package", {}), inputs.get("dataset", {}))
    known = {} if digest is None else {"digest": digest}
    return {**inputs, **known, "software": software(), "rerun_of": old.uri}


def _job_dir(args: argparse.Namespace) -> JobDir:
    if args.job.startswith("gs://"):
        return JobDir(args.job.rstrip("/"))
    if args.job.count("/") != 1:
        raise MlengineError(
            f"which job is {args.job!r}?", hint="give gs://BUCKET/MODEL/JOB_ID, or MODEL/JOB_ID and --bucket"
        )
    return JobDir(join(bucket_of(args), args.job))


def _new_id(given: str | None, old: JobDir) -> str:
    """The last part of the new job's dir, beside the old one's.

    :raises MlengineError: it is no name of one dir.
    """
    if given is None:
        return f"{old.job_id}_again_{time.strftime('%Y%m%dT%H%M%S')}"
    if not _JOB_ID.fullmatch(given):
        raise MlengineError(f"not a job id: --as {given!r}", hint="use letters, digits, _ and -, a letter first")
    return given


def _check_free(storage: Storage, new: JobDir, old: JobDir) -> None:
    """The same command again goes on with its job; anybody else's dir is refused."""
    try:
        record = JobRecord.from_bytes(storage.read(new.claim))
    except ObjectMissingError:
        return
    if record.inputs.get("rerun_of") != old.uri:
        raise MlengineError(f"{new.uri} belongs to another job", hint="choose another --as")
