"""``mlengine jobs reap`` and a real Airflow: a DAG is deleted while its job runs, which becomes an orphan."""

from __future__ import annotations

import uuid

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from tests.e2e.life_lab import QUICK, Lab, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_it_ends_what_a_deleted_dag_left_running_and_nothing_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"state_dir": str(lab.root / "reap"), "max_concurrent_jobs": 200, **QUICK}
    backend = LocalBackend(**options)  # type: ignore[arg-type]
    model = f"reap{uuid.uuid4().hex[:6]}"
    runs = {}
    for dag in ("life_gone", "life_stays"):
        lab.api.wait_for_dag(dag)
        job_dir = JobDir.of(lab.bucket, model, dag)
        job_file = {
            "trainingInput": {
                "pythonModule": "sleeper",
                "packageUris": [lab.quick_package],
                "args": ["--until", str(lab.root / "end-never")],
            }
        }
        job = {"model": model, "job_id": job_dir.job_id, "job_dir": job_dir.uri}
        runs[dag] = lab.trigger(dag, {"dir": job, "options": options, "job_file": job_file}, f"{dag}-{model}")

    def job_of(dag: str) -> JobStatus:
        claim = JobRecord.from_bytes(lab.storage.read(JobDir.of(lab.bucket, model, dag).claim))
        return backend.describe(backend.find(claim.key))[0]

    def waits(dag: str) -> bool:
        states = {task.task_id: task.state for task in persist(lab.api.tasks, dag, runs[dag].run_id)}
        return bool(states["wait"] == "up_for_reschedule")

    for dag in runs:
        until(lambda dag=dag: waits(dag), f"the job of {dag} is waited for")  # type: ignore[misc]
        until(lambda dag=dag: job_of(dag).state is JobState.RUNNING, f"the job of {dag} runs")  # type: ignore[misc]
    persist(lab.api.call, "DELETE", "dags/life_gone")

    for name, value in lab.admin.items():
        monkeypatch.setenv(name, value)
    command = ["jobs", "reap", "--bucket", lab.bucket, "--model", model, "--state-dir", options["state_dir"]]
    assert main(command) == 0  # type: ignore[arg-type]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3, said
    assert said[1].startswith("life_gone ")
    assert f"its run {runs['life_gone'].run_id} of life_gone does not exist any more" in said[1]
    assert said[2] == "1 of 2 active jobs would be cancelled; add --yes to cancel"
    assert job_of("life_gone").state is JobState.RUNNING, "it has only said so"

    assert main([*command, "--yes"]) == 0  # type: ignore[list-item]
    until(lambda: job_of("life_gone").state is JobState.CANCELLED, "it is ended")
    assert job_of("life_stays").state is JobState.RUNNING

    persist(lab.api.set_run_state, runs["life_stays"], "failed")
    until(lambda: job_of("life_stays").state is JobState.CANCELLED, "it ends with its run")
