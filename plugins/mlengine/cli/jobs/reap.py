"""``mlengine jobs reap``: cancel orphan jobs, which are jobs that no DAG run waits for any more.

A task that ends almost always cancels its job (``docs/operations.md`` lists the exceptions). This command finds the
remaining jobs: it reads the claims in the bucket, asks the backends which of these jobs are active, and asks Airflow's
REST API whether their runs and tasks are active. Without ``--yes``, it only lists the orphans.

If Airflow does not answer, no job is cancelled. If a backend does not answer, its jobs are skipped, and the exit code
is 1. Jobs of another Airflow are ignored, and so are jobs of ``mlengine jobs train`` and ``mlengine jobs rerun``, which
a person manages. Jobs of another host are skipped: run the command there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlengine.backends import RunsOnHost, TrainingBackend, find_attempts, get_backend
from mlengine.cli.documents import OrphanDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.options import (
    Commands,
    add_airflow_url,
    add_backend_options,
    add_bucket,
    add_command,
    add_json,
    bucket_of,
)
from mlengine.cli.output import note, say, say_json, say_table
from mlengine.clients.airflow_api import AirflowServer
from mlengine.clients.airflow_runs import AirflowRuns
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.job import JobHandle, JobRecord, JobStatus, dag_of
from mlengine.core.layout import RESERVED_NAMES, JobDir, join
from mlengine.core.plural import number_of
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Submitter
from mlengine.storage.client import Storage

_SENSOR = "TrainingJobSensor"
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


_ABOUT = """\
List jobs that are still running although their DAG run or task has ended, was deleted or was cleared; --yes cancels
them. If Airflow does not respond, no job is cancelled.
"""


@dataclass(frozen=True)
class ActiveJob:
    """A job that has not ended, and its record in the bucket."""

    status: JobStatus
    record: JobRecord


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "reap", "list jobs whose DAG run has ended; --yes cancels them", _ABOUT)
    parser.add_argument("--model", help="only jobs of this model")
    add_bucket(parser, "bucket of the jobs")
    add_airflow_url(parser)
    add_backend_options(parser, region=" for jobs that do not set one")
    parser.add_argument(
        "--installation",
        metavar="ID",
        help="jobs of the Airflow installation with this id, such as one whose database was lost (default: the one at "
        "--airflow-url)",
    )
    parser.add_argument(
        "--unknown", action="store_true", help="continue even if this Airflow knows none of the jobs' DAGs"
    )
    parser.add_argument("--yes", action="store_true", help="cancel the jobs")
    add_json(parser)
    parser.set_defaults(handler=_reap)


def _reap(args: argparse.Namespace) -> int:
    bucket = bucket_of(args)
    airflow = AirflowRuns(AirflowServer.from_environment(args.airflow_url))
    storage, backends = Storage(), Backends(args)
    skipped: list[str] = []
    active = active_jobs(backends.get, claims(storage, bucket, args.model, skipped), skipped)
    active = _of_installation(active, airflow, args.installation)
    for message in skipped:
        note(f"skipped {message}")
    dags = {str(job.record.owner["dag_id"]) for job in active}
    if dags and not args.unknown and not any(airflow.knows(dag) for dag in dags):
        raise MlengineError(
            f"this Airflow knows none of the DAGs of the active jobs: {', '.join(sorted(dags))}",
            hint="check --airflow-url; if those DAGs were deleted, add --unknown",
        )
    orphans = [(job, why) for job in active if (why := orphaned(airflow, job.record))]
    if not args.json:
        _print(orphans)
    cancelled = [args.yes and _cancel(storage, backends, job.status.handle) for job, _ in orphans]
    if args.json:
        say_json([_document(job, why, cancelled=done) for (job, why), done in zip(orphans, cancelled, strict=True)])
    elif not orphans:
        say(f"no orphan jobs among {_jobs(len(active))} of Airflow")
    elif args.yes:
        say(f"requested the cancellation of {_jobs(sum(cancelled))}")
    else:
        say(f"{len(orphans)} of {_jobs(len(active))} would be cancelled; add --yes to cancel")
    if args.yes and not all(cancelled):
        note(f"mlengine: {_jobs(cancelled.count(False))} not cancelled; run the command again")
        return ExitCode.FAILED
    return ExitCode.FAILED if skipped else ExitCode.OK


def _cancel(storage: Storage, backends: Backends, handle: JobHandle) -> bool:
    """Cancel a job. If the backend rejects it, a note says why, and the command continues with the other jobs.

    :returns: whether the backend accepted the cancellation.
    """
    try:
        Submitter(storage, backends.get(handle.backend)).end(handle, "its DAG run was no longer waiting for it")
    except MlengineError as error:
        note(f"mlengine: {handle.job_id} was not cancelled: {error}")
        return False
    return True


def _jobs(number: int) -> str:
    return number_of(number, "active job")


def _print(orphans: Sequence[tuple[ActiveJob, str]]) -> None:
    if orphans:
        rows = [(job.status.handle.job_id, job.status.state.value, why) for job, why in orphans]
        say_table(("JOB", "STATE", "REASON"), rows)


def _document(job: ActiveJob, why: str, *, cancelled: bool) -> OrphanDocument:
    handle = job.status.handle
    return {
        "job_id": handle.job_id,
        "job_dir": handle.job_dir,
        "backend": handle.backend,
        "attempt": handle.attempt,
        "state": job.status.state.value,
        "reason": why,
        "cancelled": cancelled,
    }


def _of_installation(found: Iterable[ActiveJob], airflow: AirflowRuns, wanted: str | None) -> list[ActiveJob]:
    """The jobs of one Airflow installation. A note lists those of others.

    A record without an installation id counts as this Airflow's.
    """
    found = list(found)
    named = any(job.record.owner.get("installation") for job in found)
    ours = (wanted or airflow.installation()) if named else None
    mine, others = [], defaultdict(list)
    for job in found:
        installation = str(job.record.owner.get("installation") or "")
        if installation in {"", ours}:
            mine.append(job)
        else:
            others[installation].append(job.status.handle.job_id)
    for installation, jobs in sorted(others.items()):
        note(f"ignored jobs of another Airflow (--installation {installation}): {', '.join(sorted(jobs))}")
    return mine


def claims(storage: Storage, bucket: str, model: str | None, skipped: list[str]) -> Iterator[tuple[JobDir, JobRecord]]:
    """The record of each job in the bucket that a task of Airflow submitted.

    :param skipped: receives a message for each record that cannot be read.
    """
    models = [model] if model else [name for name in storage.list_dirs(bucket) if name not in RESERVED_NAMES]
    dirs = [JobDir(join(bucket, name, job)) for name in models for job in storage.list_dirs(join(bucket, name))]
    with ThreadPoolExecutor(8) as pool:
        for job_dir, record in zip(dirs, pool.map(partial(_record, storage, skipped), dirs), strict=True):
            if record is not None:
                yield job_dir, record


def active_jobs(
    backend: Callable[[str], TrainingBackend], found: Iterable[tuple[JobDir, JobRecord]], skipped: list[str]
) -> list[ActiveJob]:
    """The jobs that have not ended. Each backend is asked once for all of its jobs.

    :param skipped: receives a message for each backend that does not answer or cannot be used here.
    """
    by_backend: defaultdict[str, list[tuple[JobDir, JobRecord]]] = defaultdict(list)
    for job_dir, record in found:
        by_backend[record.backend].append((job_dir, record))
    active = []
    for name, jobs in by_backend.items():
        try:
            active += _active(backend(name), jobs)
        except MlengineError as error:
            names = ", ".join(sorted(job_dir.job_id for job_dir, _ in jobs))
            skipped.append(f"the jobs of backend {name}, {names}: {error}")
    return active


def _active(backend: TrainingBackend, jobs: Iterable[tuple[JobDir, JobRecord]]) -> list[ActiveJob]:
    """The jobs of one backend that have not ended."""
    asked: list[tuple[JobHandle, JobRecord]] = []
    for job_dir, record in jobs:
        handle = record.handle(job_dir.uri)
        # A submission may have been interrupted before it recorded the name: then only the backend knows the job.
        handles = [handle] if handle else find_unnamed(backend, record)
        asked += [(one, record) for one in handles if not elsewhere(backend, one)]
    statuses = backend.describe([handle for handle, _ in asked])
    found = zip(statuses, asked, strict=True)
    return [ActiveJob(status, record) for status, (_, record) in found if not status.state.terminal]


def elsewhere(backend: TrainingBackend, handle: JobHandle) -> bool:
    """Whether only another host can manage the job."""
    return isinstance(backend, RunsOnHost) and backend.elsewhere(handle) is not None


def find_unnamed(backend: TrainingBackend, record: JobRecord) -> list[JobHandle]:
    """The jobs of a record without a name: its submission was interrupted, or never reached the backend."""
    return find_attempts(backend, record.key, TrainingSpec.from_json(record.spec), record.regions)


def orphaned(airflow: AirflowRuns, record: JobRecord) -> str | None:
    """Why no task waits for the job any more; ``None`` if one may."""
    dag_id, run_id = str(record.owner["dag_id"]), str(record.owner["run_id"])
    run = airflow.run(dag_id, run_id)
    if run is None:
        return f"its run {run_id} of {dag_id} no longer exists"
    if run["state"] in _OVER:
        return f"its run {run_id} of {dag_id} has ended: {run['state']}"
    return _unwanted(airflow, record) or _recreated(airflow, record)


def _recreated(airflow: AirflowRuns, record: JobRecord) -> str | None:
    """Why no task waits for the job, if its run was deleted and another run with the same name was created."""
    owner = record.owner
    names = str(owner["dag_id"]), str(owner["run_id"])
    current = airflow.run_uid(*names, str(owner["task_id"]), int(owner.get("map_index", -1)))
    if not current or not owner.get("run_uid") or current == owner["run_uid"]:
        return None
    return f"its run {names[1]} of {names[0]} was deleted and recreated"


def _unwanted(airflow: AirflowRuns, record: JobRecord) -> str | None:
    """Why no task waits for the job, by the tasks of its run, which has not ended."""
    names = str(record.owner["dag_id"]), str(record.owner["run_id"])
    tasks = airflow.tasks(*names)
    task_id, map_index = record.owner["task_id"], record.owner.get("map_index", -1)
    mine = [task for task in tasks if (task["task_id"], task["map_index"]) == (task_id, map_index)]
    if not mine:
        return f"its task {task_id} is no longer part of its run"
    if mine[0]["max_tries"] != record.owner.get("generation"):
        return f"its task {task_id} was cleared to train again"
    if mine[0]["state"] in _OVER - {"success"}:
        return f"its task {task_id} has ended: {mine[0]['state']}"
    waits = [task for task in tasks if task["operator"] == _SENSOR]
    if not waits or mine[0]["state"] != "success" or any(task["state"] not in _OVER for task in waits):
        return None
    # Airflow knows a sensor of a subclass by the name of the subclass. It has kept how it accesses its job.
    others = [task for task in tasks if task["operator"] != _SENSOR and task["state"] not in _OVER]
    if any(airflow.has_job(*names, task["task_id"], task["map_index"]) for task in others):
        return None
    return "no task waits: " + ", ".join(sorted({f"{task['task_id']} is {task['state']}" for task in waits}))


class Backends:
    """Backends by name, each created when it is first needed."""

    def __init__(self, args: argparse.Namespace) -> None:
        vertex = {"project": args.project, "region": args.region}
        self._options: dict[str, dict[str, Any]] = {"local": {"state_dir": args.state_dir}, "vertex": vertex}
        self._made: dict[str, TrainingBackend] = {}

    def get(self, name: str) -> TrainingBackend:
        if name not in self._made:
            options = self._options.get(name, {})
            self._made[name] = get_backend(name, **{option: value for option, value in options.items() if value})
        return self._made[name]


def _record(storage: Storage, skipped: list[str], job_dir: JobDir) -> JobRecord | None:
    """The record of a job; ``None`` if it has none, if it cannot be read, or if no task of Airflow submitted it."""
    try:
        record = JobRecord.from_bytes(storage.read(job_dir.claim))
        if not dag_of(record.owner):
            return None
        if not record.name:
            TrainingSpec.from_json(record.spec)  # checked here, because find_unnamed() reads it
    except ObjectMissingError:
        return None
    except MlengineError as error:
        if error.retryable:
            raise
        skipped.append(f"{job_dir.claim}: {error.message}")
        return None
    types = {"run_id": str, "task_id": str, "map_index": int}
    owner = {"map_index": -1, **record.owner}
    if wrong := [name for name, kind in types.items() if not isinstance(owner.get(name), kind)]:
        skipped.append(f"{job_dir.claim}: its owner has no valid {' and no valid '.join(wrong)}")
        return None
    return record
