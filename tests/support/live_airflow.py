"""An Airflow with a real scheduler and triggerer, and jobs of the local backend that the test controls.

The tests submit the jobs themselves, so that each job is in a known state before a task waits for it. The waits are
real tasks.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from scripts.bootstrap import ROOT

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.errors import AirflowError
from mlengine.core.job import JobHandle, JobKey, JobState, JobStatus
from mlengine.core.layout import JobDir, package_uri
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.jobs.progress import read_cursor
from mlengine.jobs.submission import Intent, Submitter
from mlengine.storage.client import Storage
from mlengine.testing import airflow, gcs
from mlengine.testing.airflow_api import AirflowApi, DagRun, TaskRun
from mlengine.testing.airflow_home import AirflowConfig, emulator_connection
from tests.support.airflow_setup import SETTINGS
from tests.support.idle_trainer import idle_trainer

PATIENCE = 600.0  # seconds; enough for a very busy machine
TRIGGER_SECONDS = 0.5
_LOCK_SECONDS = 2.0  # other components hold the database's lock for a shorter time
QUICK = {
    "termination_grace_seconds": 1.0,
    "linger_seconds": 1.0,
    "restart_backoff_seconds": 0.1,
    "log_upload_timeout_seconds": 0,
}


# Functions that raise if a component of Airflow cannot be restarted; empty unless the live_airflow fixture is active.
_checks: list[Callable[[], None]] = []


def check() -> None:
    """Check that Airflow runs.

    :raises StackError: Airflow has stopped, so waiting for it is pointless.
    """
    for one in _checks:
        one()


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE, *, pause: float = 0.5) -> Any:
    """Wait until ``condition`` returns a true value, and return that value.

    :raises AssertionError: it did not within ``seconds``.
    :raises StackError: Airflow has stopped.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        check()
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)
    return value


def persist(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Retry a call while Airflow's database (SQLite) is locked or its server is busy, as many tests write concurrently.

    A failed call has usually changed nothing, because Airflow writes its audit log first.
    """
    for _ in range(10):
        try:
            return call(*arguments, **more)
        except AirflowError as error:
            if error.status not in {None, 500, 503}:
                raise
            check()
            time.sleep(1.0)
    return call(*arguments, **more)


def lost_its_retry(job: Job) -> bool:
    """Whether Airflow failed the wait instead of retrying it, because its database (SQLite) was locked.

    Airflow 3.3.2's API server does that after any database error.
    """
    assert job.run is not None
    path = f"dags/{job.run.dag_id}/dagRuns/{job.run.run_id}/taskInstances/wait"
    instance = persist(job.live_airflow.api.call, "GET", path)["id"]
    lines = job.live_airflow.airflow.log_file("api-server").read_text(errors="replace").splitlines()
    return any("Setting the task to failed" in line and instance in line for line in lines)


@dataclass
class Job:
    """A submitted job, and the run that waits for it, if any."""

    live_airflow: LiveAirflow
    name: str
    key: JobKey
    handle: JobHandle
    options: Mapping[str, Any]
    end_file: Path
    run: DagRun | None = None

    @cached_property
    def backend(self) -> LocalBackend:
        return LocalBackend(**self.options)

    @property
    def attempts(self) -> list[JobStatus]:
        return self.backend.describe(self.backend.find(self.key.digest))

    @property
    def state(self) -> JobState:
        return self.backend.describe([self.handle])[0].state

    @property
    def live(self) -> int:
        return sum(not status.state.terminal for status in self.attempts)

    @property
    def task(self) -> TaskRun:
        assert self.run is not None
        tasks = persist(self.live_airflow.api.tasks, self.run.dag_id, self.run.run_id)
        return next(task for task in tasks if task.task_id == "wait")  # type: ignore[no-any-return]

    def end(self, code: int = 0) -> None:
        partial = self.end_file.with_suffix(".part")
        partial.write_text(str(code))
        partial.rename(self.end_file)

    def wait_in(self, dag_id: str, **more: str) -> None:
        run_id = f"{self.name}-{uuid.uuid4().hex[:6]}"
        conf = {"job": self.handle.to_json(), "options": dict(self.options), **more}
        self.run = self.live_airflow.trigger(dag_id, conf, run_id)

    def watched(self) -> bool:
        """Whether a wait has polled the job. The task's log shows that immediately, the bucket a little later."""
        return self.logged() > 0 or read_cursor(self.live_airflow.storage, self.handle).state != ""

    def logged(self, word: str = " | ") -> int:
        """How often ``word`` is in the logs of its deferred waits. The default counts the replicas' log lines."""
        assert self.run is not None
        return self.live_airflow.logged_by_triggers(self.run.run_id, word)

    def mark(self, state: str) -> None:
        assert self.run is not None
        path = f"dags/{self.run.dag_id}/dagRuns/{self.run.run_id}/taskInstances/wait"
        persist(self.live_airflow.api.call, "PATCH", path, {"new_state": state})

    def log(self) -> list[str]:
        """The log of the wait task's last try."""
        assert self.run is not None
        names = self.run.dag_id, self.run.run_id, "wait"
        lines: list[str] = persist(self.live_airflow.api.log, *names, self.task.try_number)
        return lines


@dataclass
class LiveAirflow:
    """The shared Airflow, the bucket, and the state directories of the jobs."""

    root: Path
    airflow: airflow.Airflow
    storage: Storage
    bucket: str
    jobs: list[Job] = field(default_factory=list)
    _waits: dict[str, TaskRun] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _triggered_at: float = float("-inf")

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    @cached_property
    def quick_package(self) -> str:
        return self.put(idle_trainer())

    @cached_property
    def slow_package(self) -> str:
        """A package that is never built: a job with it stays PREPARING."""
        return self.put(idle_trainer(str(self.root / "never"), "2.0"))

    def trigger(self, dag_id: str, conf: Mapping[str, Any], run_id: str) -> DagRun:
        """Trigger a run.

        If a call without a response is repeated, Airflow may respond with 409: then the run exists already. There is a
        pause between two runs, because runs that begin at the same time lock SQLite for longer than the scheduler
        tolerates.
        """
        time.sleep(max(0.0, self._triggered_at + TRIGGER_SECONDS - time.monotonic()))
        try:
            made: DagRun = persist(self.api.trigger, dag_id, conf, run_id=run_id)
        except AirflowError as error:
            if error.status != 409:
                raise
            made = persist(self.api.run, dag_id, run_id)
        self._triggered_at = time.monotonic()
        return made

    def logged_by_triggers(self, run_id: str, word: str = " | ") -> int:
        """How often ``word`` is in the logs of a run's triggers. Reads them from disk, as tests call this often."""
        logs = (self.airflow.config.home / "logs").glob(f"*/run_id={run_id}/*/*.trigger.*")
        return sum(log.read_text(encoding="utf-8", errors="replace").count(word) for log in logs)

    def waits(self) -> dict[str, TaskRun]:
        """The wait task of every run, by run id; fetched with one call, at most every two seconds."""
        if time.monotonic() - self._looked_at > 2.0:
            path = "dags/~/dagRuns/~/taskInstances?limit=500&task_id=wait"
            if self._waits:  # only changed tasks; the margin is for updates that are delayed by the database's lock
                path += f"&updated_at_gte={quote((datetime.now(UTC) - timedelta(minutes=2)).isoformat())}"
            found = persist(self.api.call, "GET", path)["task_instances"]
            names = ("task_id", "state", "try_number", "duration", "map_index")
            self._waits |= {item["dag_run_id"]: TaskRun(**{name: item[name] for name in names}) for item in found}
            self._looked_at = time.monotonic()
        return self._waits

    def submit(self, name: str, *, place: str = "roomy", package: str | None = None, workers: int = 0) -> Job:
        """Submit a job in ``place``, a state directory with its own queue.

        In places named "full…" only one job runs at a time.
        """
        options: dict[str, Any] = {
            "state_dir": str(self.root / place),
            "max_concurrent_jobs": 1 if place.startswith("full") else 200,
            **QUICK,
        }
        key = JobKey("waits", f"{name}-{uuid.uuid4().hex[:6]}", "submit")
        end_file = self.root / f"end-{key.run_id}"
        pools = (Pool(Role.CHIEF, 1), *([Pool(Role.WORKER, workers)] if workers else []))
        spec = TrainingSpec(
            module="idle_trainer",
            args=("--until", str(end_file)),
            package_uris=(package or self.quick_package,),
            pools=pools,
        )
        job_dir = JobDir.of(self.bucket, "waits", key.run_id.replace("-", "_"))
        backend = LocalBackend(**options)
        submitted = Submitter(self.storage, backend).submit(Intent(key, "waits", job_dir, spec))
        self.jobs.append(Job(self, name, key, submitted.handle, options, end_file))
        return self.jobs[-1]

    def suspend(self, component: str) -> psutil.Process:
        """Suspend a component's main process at a moment when it does not hold the database's lock.

        Otherwise no other component could write until the process resumes.
        """
        process = psutil.Process(self.airflow.processes[component].pid)
        process.suspend()
        while not self._database_is_free():
            process.resume()
            check()
            time.sleep(0.05)
            process.suspend()
        return process

    def _database_is_free(self) -> bool:
        database = self.airflow.config.home / "airflow.db"
        with closing(sqlite3.connect(database, timeout=_LOCK_SECONDS, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
        return True

    @property
    def admin(self) -> dict[str, str]:
        """The environment variables for ``mlengine`` commands that call Airflow's API."""
        user, password = self.airflow.user, self.airflow.password
        return {
            "MLENGINE_AIRFLOW_URL": self.airflow.url,
            "MLENGINE_AIRFLOW_USER": user,
            "MLENGINE_AIRFLOW_PASSWORD": password,
        }

    def end_everything(self) -> None:
        for job in self.jobs:
            for status in job.attempts:
                if not status.state.terminal:
                    job.backend.cancel(status.handle)
        for job in self.jobs:
            until(lambda job=job: job.live == 0, f"{job.name} ends")  # type: ignore[misc]

    def put(self, data: bytes) -> str:
        """Store a package and return its URI."""
        uri = package_uri(self.bucket, "idle_trainer", uuid.uuid4().hex, "idle_trainer.tar.gz")
        self.storage.write(uri, data)
        return uri


@contextmanager
def running(root: Path, gcs_server: gcs.GcsServer) -> Iterator[LiveAirflow]:
    """Start Airflow with its home in ``root``. At the end, cancel every job that still runs."""
    before = dict(os.environ)
    os.environ.update(gcs_server.env)
    storage = Storage()
    bucket = f"waits-{uuid.uuid4().hex[:8]}"
    storage.client.create_bucket(bucket)
    config = AirflowConfig(
        home=root / "airflow",
        dags=Path(__file__).parent / "wait_dags",
        plugins=ROOT / "plugins",
        parallelism=8,
        env={
            **gcs_server.env,
            "AIRFLOW__MLENGINE__BUCKET": f"gs://{bucket}",
            "AIRFLOW__MLENGINE__PROGRESS_INTERVAL_SECONDS": "3",
            "AIRFLOW__MLENGINE__RETRY_BACKOFF_SECONDS": "1",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(ROOT / ".mlengine" / "cache" / "uv"),
        },
        settings={
            **SETTINGS,
            # Parsing a DAG file that imports the Google provider's operators takes long on a busy machine.
            "core.dagbag_import_timeout": "150",
            "dag_processor.dag_file_processor_timeout": "180",
            "api.maximum_page_limit": "1000",
            "scheduler.trigger_timeout_check_interval": "3",
            "scheduler.orphaned_tasks_check_interval": "10",
            "scheduler.task_instance_heartbeat_timeout": "60",
            "scheduler.task_instance_heartbeat_timeout_detection_interval": "5",
            "triggerer.job_heartbeat_sec": "1",
            "triggerer.triggerer_health_check_threshold": "6",
        },
    )
    try:
        with airflow.running(config) as started:
            made = LiveAirflow(root, started, storage, f"gs://{bucket}")
            _checks.append(started.check)
            # Stored in Airflow's database, as users' connections are: reading it in the triggerer must neither block
            # nor fail.
            extra = emulator_connection()["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"]
            made.api.call("POST", "connections", {"connection_id": "waits", **_connection(extra)})
            try:
                yield made
            finally:
                _checks.clear()
                made.end_everything()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _connection(text: str) -> dict[str, str]:
    found = json.loads(text)
    return {"conn_type": found["conn_type"], "extra": json.dumps(found["extra"])}
