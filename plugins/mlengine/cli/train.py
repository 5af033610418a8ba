"""``mlengine train``: one training from a terminal, with the flags that gcloud had for it, on any backend.

What a flag means, and where it differs from gcloud's, is the table in docs/gcloud-flags.md. The flags become a spec in
:mod:`mlengine.cli.train_spec`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine import settings
from mlengine.cli import say
from mlengine.cli.arguments import attempts
from mlengine.cli.emulator import settings_of
from mlengine.cli.options import Commands
from mlengine.cli.train_spec import dataset_of, packages, spec_of
from mlengine.core import plaintext
from mlengine.core.errors import JobConflictError, JobFailedError, MlengineError, ObjectMissingError
from mlengine.core.input_changes import Inputs, changes, describe
from mlengine.core.job import JobKey, JobRecord, JobState, JobStatus
from mlengine.core.job_file import parse
from mlengine.core.layout import JobDir, bucket_uri, join, split_uri
from mlengine.core.spec import TrainingSpec

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend
    from mlengine.jobs.submission import Submitted, Submitter
    from mlengine.storage.client import Storage

_POLL = 1.0
_ABOUT = """\
Train once: package the trainer, submit the job, follow it if asked to. The trainer's own arguments stand behind --.
"""


def register(commands: Commands) -> None:
    parser = commands.add_parser("train", help="submit one training job", description=_ABOUT)
    parser.add_argument("job", metavar="JOB", help="the job's id: letters, digits, underscores, a letter first")
    what = parser.add_argument_group("what is trained")
    what.add_argument("--package-path", type=Path, metavar="DIR", help="a package dir, or a project dir")
    what.add_argument("--packages", metavar="A,B", help="ready-made sdists or wheels, the trainer's first; gs:// too")
    what.add_argument("--module-name", metavar="NAME", help="what is run as python -m, e.g. trainer.task")
    what.add_argument("--config", type=Path, metavar="FILE", help="the job file; flags replace its fields")
    what.add_argument(
        "--dataset",
        metavar="NAME[@VERSION]",
        help="a dataset version (default: the newest), or its gs:// URI; the trainer gets --dataset gs://…",
    )
    where = parser.add_argument_group("where it goes")
    where.add_argument("--job-dir", metavar="GS", help="passed to the trainer as --job-dir (BUCKET/jobs/JOB)")
    where.add_argument(
        "--staging-bucket",
        metavar="GS",
        help="bucket of packages (default: the setting bucket, or the job dir's)",
    )
    where.add_argument("--region", help="of the job, in place of the job file's")
    where.add_argument("--backend", help="local or vertex (default: the setting backend)")
    where.add_argument("--project", help="of Vertex AI (default: the setting vertex_project, or the credentials' own)")
    _cluster(parser.add_argument_group("the cluster"))
    how = parser.add_argument_group("how")
    how.add_argument("--labels", metavar="K=V,…", help="for people and for bills")
    how.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a backend's setting: spot=true")
    how.add_argument("--stream-logs", action="store_true", help="follow it to its end; exit code 1 unless it succeeds")
    how.add_argument("--async", action="store_true", dest="asynchronous", help="return when submitted (the default)")
    how.add_argument(
        "--dry-run", action="store_true", help="package and check, print the request as YAML; upload and submit nothing"
    )
    how.add_argument("--max-attempts", type=attempts, default=3, help="how often the job may be tried in all (3)")
    parser.set_defaults(handler=_train, user_args=None)


def _cluster(group: Any) -> None:
    group.add_argument("--scale-tier", metavar="TIER", help="BASIC, STANDARD_1, PREMIUM_1, BASIC_GPU or CUSTOM")
    group.add_argument("--distributed", action="store_true", help="as gcloud's local train: 2 workers, 2 ps")
    group.add_argument("--master-machine-type", metavar="TYPE", help="machine type of the chief")
    group.add_argument("--worker-machine-type", metavar="TYPE", help="machine type of the workers")
    group.add_argument("--parameter-server-machine-type", metavar="TYPE", help="machine type of the parameter servers")
    group.add_argument("--worker-count", type=int, metavar="N", help="number of workers")
    group.add_argument("--parameter-server-count", type=int, metavar="N", help="number of parameter servers")
    group.add_argument("--evaluator-count", type=int, metavar="N", help="number of evaluators")
    group.add_argument("--runtime-version", metavar="V", help="whether TF_CONFIG says chief or master; no more")
    group.add_argument(
        "--use-chief-in-tf-config",
        action=argparse.BooleanOptionalAction,
        help="call the chief chief, or master, in TF_CONFIG, whatever the runtime version",
    )
    group.add_argument("--python-version", metavar="V", help="of the image on Vertex AI; here, one that uv finds")
    group.add_argument("--max-running-time", metavar="SECONDS", help="7200 or 7200s")


def _train(args: argparse.Namespace) -> int:
    from mlengine.backends import CapsCluster, ChoosesPython, get_backend
    from mlengine.storage.client import Storage

    spec = spec_of(args)
    job_dir, staging = _places(args, spec)
    options = {"project": args.project} if args.project else {}
    backend = get_backend(settings.get("backend", args.backend), **options, **settings_of(args.set))
    if args.python_version and isinstance(backend, ChoosesPython):
        backend.use_python(args.python_version)
    storage = Storage()
    dataset = dataset_of(args.dataset, storage, staging)
    if dataset is not None:
        spec = parse.override(spec, args=[*spec.args, "--dataset", dataset["uri"]])
    spec = packages(args, spec, storage, staging)
    if isinstance(backend, CapsCluster):
        spec, notes = backend.cap(spec)
        for note in notes:
            say(f"# {note}")
    if args.dry_run:
        return _show(args.job, backend, spec, job_dir)
    return _run(args, backend, storage, spec, job_dir, inputs={} if dataset is None else {"dataset": dataset})


def _places(args: argparse.Namespace, spec: TrainingSpec) -> tuple[JobDir, str]:
    """Job dir and staging bucket, one from the other where only one is named.

    :raises MlengineError: if no bucket is named anywhere.
    """
    job_dir = spec.job_dir
    bucket = settings.get("bucket", args.staging_bucket)
    if bucket:
        bucket = bucket_uri(bucket)
    if not (job_dir or bucket):
        raise MlengineError(
            "no bucket for the job",
            hint="give --job-dir gs://… or --staging-bucket gs://…, or set [mlengine] bucket",
        )
    if not bucket:
        bucket = f"gs://{split_uri(str(job_dir))[0]}"
    return JobDir((job_dir or join(bucket, "jobs", args.job)).rstrip("/")), bucket


def _show(job: str, backend: TrainingBackend, spec: TrainingSpec, job_dir: JobDir) -> int:
    from mlengine.backends import ShowsRequest, Submission

    submission = Submission(_key(job, job_dir).digest, job, 1, job_dir.uri, spec, spec.labels)
    if isinstance(backend, ShowsRequest):
        say(backend.show(submission).rstrip())
        return 0
    import yaml

    plain = {"job_id": submission.job_id, "job_dir": submission.job_dir, "spec": spec.to_json()}
    say(yaml.safe_dump(plain, sort_keys=False).rstrip())
    return 0


def _run(
    args: argparse.Namespace,
    backend: TrainingBackend,
    storage: Storage,
    spec: TrainingSpec,
    job_dir: JobDir,
    *,
    inputs: Mapping[str, Any],
) -> int:
    from mlengine.jobs.submission import Intent, Submitter

    _check_unused(args.job, storage, spec, job_dir)
    submitter = Submitter(storage, backend, max_attempts=args.max_attempts)
    model = (job_dir.uri.split("/")[3:-1] or ["jobs"])[-1]
    intent = Intent(_key(args.job, job_dir), model, job_dir, spec, inputs, labels=spec.labels, job_id=args.job)
    submitted = submitter.submit(intent)
    say(f"job {args.job}: {submitted.decision.value}, as {submitted.handle.name} on {backend.name}")
    say(f"job dir: {submitted.handle.job_dir}")
    url = backend.console_url(submitted.handle)
    if url:
        say(f"to look at: {url}")
    return follow(backend, storage, submitter, submitted) if args.stream_logs else 0


def _key(job: str, job_dir: JobDir) -> JobKey:
    return JobKey("mlengine train", job, job_dir.uri)


def _check_unused(job: str, storage: Storage, spec: TrainingSpec, job_dir: JobDir) -> None:
    """The same command again goes on with its job; another training under a used id is refused, as gcloud's was."""
    try:
        record = JobRecord.from_bytes(storage.read(job_dir.claim))
    except ObjectMissingError:
        return
    hint = "choose another JOB or --job-dir; the same command again follows the same job"
    if record.key != _key(job, job_dir).digest:
        raise JobConflictError(f"{job_dir.uri} belongs to job {record.job_id} already", hint=hint)
    if record.spec != spec.to_json():
        differ = describe(changes(Inputs(record.spec, {}), Inputs(spec.to_json(), {}))) or "region, labels or limits"
        raise JobConflictError(f"job {record.job_id} was submitted with other inputs: {differ}", hint=hint)


def follow(backend: TrainingBackend, storage: Storage, submitter: Submitter, submitted: Submitted) -> int:
    """Print what the replicas write until the job has ended; attempt after attempt where its machines failed it."""
    from mlengine.jobs.progress import LogCursor, LogFormatter, read_progress

    handle = submitted.handle
    formatter = LogFormatter(LogCursor(handle.attempt))
    while True:
        status = backend.describe([handle])[0]
        page = backend.logs(handle, formatter.cursor.logs)
        progress = read_progress(storage, JobDir(handle.job_dir)) if formatter.progress_due else None
        for line in formatter.new_lines(status, page, progress):
            say(line)
        if page.more:
            continue
        if not status.state.terminal:
            time.sleep(_POLL)
            continue
        if status.state is JobState.SUCCEEDED:
            return 0
        if not _retryable(status):
            return _failed(status)
        try:
            handle = submitter.next_attempt(status).handle
        except JobFailedError as error:
            say(str(error))
            return 1
        say(f"attempt {handle.attempt} goes on from the last checkpoint")
        formatter = LogFormatter(LogCursor(handle.attempt))


def _retryable(status: JobStatus) -> bool:
    return status.failure is not None and status.failure.cause.retryable


def _failed(status: JobStatus) -> int:
    failure = status.failure
    # Further lines, of a replica's log, were printed with the state.
    message = f": {plaintext.lines(failure.message)[0]}" if failure else ""
    say(f"{status.handle.job_id}: {status.state.value}{message}")
    return 1
