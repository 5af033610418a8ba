"""``mlengine jobs train``: submit one training job on any backend, with the flags of gcloud's command.

docs/gcloud-flags.md describes each flag and its differences from gcloud. :mod:`mlengine.cli.jobs.train_spec` turns the
flags into a spec; :mod:`mlengine.cli.jobs.follow` prints the logs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine import settings
from mlengine.cli.jobs.follow import follow, print_submission
from mlengine.cli.jobs.train_spec import dataset_of, packages, spec_of
from mlengine.cli.options import Commands, add_backend, add_command, add_max_attempts, add_set, unique
from mlengine.cli.output import say
from mlengine.core.errors import JobConflictError, ObjectMissingError, UsageError
from mlengine.core.input_changes import Inputs, changes, describe
from mlengine.core.job import JobKey, JobRecord
from mlengine.core.job_file import parse
from mlengine.core.job_file.tiers import TIER_NAMES
from mlengine.core.layout import JobDir, bucket_uri, join, split_uri
from mlengine.core.spec import TrainingSpec

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend
    from mlengine.storage.client import Storage

# Part of the key in stored job records, so it remains the original name of this command.
_KEY_OWNER = "mlengine train"
_ABOUT = """\
Package the trainer, submit one job and, with --stream-logs, follow it. Arguments after -- are passed to the trainer.
Repeating the command follows the same job.
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "train", "submit one training job", _ABOUT)
    parser.add_argument(
        "job", metavar="JOB", help="the job's id: letters, digits and underscores; starts with a letter"
    )
    code = parser.add_argument_group("trainer and data")
    code.add_argument("--package-path", type=Path, metavar="DIR", help="directory of a package or of a project")
    code.add_argument(
        "--packages", metavar="A,B", help="built sdists or wheels, local or gs://; the trainer comes first"
    )
    code.add_argument("--module-name", metavar="NAME", help="module that is run with python -m, such as trainer.task")
    code.add_argument("--config", type=Path, metavar="FILE", help="the job file; flags override its fields")
    code.add_argument(
        "--dataset",
        metavar="NAME[@VERSION]",
        help="a dataset version (default: the newest), or its gs:// URI; passed to the trainer as --dataset gs://…",
    )
    location = parser.add_argument_group("locations")
    location.add_argument("--job-dir", metavar="GS", help="job directory (default: BUCKET/jobs/JOB)")
    location.add_argument(
        "--job-dir-arg",
        metavar="ARG",
        help='the trainer\'s argument for the job directory (default: --job-dir); "" if it has none',
    )
    location.add_argument(
        "--staging-bucket",
        metavar="GS",
        help="bucket of packages (default: the setting bucket, else the bucket of --job-dir)",
    )
    location.add_argument("--region", help="region of the job; overrides the job file's")
    add_backend(location, "local, ray or vertex (default: the setting backend)")
    location.add_argument("--project", help="project of Vertex AI (default: the setting vertex_project)")
    _cluster(parser.add_argument_group("cluster"))
    run = parser.add_argument_group("submission")
    run.add_argument("--labels", metavar="KEY=VALUE,…", help="labels of the job, for billing and search")
    add_set(run, "an option of the backend, such as spot=true; repeatable")
    run.add_argument(
        "--stream-logs", action="store_true", help="print the logs until the job ends; exit code 3 if it fails"
    )
    run.add_argument("--async", action="store_true", dest="asynchronous", help="return after submission (the default)")
    run.add_argument(
        "--dry-run", action="store_true", help="package, check and print the request as YAML; upload and submit nothing"
    )
    add_max_attempts(run)
    parser.set_defaults(handler=_train, user_args=None)


def _cluster(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--scale-tier", metavar="TIER", help=", ".join(TIER_NAMES))
    group.add_argument(
        "--distributed", action="store_true", help="2 workers and 2 parameter servers, like gcloud's local train"
    )
    group.add_argument("--master-machine-type", metavar="TYPE", help="machine type of the chief")
    group.add_argument("--worker-machine-type", metavar="TYPE", help="machine type of the workers")
    group.add_argument("--parameter-server-machine-type", metavar="TYPE", help="machine type of the parameter servers")
    group.add_argument("--worker-count", type=int, metavar="N", help="number of workers")
    group.add_argument("--parameter-server-count", type=int, metavar="N", help="number of parameter servers")
    group.add_argument("--evaluator-count", type=int, metavar="N", help="number of evaluators")
    group.add_argument(
        "--runtime-version",
        metavar="V",
        help='only determines whether TF_CONFIG calls the first replica "chief" or "master"',
    )
    group.add_argument(
        "--use-chief-in-tf-config",
        action=argparse.BooleanOptionalAction,
        help='call the first replica "chief" in TF_CONFIG, or "master", regardless of --runtime-version',
    )
    group.add_argument(
        "--python-version",
        metavar="V",
        help="Python version of the image on Vertex AI; locally, of an interpreter that uv finds",
    )
    group.add_argument("--max-running-time", metavar="SECONDS", help="time limit of the job, such as 7200 or 7200s")


def _train(args: argparse.Namespace) -> int:
    from mlengine.backends import CapsCluster, ChoosesPython, KnowsPython, get_backend
    from mlengine.storage.client import Storage

    spec = spec_of(args)
    job_dir, staging = _locations(args, spec)
    options = {"project": args.project} if args.project else {}
    backend = get_backend(settings.get("backend", args.backend), **options, **unique("--set", args.set))
    if args.python_version and isinstance(backend, ChoosesPython):
        backend.use_python(args.python_version)
    storage = Storage()
    dataset = dataset_of(args.dataset, storage, staging)
    if dataset is not None:
        spec = parse.override(spec, args=[*spec.args, "--dataset", dataset["uri"]])
    python = backend.python_of(spec) if isinstance(backend, KnowsPython) else None
    spec, inputs = packages(args, spec, storage, staging, python)
    if dataset is not None:
        inputs["dataset"] = dataset
    if isinstance(backend, CapsCluster):
        spec, notes = backend.cap(spec)
        for note in notes:
            say(f"# {note}")
    if args.dry_run:
        return _print_request(args.job, backend, spec, job_dir)
    return _run(args, backend, storage, spec, job_dir, inputs=inputs)


def _locations(args: argparse.Namespace, spec: TrainingSpec) -> tuple[JobDir, str]:
    """The job dir and the staging bucket. If only one is given, the other is derived from it.

    :raises UsageError: neither is given.
    """
    job_dir = spec.job_dir
    bucket = settings.get("bucket", args.staging_bucket)
    if bucket:
        bucket = bucket_uri(bucket)
    if not (job_dir or bucket):
        raise UsageError(
            "no bucket is configured for the job",
            hint="pass --job-dir gs://… or --staging-bucket gs://…, or set [mlengine] bucket",
        )
    if not bucket:
        bucket = f"gs://{split_uri(str(job_dir))[0]}"
    return JobDir((job_dir or join(bucket, "jobs", args.job)).rstrip("/")), bucket


def _print_request(job: str, backend: TrainingBackend, spec: TrainingSpec, job_dir: JobDir) -> int:
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
    submitter = Submitter(storage, backend, max_attempts=settings.get_int("max_attempts", args.max_attempts))
    model = (job_dir.uri.split("/")[3:-1] or ["jobs"])[-1]
    intent = Intent(_key(args.job, job_dir), model, job_dir, spec, inputs, labels=spec.labels, job_id=args.job)
    submitted = submitter.submit(intent)
    print_submission(backend, submitted)
    return follow(backend, storage, submitter, submitted) if args.stream_logs else 0


def _key(job: str, job_dir: JobDir) -> JobKey:
    return JobKey(_KEY_OWNER, job, job_dir.uri)


def _check_unused(job: str, storage: Storage, spec: TrainingSpec, job_dir: JobDir) -> None:
    """Check that no other job has the id, as gcloud did.

    Repeating the same command is allowed: it follows the same job.
    """
    try:
        record = JobRecord.from_bytes(storage.read(job_dir.claim))
    except ObjectMissingError:
        return
    hint = "choose another JOB or --job-dir"
    if record.key != _key(job, job_dir).digest:
        raise JobConflictError(f"{job_dir.uri} already belongs to job {record.job_id}", hint=hint)
    if record.spec != spec.to_json():
        differ = describe(changes(Inputs(record.spec, {}), Inputs(spec.to_json(), {}))) or "region, labels or limits"
        raise JobConflictError(f"job {record.job_id} was submitted with other inputs: {differ}", hint=hint)
