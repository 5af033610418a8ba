"""``mlengine reap``: jobs that still run though nobody waits for them any more.

What ends a task ends its job, nearly always (``docs/operations.md`` says when not). This finds the rest: it goes
through the claims in the bucket, asks the backends which of their jobs are alive, and asks Airflow's REST API whether
the runs and tasks they belong to still are. It only says so; ``--yes`` ends them.

Where Airflow does not answer, nothing is decided. Jobs that another Airflow submitted are left alone, and so are those
of ``mlengine train`` and ``mlengine rerun``, which belong to a person; jobs of another machine are passed over: reap
there.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlengine.backends import RunsOnHost, TrainingBackend, find_attempts, get_backend
from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.clients.airflow_api import AirflowServer
from mlengine.clients.airflow_runs import AirflowRuns
from mlengine.core.errors import MlengineError, ObjectMissingError
from mlengine.core.job import BY_HAND, JobHandle, JobRecord, JobStatus
from mlengine.core.layout import RESERVED_NAMES, JobDir, join
from mlengine.core.spec import TrainingSpec
from mlengine.jobs.submission import Submitter
from mlengine.storage.client import Storage

_WAIT = "TrainingJobSensor"
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class Living:
    """A job that costs something, and the claim it was made for."""

    status: JobStatus
    record: JobRecord


def register(commands: Commands) -> None:
    parser = commands.add_parser("reap", help="find jobs that run for runs that are over; --yes ends them")
    add_bucket(parser)
    parser.add_argument("--model", help="of this model only")
    parser.add_argument(
        "--airflow-url",
        metavar="URL",
        help="of Airflow's UI (MLENGINE_AIRFLOW_URL); to be let in: MLENGINE_AIRFLOW_TOKEN, or _USER and _PASSWORD",
    )
    parser.add_argument("--state-dir", metavar="DIR", help="where the local backend keeps its jobs")
    parser.add_argument("--project", help="of jobs on Vertex AI (default: the setting vertex_project)")
    parser.add_argument(
        "--region", help="of those whose claim and job file name none (default: the setting vertex_region)"
    )
    parser.add_argument(
        "--installation",
        metavar="ID",
        help="jobs submitted by this Airflow, e.g. before its database was lost (default: by the one at --airflow-url)",
    )
    parser.add_argument("--unknown", action="store_true", help="though this Airflow knows none of the jobs' DAGs")
    parser.add_argument("--yes", action="store_true", help="end them")
    parser.set_defaults(handler=_reap)


def _reap(args: argparse.Namespace) -> int:
    bucket = bucket_of(args)
    airflow = AirflowRuns(AirflowServer.from_environment(args.airflow_url))
    storage, backends = Storage(), Backends(args)
    orphans = []
    alive = _of_installation(living(backends.get, claims(storage, bucket, args.model)), airflow, args.installation)
    dags = {str(job.record.owner["dag_id"]) for job in alive}
    if dags and not args.unknown and not any(airflow.knows(dag) for dag in dags):
        raise MlengineError(
            f"this Airflow knows none of the DAGs whose jobs run: {', '.join(sorted(dags))}",
            hint="see that --airflow-url is the right one; if those DAGs were deleted, add --unknown",
        )
    for job in alive:
        why = orphaned(airflow, job.record)
        if why:
            orphans.append(job)
            say(f"{job.status.handle.job_id}  attempt {job.status.handle.attempt}  {job.status.state.value}: {why}")
    if not orphans:
        say(f"nothing to end: {len(alive)} of Airflow's jobs run, and all are waited for")
        return 0
    if not args.yes:
        say(f"{len(orphans)} of {len(alive)} running jobs would be ended; --yes ends them")
        return 0
    for job in orphans:
        handle = job.status.handle
        Submitter(storage, backends.get(handle.backend)).end(handle, "nobody waited for it any more")
    say(f"{len(orphans)} jobs told to end")
    return 0


def _of_installation(found: Iterable[Living], airflow: AirflowRuns, wanted: str | None) -> list[Living]:
    """The jobs of one Airflow; those of others are named and left alone. A claim that names none is taken for ours."""
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
        say(f"left alone, submitted by the Airflow with --installation {installation}: {', '.join(sorted(jobs))}")
    return mine


def claims(storage: Storage, bucket: str, model: str | None = None) -> Iterator[tuple[JobDir, JobRecord]]:
    """Every claim that a task of Airflow's has made, below ``bucket``."""
    models = [model] if model else [name for name in storage.list_dirs(bucket) if name not in RESERVED_NAMES]
    dirs = [JobDir(join(bucket, name, job)) for name in models for job in storage.list_dirs(join(bucket, name))]
    with ThreadPoolExecutor(8) as pool:
        for job_dir, record in zip(dirs, pool.map(partial(_record, storage), dirs), strict=True):
            if record is not None and record.owner.get("dag_id") not in {None, "", *BY_HAND}:
                yield job_dir, record


def living(backend: Callable[[str], TrainingBackend], found: Iterable[tuple[JobDir, JobRecord]]) -> Iterator[Living]:
    """Those of the claimed jobs that are alive; one look a backend at all that were recorded."""
    asked: defaultdict[str, list[tuple[JobHandle, JobRecord]]] = defaultdict(list)
    for job_dir, record in found:
        handle = record.handle(job_dir.uri)
        # A submission may have been cut off before its name was recorded: then only the backend knows.
        handles = [handle] if handle else find_unnamed(backend(record.backend), record)
        asked[record.backend] += [(one, record) for one in handles if not elsewhere(backend(record.backend), one)]
    for name, pairs in asked.items():
        for status, (_, record) in zip(backend(name).describe([handle for handle, _ in pairs]), pairs, strict=True):
            if not status.state.terminal:
                yield Living(status, record)


def elsewhere(backend: TrainingBackend, handle: JobHandle) -> bool:
    """A job of another host is that host's to look after."""
    return isinstance(backend, RunsOnHost) and backend.elsewhere(handle) is not None


def find_unnamed(backend: TrainingBackend, record: JobRecord) -> list[JobHandle]:
    """The jobs of a claim that names none: its submission was cut off, or it was never made."""
    return find_attempts(backend, record.key, TrainingSpec.from_json(record.spec))


def orphaned(airflow: AirflowRuns, record: JobRecord) -> str | None:
    """Why nobody waits for a job any more; ``None`` if somebody may."""
    dag_id, run_id = str(record.owner["dag_id"]), str(record.owner["run_id"])
    run = airflow.run(dag_id, run_id)
    if run is None:
        return f"its run {run_id} of {dag_id} does not exist any more"
    if run["state"] in _OVER:
        return f"its run {run_id} of {dag_id} is over: {run['state']}"
    return _unwanted(airflow.tasks(dag_id, run_id), record) or _recreated(airflow, record)


def _recreated(airflow: AirflowRuns, record: JobRecord) -> str | None:
    """Whether the run was deleted, and what goes on is another one of its name."""
    owner = record.owner
    names = str(owner["dag_id"]), str(owner["run_id"])
    current = airflow.run_uid(*names, str(owner["task_id"]), int(owner.get("map_index", -1)))
    if not current or not owner.get("run_uid") or current == owner["run_uid"]:
        return None
    return f"its run {names[1]} of {names[0]} was deleted and created again"


def _unwanted(tasks: Sequence[Mapping[str, Any]], record: JobRecord) -> str | None:
    """The same of a run that goes on."""
    task_id, map_index = record.owner["task_id"], record.owner.get("map_index", -1)
    mine = [task for task in tasks if (task["task_id"], task["map_index"]) == (task_id, map_index)]
    if not mine:
        return f"its task {task_id} is not part of its run any more"
    if mine[0]["max_tries"] != record.owner.get("generation"):
        return f"its task {task_id} was cleared, and trains again"
    if mine[0]["state"] in _OVER - {"success"}:
        return f"its task {task_id} is over: {mine[0]['state']}"
    waits = [task for task in tasks if task["operator"] == _WAIT]
    if waits and mine[0]["state"] == "success" and all(task["state"] in _OVER for task in waits):
        return "nobody waits: " + ", ".join(sorted({f"{task['task_id']} is {task['state']}" for task in waits}))
    return None


class Backends:
    """One of each name, made when it is first needed."""

    def __init__(self, args: argparse.Namespace) -> None:
        vertex = {"project": args.project, "region": args.region}
        self._options: dict[str, dict[str, Any]] = {"local": {"state_dir": args.state_dir}, "vertex": vertex}
        self._made: dict[str, TrainingBackend] = {}

    def get(self, name: str) -> TrainingBackend:
        if name not in self._made:
            options = self._options.get(name, {})
            self._made[name] = get_backend(name, **{option: value for option, value in options.items() if value})
        return self._made[name]


def _record(storage: Storage, job_dir: JobDir) -> JobRecord | None:
    try:
        return JobRecord.from_bytes(storage.read(job_dir.claim))
    except ObjectMissingError:
        return None
    except MlengineError as error:
        if error.retryable:
            raise
        say(f"{job_dir.claim} is passed over: {error.message}")
        return None
