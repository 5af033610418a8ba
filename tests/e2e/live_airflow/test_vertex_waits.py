"""The kill matrix of a running Vertex AI job, with the real scheduler and triggerer.

Airflow and the waiting DAGs are those of the local backend, for which ``test_interrupted_waits.py`` tests every state.
The emulator takes the place of Vertex AI. A DAG with the Google provider's own operator uses the same emulator.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.vertex.backend import VertexBackend
from mlengine.core.job import JobKey, JobState
from mlengine.core.layout import JobDir
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator.log_entries import all_entries
from mlengine.jobs.submission import Intent, Submitter
from mlengine.testing import airflow
from mlengine.testing.airflow_api import AirflowApi, DagRun
from mlengine.testing.emulator import RunningEmulator, running
from tests.support.live_airflow import QUICK, Job, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@dataclass
class VertexJob(Job):
    """A job on the emulator. Its end file works like a local job's."""

    @cached_property
    def backend(self) -> Any:
        return VertexBackend(**self.options)

    @property
    def seen(self) -> tuple[str | None, tuple[str, ...]]:
        """The state of the task, and the states of the job's attempts."""
        assert self.run is not None
        task = self.live_airflow.waits().get(self.run.run_id)
        states = (status.state for status in self.attempts)
        return task.state if task else None, tuple("live" if not state.terminal else state.value for state in states)


@dataclass(frozen=True)
class Case:
    """An event during the wait for a running job, and the expected outcome for the task and the job.

    :param act: what the test does; ``None`` for an event that happens without it.
    """

    dag: str
    act: Callable[[AirflowApi, Job], None] | None
    task: str
    attempts: tuple[str, ...] = ("CANCELLED",)


def _run(job: Job) -> Any:
    return job.run


CASES: Mapping[str, Case] = {
    "mark failed": Case("wait_plain", lambda _, job: job.mark("failed"), "failed"),
    "mark success": Case("wait_plain", lambda _, job: job.mark("success"), "success"),
    "clear": Case(
        "wait_plain", lambda api, job: persist(api.clear, _run(job), "wait"), "deferred", ("CANCELLED", "live")
    ),
    "run failed": Case("wait_plain", lambda api, job: persist(api.set_run_state, _run(job), "failed"), "failed"),
    "our deadline": Case("wait_deadline", None, "failed"),
    "task timeout": Case("wait_limit", None, "failed"),
    # The service preempts a machine: attempt 2 continues in the same job dir.
    "preempted": Case("wait_plain", None, "deferred", ("FAILED", "live")),
    "triggerer killed": Case("wait_plain", None, "deferred", ("live",)),
}
OUTCOME_SECONDS = 900.0  # only a machine that is very busy needs minutes
CONTINUING = ("clear", "preempted", "triggerer killed")


@pytest.fixture(scope="module")
def cloud(live_airflow: LiveAirflow) -> Iterator[RunningEmulator]:
    local = {"max_concurrent_jobs": 200, "max_chief_restarts": 0, **QUICK}
    with running(live_airflow.root / "cloud", local=local, storage=live_airflow.storage) as service:
        yield service


def submit(live_airflow: LiveAirflow, cloud: RunningEmulator, name: str) -> VertexJob:
    key = JobKey("waits", f"vertex-{name}-{uuid.uuid4().hex[:6]}".replace(" ", "-"), "submit")
    end_file = live_airflow.root / f"end-{key.run_id}"
    spec = TrainingSpec(
        module="idle_trainer",
        args=("--until", str(end_file)),
        package_uris=(live_airflow.quick_package,),
        pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),),
    )
    job_dir = JobDir.of(live_airflow.bucket, "waits", key.run_id.replace("-", "_"))
    submitted = Submitter(live_airflow.storage, VertexBackend(**cloud.settings)).submit(
        Intent(key, "waits", job_dir, spec)
    )
    return VertexJob(live_airflow, key.run_id, key, submitted.handle, cloud.settings, end_file)


@pytest.fixture(scope="module")
def provider(live_airflow: LiveAirflow, cloud: RunningEmulator) -> Iterator[str]:
    """The id of a DAG with the Google provider's operator, whose job runs a plain container."""
    say = "import os; print('by the provider, into', os.environ['AIP_MODEL_DIR'])"
    container = {"image_uri": "docker.example/any", "command": ["python3", "-c", say]}
    pool = {"machine_spec": {"machine_type": "n1-standard-4"}, "replica_count": 1, "container_spec": container}
    output = {"output_uri_prefix": f"{live_airflow.bucket}/life/provider"}
    job = {"display_name": "provider", "job_spec": {"worker_pool_specs": [pool], "base_output_directory": output}}
    asked: Path = live_airflow.airflow.config.home / "provider.json"
    asked.write_text(json.dumps({"url": cloud.url, "job": job}))
    (live_airflow.airflow.config.dags / "provider.py").touch()
    yield "wait_provider"
    asked.unlink()


@dataclass(frozen=True)
class Outcome:
    """The job of each case at its end, and the run of the provider's DAG, which ran concurrently."""

    jobs: Mapping[str, VertexJob]
    provider_run: DagRun


@pytest.fixture(scope="module")
def outcome(live_airflow: LiveAirflow, cloud: RunningEmulator, provider: str) -> Outcome:
    cloud.script("CreateCustomJob", "preempt", skip=list(CASES).index("preempted"))
    jobs = {name: submit(live_airflow, cloud, name) for name in CASES}
    for name, job in jobs.items():
        wanted = {JobState.RUNNING, JobState.FAILED} if name == "preempted" else {JobState.RUNNING}
        until(lambda job=job, wanted=wanted: job.state in wanted, f"{name} runs")  # type: ignore[misc]
        job.wait_in(CASES[name].dag)
    for name, job in jobs.items():
        act = CASES[name].act
        until(lambda job=job: job.task.state in {"deferred", "failed"}, f"a task waits for {name}: {job.task}")  # type: ignore[misc]
        if act is not None:
            # A wait that is cleared before a triggerer has started its trigger finds its job again and does not cancel
            # it.
            until(job.watched, f"a triggerer waits for {name}")
            act(live_airflow.api, job)
    persist(live_airflow.api.wait_for_dag, provider, 180.0)
    run = live_airflow.trigger(provider, {}, f"provider-{uuid.uuid4().hex[:6]}")
    _wait_for_outcomes(jobs)
    watched = jobs["triggerer killed"]
    _kill_triggerer(live_airflow)
    lines = watched.logged()
    until(lambda: watched.logged() > lines, "the wait resumes after the triggerer's restart")
    return Outcome(jobs, run)


def _wait_for_outcomes(jobs: Mapping[str, VertexJob]) -> None:
    """Wait until all outcomes are as expected, or until a timeout; the tests report any difference."""
    deadline = time.monotonic() + OUTCOME_SECONDS
    waiting = dict(jobs)
    while waiting and time.monotonic() < deadline:
        waiting = {name: job for name, job in waiting.items() if job.seen != (CASES[name].task, CASES[name].attempts)}
        time.sleep(2.0)  # each poll calls the emulator for every job


def _kill_triggerer(live_airflow: LiveAirflow) -> None:
    began = datetime.now(UTC)
    live_airflow.airflow.stop_component("triggerer", kill=True)
    live_airflow.airflow.start_component("triggerer")
    airflow.wait_until_healthy(live_airflow.airflow, since=began)


@pytest.mark.parametrize("name", CASES)
def test_the_job_ends_when_its_wait_ends(outcome: Outcome, name: str) -> None:
    job, case = outcome.jobs[name], CASES[name]
    assert job.seen == (case.task, case.attempts), "\n".join(job.log())


def test_jobs_that_continue_succeed_in_the_end(outcome: Outcome) -> None:
    for name in CONTINUING:
        outcome.jobs[name].end()
    for name in CONTINUING:
        job = outcome.jobs[name]
        until(lambda job=job: job.task.state == "success", f"{name} succeeds: {job.seen}")  # type: ignore[misc]
        assert job.attempts[-1].state is JobState.SUCCEEDED
        assert job.live == 0


def test_the_google_providers_operator_runs_in_a_dag(
    live_airflow: LiveAirflow, cloud: RunningEmulator, outcome: Outcome
) -> None:
    ended = live_airflow.api.wait(outcome.provider_run, 180.0)
    (task,) = live_airflow.api.tasks(ended.dag_id, ended.run_id)
    log = "\n".join(live_airflow.api.log(ended.dag_id, ended.run_id, "train", task.try_number))
    assert (ended.state, task.state) == ("success", "success"), log
    number = live_airflow.api.xcoms(ended.dag_id, ended.run_id, "train")["custom_job_id"]
    record = next(record for record in cloud.server.engine.store.all() if record.id == number)
    assert record.state is JobState.SUCCEEDED
    lines = [entry["jsonPayload"]["message"] for entry in all_entries(cloud.server.engine.journal, record)]
    assert f"by the provider, into {live_airflow.bucket}/life/provider/model/" in lines
