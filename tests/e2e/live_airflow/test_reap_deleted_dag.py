"""Tests ``mlengine jobs reap`` with a real Airflow: a DAG is deleted while its job runs and no task waits for it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from tests.support.live_airflow import QUICK, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@pytest.fixture
def restored_dag(live_airflow: LiveAirflow) -> Iterator[None]:
    """Other tests use the deleted DAG. Airflow reads its file again when the file's time has changed."""
    yield
    os.utime(live_airflow.airflow.config.dags / "waits.py")
    live_airflow.api.wait_for_dag("wait_gone")


@pytest.mark.usefixtures("restored_dag")
def test_reap_cancels_only_the_jobs_of_a_deleted_dag(
    live_airflow: LiveAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"state_dir": str(live_airflow.root / "reap"), "max_concurrent_jobs": 200, **QUICK}
    backend = LocalBackend(**options)  # type: ignore[arg-type]
    model = f"reap{uuid.uuid4().hex[:6]}"
    runs = {}
    for dag in ("wait_gone", "wait_stays"):
        live_airflow.api.wait_for_dag(dag)
        job_dir = JobDir.of(live_airflow.bucket, model, dag)
        job_file = {
            "trainingInput": {
                "pythonModule": "idle_trainer",
                "packageUris": [live_airflow.quick_package],
                "args": ["--until", str(live_airflow.root / "end-never")],
            }
        }
        job = {"model": model, "job_id": job_dir.job_id, "job_dir": job_dir.uri}
        runs[dag] = live_airflow.trigger(dag, {"dir": job, "options": options, "job_file": job_file}, f"{dag}-{model}")

    def job_of(dag: str) -> JobStatus:
        claim = JobRecord.from_bytes(live_airflow.storage.read(JobDir.of(live_airflow.bucket, model, dag).claim))
        return backend.describe(backend.find(claim.key))[0]

    def waits(dag: str) -> bool:
        states = {task.task_id: task.state for task in persist(live_airflow.api.tasks, dag, runs[dag].run_id)}
        return bool(states["wait"] == "up_for_reschedule")

    for dag in runs:
        until(lambda dag=dag: waits(dag), f"a task waits for the job of {dag}")  # type: ignore[misc]
        until(lambda dag=dag: job_of(dag).state is JobState.RUNNING, f"the job of {dag} runs")  # type: ignore[misc]
    persist(live_airflow.api.call, "DELETE", "dags/wait_gone")

    for name, value in live_airflow.admin.items():
        monkeypatch.setenv(name, value)
    command = ["jobs", "reap", "--bucket", live_airflow.bucket, "--model", model, "--state-dir", options["state_dir"]]
    assert main(command) == 0  # type: ignore[arg-type]
    shown = capsys.readouterr()
    output = shown.out.splitlines()
    assert len(output) == 3, shown
    assert output[1].startswith("wait_gone ")
    assert f"its run {runs['wait_gone'].run_id} of wait_gone no longer exists" in output[1]
    assert output[2] == "1 of 2 active jobs would be cancelled; add --yes to cancel"
    assert job_of("wait_gone").state is JobState.RUNNING, "the job was cancelled without --yes"

    assert main([*command, "--yes"]) == 0  # type: ignore[list-item]
    until(lambda: job_of("wait_gone").state is JobState.CANCELLED, "the job is cancelled")
    assert job_of("wait_stays").state is JobState.RUNNING

    persist(live_airflow.api.set_run_state, runs["wait_stays"], "failed")
    until(lambda: job_of("wait_stays").state is JobState.CANCELLED, "the job is cancelled when its run fails")
