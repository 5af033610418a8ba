"""Tests that a job ends with its task when there is no trigger, or when none of mlengine's code runs at that time.

Covers waits in ``poke`` and ``reschedule`` mode, a task or worker that is killed with SIGKILL during its last try, and
a run that is marked after its job was submitted and before the wait begins.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends.local.backend import LocalBackend
from mlengine.core.job import JobRecord, JobState
from mlengine.core.layout import JobDir
from mlengine.testing.airflow_api import DagRun
from tests.support.kill_matrix import Cell, Script, act, ends, play, scene, waits_in, watched
from tests.support.live_airflow import QUICK, Job, LiveAirflow, lost_its_retry, persist, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

OUTCOME_SECONDS = 900.0  # only a machine that is very busy needs minutes


@dataclass(frozen=True)
class Case:
    """One way to end a wait: the expected state of the wait (``task``) and of its job's ``attempts``.

    :param scripts: what happens once the wait has begun.
    :param state: the job's state when the wait begins.
    """

    dag: str
    task: str
    attempts: tuple[str, ...]
    scripts: tuple[Script, ...] = (watched,)
    state: JobState = JobState.RUNNING


def _mark(state: str) -> Script:
    return act(lambda _, job: job.mark(state))


def _mark_until_it_persists(state: str) -> Script:
    """Mark the wait until the mark persists: a scheduler about to run a rescheduled task again can overwrite it."""

    def script(_: LiveAirflow, job: Job) -> Iterator[Any]:
        held = 0
        while held < 2:
            if job.task.state == state:
                held += 1
            else:
                job.mark(state)
                held = 0
            next_check = time.monotonic() + 2.0
            while time.monotonic() < next_check:
                yield

    return script


def _next_attempt(_: LiveAirflow, job: Job) -> Iterator[Any]:
    while [status.state.terminal for status in job.attempts] != [True, False]:
        yield


def _kill(whole_worker: bool) -> Script:
    """Send SIGKILL to the task's process, and with ``whole_worker`` to the worker's process too."""

    def script(live_airflow: LiveAirflow, job: Job) -> Iterator[Any]:
        notes = _pids(live_airflow, job)
        while not (notes.exists() and job.watched()):
            yield
        task, worker = map(int, notes.read_text().split())
        for pid in (worker, task) if whole_worker else (task,):
            os.kill(pid, signal.SIGKILL)

    return script


def _pids(live_airflow: LiveAirflow, job: Job) -> Path:
    return live_airflow.root / f"{job.name}.pids"


CANCELLED, DONE = ("CANCELLED",), ("SUCCEEDED",)
AGAIN = (watched, act(lambda live_airflow, job: persist(live_airflow.api.clear, job.run, "wait")), _next_attempt, ends)
CASES = {
    # None of mlengine's code runs when these end. Airflow notices a killed worker after 60 s.
    "last try, worker killed": Case("wait_last_try", "failed", CANCELLED, (_kill(whole_worker=True),)),
    "last try, task killed": Case("wait_last_try", "failed", CANCELLED, (_kill(whole_worker=False),)),
    "poke, task timeout": Case("wait_poke_limit", "failed", ("CANCELLED", "CANCELLED")),
    "poke, our deadline": Case("wait_poke_deadline", "failed", CANCELLED, state=JobState.PREPARING),
    "poke, cleared": Case("wait_poke", "success", ("CANCELLED", "SUCCEEDED"), AGAIN),
    "poke, marked failed": Case("wait_poke", "failed", CANCELLED, (watched, _mark("failed")), JobState.QUEUED),
    "poke, finished": Case("wait_poke", "success", DONE, (watched, ends)),
    "reschedule, our deadline": Case("wait_reschedule_deadline", "failed", CANCELLED, state=JobState.QUEUED),
    # The run continues; the job must not.
    "reschedule, marked failed": Case(
        "wait_and_other", "failed", CANCELLED, (watched, _mark_until_it_persists("failed"))
    ),
    "reschedule, marked success": Case(
        "wait_reschedule", "success", CANCELLED, (watched, _mark_until_it_persists("success")), JobState.PREPARING
    ),
    "reschedule, finished": Case("wait_reschedule", "success", DONE, (watched, ends)),
}


@pytest.fixture(scope="module")
def cells(live_airflow: LiveAirflow) -> dict[str, Cell]:
    """All cases, after each has reached its outcome or the timeout."""
    blocker = live_airflow.submit("blocker", place="full-sync")
    until(lambda: blocker.state is JobState.RUNNING, "the blocking job runs")
    made = {name: _cell(live_airflow, name, case) for name, case in CASES.items()}
    play(live_airflow, made.values(), OUTCOME_SECONDS)
    wrong = [name for name, cell in made.items() if cell.seen != cell.expected and cell.job.run]
    again = {name: _cell(live_airflow, name, CASES[name]) for name in wrong if lost_its_retry(made[name].job)}
    play(live_airflow, again.values(), OUTCOME_SECONDS)
    return {**made, **again}


def _cell(live_airflow: LiveAirflow, name: str, case: Case) -> Cell:
    options: dict[str, Any] = {"place": "full-sync" if case.state is JobState.QUEUED else "roomy"}
    if case.state is JobState.PREPARING:
        options["package"] = live_airflow.slow_package
    job = live_airflow.submit(name.replace(", ", "-").replace(" ", "-"), **options)
    begin = waits_in(case.dag, case.state, pids=str(_pids(live_airflow, job)))
    marked = name.startswith("reschedule, marked")  # each overwritten mark has caused another attempt
    return Cell(job, (case.task, case.attempts), scene(live_airflow, job, begin, *case.scripts), ignore_repeats=marked)


@pytest.mark.parametrize("name", CASES)
def test_the_job_ends_when_its_wait_ends(cells: dict[str, Cell], name: str) -> None:
    cell = cells[name]
    assert cell.seen == cell.expected, "\n".join(cell.job.log()) if cell.job.run else "the wait never started"


@pytest.fixture(scope="module")
def gaps(live_airflow: LiveAirflow) -> dict[str, DagRun]:
    """Runs that have submitted their job and do not wait for it yet."""
    live_airflow.api.wait_for_dag("wait_gap")
    runs = {}
    for state in ("failed", "success"):
        name = f"gap-{uuid.uuid4().hex[:6]}"
        job_file = {
            "trainingInput": {
                "pythonModule": "idle_trainer",
                "packageUris": [live_airflow.quick_package],
                "args": ["--until", str(live_airflow.root / "end-never")],
            }
        }
        job_dir = JobDir.of(live_airflow.bucket, "waits", name.replace("-", "_"))
        job = {"model": "waits", "job_id": job_dir.job_id, "job_dir": job_dir.uri}
        runs[state] = live_airflow.trigger(
            "wait_gap", {"dir": job, "options": _gap(live_airflow), "job_file": job_file}, name
        )
    return runs


def _gap(live_airflow: LiveAirflow) -> dict[str, Any]:
    return {"state_dir": str(live_airflow.root / "gap"), "max_concurrent_jobs": 200, **QUICK}


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_run_before_its_wait_begins_cancels_its_job(
    live_airflow: LiveAirflow, gaps: dict[str, DagRun], state: str
) -> None:
    run = gaps[state]

    def tasks() -> dict[str, str | None]:
        return {task.task_id: task.state for task in persist(live_airflow.api.tasks, run.dag_id, run.run_id)}

    until(lambda: tasks().get("hold") == "running", "the job is submitted")
    backend = LocalBackend(**_gap(live_airflow))
    claim = JobDir.of(live_airflow.bucket, "waits", run.run_id.replace("-", "_")).claim
    (handle,) = backend.find(JobRecord.from_bytes(live_airflow.storage.read(claim)).key)
    until(lambda: backend.describe([handle])[0].state is JobState.RUNNING, "the job runs")
    persist(live_airflow.api.set_run_state, run, state)
    until(lambda: backend.describe([handle])[0].state is JobState.CANCELLED, "the job is cancelled")
    assert tasks()["wait"] in {None, "skipped"}
