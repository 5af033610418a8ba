"""Tests DAG runs that are deleted and created again with the same run id, with the real scheduler and the real API."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.cli import main
from mlengine.clients.airflow_api import run_path
from mlengine.core.errors import AirflowError
from mlengine.core.job import JobRecord, JobState, JobStatus
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import DagRun
from tests.support.live_airflow import QUICK, LiveAirflow, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@dataclass
class Weekly:
    """The DAG ``wait_weekly``, a model used only by this test, and the jobs submitted for it."""

    live_airflow: LiveAirflow
    model: str

    @property
    def options(self) -> dict[str, Any]:
        return {"state_dir": str(self.live_airflow.root / "weekly"), "max_concurrent_jobs": 200, **QUICK}

    def conf(self, end_file: Path) -> dict[str, Any]:
        """The configuration of a run whose job gets this file as its argument."""
        training = {
            "pythonModule": "idle_trainer",
            "packageUris": [self.live_airflow.quick_package],
            "args": ["--until", str(end_file)],
        }
        return {"model": self.model, "options": self.options, "job_file": {"trainingInput": training}}

    def ends_with(self, code: int) -> Path:
        """An end file that makes a job exit immediately with this code."""
        file = self.never_ends()
        file.write_text(str(code))
        return file

    def never_ends(self) -> Path:
        return self.live_airflow.root / f"end-{self.model}-{uuid.uuid4().hex[:6]}"

    def done(self, run: DagRun) -> str:
        until(lambda: persist(self.live_airflow.api.run, run.dag_id, run.run_id).done, f"{run.run_id} ends")
        state: str = persist(self.live_airflow.api.run, run.dag_id, run.run_id).state
        return state

    def delete(self, run: DagRun) -> None:
        persist(self.live_airflow.api.call, "DELETE", run_path(run.dag_id, run.run_id))

    def backfill(self, end_file: Path) -> DagRun:
        """Create the first of the week's runs as a backfill, and wait for its end."""
        known = {run.run_id for run in persist(self.live_airflow.api.runs, "wait_weekly")}
        body = {"dag_id": "wait_weekly", "from_date": "2026-06-07", "to_date": "2026-06-08", "max_active_runs": 1}
        more = {"reprocess_behavior": "none", "dag_run_conf": self.conf(end_file)}
        number = persist(self.live_airflow.api.call, "POST", "backfills", {**body, **more})["id"]

        def made() -> list[DagRun]:
            return [run for run in persist(self.live_airflow.api.runs, "wait_weekly") if run.run_id not in known]

        (run,) = until(made, "the backfill creates a run")
        self.done(run)
        # Airflow allows one active backfill per DAG, and takes up to 30 s after the last run to complete one.
        with suppress(AirflowError):  # 409: it has been completed meanwhile
            persist(self.live_airflow.api.call, "PUT", f"backfills/{number}/cancel")
        until(
            lambda: persist(self.live_airflow.api.call, "GET", f"backfills/{number}")["completed_at"],
            "the backfill is completed",
        )
        return run  # type: ignore[no-any-return]

    def claims(self) -> dict[str, JobRecord]:
        """The job records by name of the job dir."""
        storage = self.live_airflow.storage
        dirs = [JobDir(f"{self.live_airflow.bucket}/{self.model}/{name}") for name in self._names()]
        return {one.job_id: JobRecord.from_bytes(storage.read(one.claim)) for one in dirs if storage.exists(one.claim)}

    def _names(self) -> list[str]:
        return self.live_airflow.storage.list_dirs(f"{self.live_airflow.bucket}/{self.model}")

    def jobs(self) -> list[JobStatus]:
        backend = LocalBackend(**self.options)
        return [status for record in self.claims().values() for status in backend.describe(backend.find(record.key))]

    def args(self) -> list[str]:
        """The argument of each job, in the order of the job dirs."""
        return [record.spec["args"][1] for _, record in sorted(self.claims().items())]


@pytest.fixture
def weekly(live_airflow: LiveAirflow) -> Iterator[Weekly]:
    live_airflow.api.wait_for_dag("wait_weekly")
    made = Weekly(live_airflow, f"weekly{uuid.uuid4().hex[:6]}")
    yield made
    backend = LocalBackend(**made.options)
    for status in made.jobs():
        if not status.state.terminal:
            backend.cancel(status.handle)
    until(lambda: all(status.state.terminal for status in made.jobs()), "no job is left running")


def test_a_deleted_and_recreated_run_trains_with_its_own_arguments(live_airflow: LiveAirflow, weekly: Weekly) -> None:
    run_id = f"nightly-{weekly.model}"
    first, second = weekly.ends_with(0), weekly.ends_with(0)
    run = live_airflow.trigger("wait_weekly", weekly.conf(first), run_id)
    assert weekly.done(run) == "success"
    before = weekly.claims()
    weekly.delete(run)
    again = live_airflow.trigger("wait_weekly", weekly.conf(second), run_id)
    assert weekly.done(again) == "success"
    assert weekly.args() == [str(first), str(second)]
    (name,) = before
    assert sorted(weekly.claims()) == [name, f"{name}_2"]
    assert weekly.claims()[name] == before[name], "the earlier job record was changed"
    old, new = (record.owner for _, record in sorted(weekly.claims().items()))
    assert old["run_uid"] != new["run_uid"]
    assert old["installation"] == new["installation"] != ""
    found = persist(live_airflow.api.call, "GET", "variables/mlengine_installation_id")
    assert found["value"] == new["installation"]
    lines = persist(live_airflow.api.log, "wait_weekly", run_id, "submit")
    assert any("belongs to an earlier run" in line and f"{first} → " in line for line in lines), lines


def test_clearing_submit_or_wait_keeps_the_uid_of_the_run(live_airflow: LiveAirflow, weekly: Weekly) -> None:
    run = live_airflow.trigger("wait_weekly", weekly.conf(weekly.ends_with(0)), f"cleared-{weekly.model}")
    assert weekly.done(run) == "success"
    persist(live_airflow.api.clear, run, "submit")
    until(lambda: len(weekly.claims()) == 2, "the cleared task trains again")
    assert weekly.done(run) == "success"
    persist(live_airflow.api.clear, run, "wait")
    assert weekly.done(run) == "success"
    uids = {record.owner["run_uid"] for record in weekly.claims().values()}
    generations = {record.owner["generation"] for record in weekly.claims().values()}
    assert (len(uids), len(generations), len(weekly.jobs())) == (1, 2, 2)


def test_a_failed_backfill_can_be_deleted_and_repeated_with_other_arguments(weekly: Weekly) -> None:
    wrong, right = weekly.ends_with(7), weekly.ends_with(0)
    first = weekly.backfill(wrong)
    assert weekly.done(first) == "failed"
    weekly.delete(first)
    again = weekly.backfill(right)
    assert again.run_id == first.run_id, "the schedule determines the run id"
    assert weekly.done(again) == "success"
    assert weekly.args() == [str(wrong), str(right)]
    assert [status.state for status in weekly.jobs()] == [JobState.FAILED, JobState.SUCCEEDED]
    weekly.delete(again)


def test_deleting_a_dag_during_a_deferred_wait_cancels_its_job(live_airflow: LiveAirflow, weekly: Weekly) -> None:
    """Deleting the DAG deletes the trigger too, and Airflow calls its ``on_kill``."""
    run = live_airflow.trigger("wait_weekly", weekly.conf(weekly.never_ends()), f"deferred-{weekly.model}")
    until(lambda: _states(live_airflow, run)["wait"] == "deferred", "a task waits for the job")
    until(lambda: [status.state for status in weekly.jobs()] == [JobState.RUNNING], "the job runs")
    # Airflow calls on_kill only for a trigger that a triggerer has started.
    until(lambda: live_airflow.logged_by_triggers(run.run_id), "the trigger runs")
    persist(live_airflow.api.call, "DELETE", "dags/wait_weekly")
    until(lambda: [status.state for status in weekly.jobs()] == [JobState.CANCELLED], "the job ends", seconds=90)
    os.utime(live_airflow.airflow.config.dags / "weekly.py")
    live_airflow.api.wait_for_dag("wait_weekly")


def test_an_orphaned_job_of_a_deleted_dag_is_cancelled_when_the_run_is_recreated(
    live_airflow: LiveAirflow, weekly: Weekly, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A DAG can be deleted with all its runs while a wait in ``reschedule`` mode is between two polls."""
    job_dir = JobDir.of(live_airflow.bucket, weekly.model, "given")
    job = {"model": weekly.model, "job_id": "given", "job_dir": job_dir.uri}
    run_id = f"gone-{weekly.model}"

    def trigger() -> DagRun:
        live_airflow.api.wait_for_dag("wait_gone")
        run = live_airflow.trigger("wait_gone", {**weekly.conf(weekly.never_ends()), "dir": job}, run_id)
        until(lambda: _states(live_airflow, run)["wait"] == "up_for_reschedule", "a task waits for the job")
        return run

    trigger()
    persist(live_airflow.api.call, "DELETE", "dags/wait_gone")
    assert [status.state.terminal for status in weekly.jobs()] == [False], "a task cancelled the job"
    os.utime(live_airflow.airflow.config.dags / "waits.py")
    again = trigger()
    until(lambda: sum(not status.state.terminal for status in weekly.jobs()) == 1, "only one job is active")
    by_dir = {status.handle.job_dir: status.state for status in weekly.jobs()}
    assert by_dir[job_dir.uri] is JobState.CANCELLED
    assert not by_dir[f"{job_dir.uri}_2"].terminal

    for name, value in live_airflow.admin.items():
        monkeypatch.setenv(name, value)
    command = [
        "jobs",
        "reap",
        "--bucket",
        live_airflow.bucket,
        "--model",
        weekly.model,
        "--state-dir",
        weekly.options["state_dir"],
    ]
    assert main(command) == 0
    assert "no orphan jobs" in capsys.readouterr().out
    # Change the id in Airflow that distinguishes the two runs. The claim now belongs to a run that was created again.
    store = f"{run_path(again.dag_id, again.run_id)}/taskInstances/submit/state-store/mlengine_run_uid"
    persist(live_airflow.api.call, "PUT", store, {"value": "another"})
    assert main(command) == 0
    assert "was deleted and recreated" in capsys.readouterr().out
    persist(live_airflow.api.set_run_state, again, "failed")


def _states(live_airflow: LiveAirflow, run: DagRun) -> dict[str, str | None]:
    return {task.task_id: task.state for task in persist(live_airflow.api.tasks, run.dag_id, run.run_id)}
